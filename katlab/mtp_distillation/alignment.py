"""Which tokens of two tokenizers cover the same bytes of a text: the finest such groups.

What ULD (`uld`) and a teacher that reads along pair tokens by; no vocabulary needs to match.

    groups = alignment.align(student_ends, teacher_ends, 0, 0, len(text.encode()))
"""

import unicodedata
from bisect import bisect_left
from itertools import accumulate, pairwise
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase


class Group(NamedTuple):
    """Half-open token index ranges of student and teacher that cover the same bytes."""

    student: tuple[int, int]
    teacher: tuple[int, int]

    @property
    def one_to_one(self) -> bool:
        return all(stop - start == 1 for start, stop in self)


def byte_ends(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int] | None:
    """UTF-8 byte offset at which each token of `text` ends; None if the tokens spell another text.

    A byte-level token has one symbol per byte, an added token is its own text. Where the tokenizer
    normalises (NFC), a token ends where the character that it ends in does. Another text comes of
    a prefix space, SentencePiece, or a normaliser that does not go by character.
    """
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    added = tokenizer.get_added_vocab()
    tokens = tokenizer.convert_ids_to_tokens(ids)
    ends = list(accumulate(len(t.encode()) if t in added else len(t) for t in tokens))
    own, normal = _characters(tokenizer, text)
    if (ends or [0])[-1] != normal[-1]:
        return None
    return ends if own == normal else [own[bisect_left(normal, end)] for end in ends]


def _characters(
    tokenizer: PreTrainedTokenizerBase, text: str
) -> tuple[list[int] | range, list[int] | range]:
    """Byte offsets of the borders between characters (with their marks), before and after the
    tokenizer's normaliser; the last of the second is -1 where it does not go by character."""
    bytes_alone = range(len(text.encode()) + 1)
    normaliser = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
    if normaliser is None or (normal := normaliser.normalize_str(text)) == text:
        return bytes_alone, bytes_alone
    parts: list[str] = []
    for char in text:
        if parts and (unicodedata.category(char)[0] == "M" or "\u1160" <= char <= "\u11ff"):
            parts[-1] += char
        else:
            parts.append(char)
    pieces = [normaliser.normalize_str(part) for part in parts]
    own, after = (
        list(accumulate((len(p.encode()) for p in side), initial=0)) for side in (parts, pieces)
    )
    return (own, after) if "".join(pieces) == normal else (own, [-1])


def align(
    student: list[int], teacher: list[int], student_at: int, teacher_at: int, length: int
) -> list[Group]:
    """Finest groups of tokens that cover the same bytes of a segment both sides have.

    `student` and `teacher` are byte ends; the segment has `length` bytes and begins at byte
    `student_at` of the one text and `teacher_at` of the other. Tokens that reach over the segment's
    border belong to no group.
    """
    ours, theirs = _borders(student, student_at, length), _borders(teacher, teacher_at, length)
    common = sorted(ours.keys() & theirs.keys())
    return [Group((ours[a], ours[b]), (theirs[a], theirs[b])) for a, b in pairwise(common)]


def _borders(ends: list[int], start: int, length: int) -> dict[int, int]:
    """Token borders inside the segment: byte (from its start) -> token that begins there."""
    return {b - start: i for i, b in enumerate([0, *ends]) if 0 <= b - start <= length}


def pieces(
    student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, text: str
) -> list[tuple[list[str], list[str]]]:
    """The tokens of both sides in each group of `text`, as readable strings.

    No groups where a tokenizer changes the text (`byte_ends`).
    """
    ours, theirs = byte_ends(student, text) or [], byte_ends(teacher, text) or []
    raw = text.encode()

    def cut(ends: list[int], part: tuple[int, int]) -> list[str]:
        spans = list(pairwise([0, *ends]))[slice(*part)]
        return [raw[a:b].decode(errors="replace") for a, b in spans]

    groups = align(ours, theirs, 0, 0, len(raw))
    return [(cut(ours, group.student), cut(theirs, group.teacher)) for group in groups]
