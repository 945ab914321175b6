r"""Multiple choice: the option letter an answer submits, against the reference letter.

Report section 4.2.2: "the first letter of the submitted option". That rule takes the article "A"
for an option, so it is kept as a switch (`"rule": "first_letter"`), and the default reads only
letters that are anchored, with Markdown and LaTeX markup taken off, in this order:
  1. `\boxed{B}` (also `\boxed{\text{(\textbf{B})}}`, `\boxed{(B) Mars}`);
  2. a statement: "the answer is B", "**Answer:** B", "答案：B", "故选B", "option B is correct",
     "not B, so C", or with an option's text in the letter's place, "the answer is Mars";
  3. an answer that is the letter alone, on its first line or its last, or starts with it and a
     delimiter: "B", "Option B", "B. Mars", or with the option's own text behind it, "B (Mars)";
  4. the text of exactly one option.
Two different submissions are wrong unless the second takes the first back ("no, wait: ..."), and a
letter outside the option set is wrong.

Accepts: answer, free text. Reference: "B", or {"answer": "B" or an option's text, "options":
letters, list of option texts, {letter: text}, or a count}; without options the set is A to D (or
up to the answer). Options that are single letters are the set if the answer is among them or they
count up from A, else they are texts (A, C, G, T).
Usage: `verify("Not B, so C.", {"answer": "C", "options": ["A", "B", "C", "D"]})`
"""

from __future__ import annotations

import re
from string import ascii_uppercase
from typing import Any

from katlab import UserError
from katlab.rewards.text import ANSWER, IS, RETRACTED, boxes, plain
from katlab.rewards.verdict import MAX_ANSWER, Verdict, answer_span

_MARKUP = re.compile(
    r"\\[()\[\],;! ]|\\(?:text(?:bf|it|rm|tt|sf)?|math(?:rm|bf|it|sf)|mbox|rm|bf)\b|[*`${}]|__"
    r"|</?(?:b|i|u|em|strong|code|p)>"
)
# After a letter: the end, a delimiter, or a word that continues a statement and not a noun phrase.
_AFTER = (
    r"(?=\s*(?:$|[.,;:!?)\]}\n]|-|[^\x00-\x7f]|\b(?:because|since|as|and|or|but|is|not|with)\b))"
)
_LEFT, _RIGHT = r"(?:[(\[<_\x22\x27]\s?){0,6}", r"(?:\s?[)\]>_\x22\x27]){0,6}"
_NOUN = r"(?:\s*(?i:option|choice|letter|选项)\s*)?"
_LETTER = rf"{_NOUN}{_LEFT}(?P<letter>[A-Za-z])(?![A-Za-z]){_RIGHT}{_AFTER}"
_CAPITAL = _LETTER.replace("A-Za-z])(", "A-Z])(")
_STATED = re.compile(
    r"(?:(?i:\b(?:answers?\b(?:\s+(?:choice|option))?|ans\b\.?)\x22?"
    r"(?:,\s*(?:then|therefore|thus|hence)\s*,|\s+(?:to|of|for|here)\b[^.\n:=]{0,60}?(?=\s+is\b))?"
    r"\s*(?:(?:is|are|(?:would|must|should) be)\b|[:=]|-(?=\s)|->|→|\n|(?<=\.))"
    r"|\b(?:correct|right|best|selected|chosen|final) (?:option|choice|one)\s*(?:is|:))"
    rf"|(?:{ANSWER}|正确选项)\s*(?:应?选|{IS}))\s*[:=]?\s*"
    r"(?i:(?:obviously|clearly|indeed|definitely|therefore|thus|simply|certainly),?\s+)?"
)
_HENCE = re.compile(  # weaker words: a capital only, "so a, ..." is an article
    r"(?:(?i:\b(?:so|therefore|thus|hence)\b,?"
    r"(?:\s+(?:it is|it's|it must be|we choose|choose|pick))?"
    r"|\b(?:choose|pick|select|chosen|go with|it is|it's|it must be))|[应故]?选择?)\s*:?\s*"
)
_IS_RIGHT = re.compile(
    r"(?:\b(?:option|choice)\s+|选项)?[(\[]{0,6}(?<![A-Za-z])(?P<letter>[A-Z])(?![A-Za-z])[)\]]{0,6}\s*"
    r"(?:\bis\s+(?:the\s+)?(?:correct|right|best|answer)\b|(?:是|为)?正确)"
)
_IS_ANSWER = r"is\s+the\s+(?:(?:correct|right|final)\s+)?answer\b"
_ALONE = re.compile(
    r"(?:(?i:(?:the\s+)?(?:option|choice|letter|answer)\b|选项?)\s*:?)?"
    r"(?:[-\u2022+]\s|\d{1,2}[.)]\s)?"
    r"[(\[<#_\"'\s]*(?P<letter>[A-Za-z])[)\]>_.:,;\"'\s]*(?:项|选项)?[.\s]*"
)
_LISTED = re.compile(
    r"^[ \t>-]{0,9}(?:(?i:option|choice)\s+)?[(\[]{0,6}(?P<letter>[A-Z])"
    r"(?:[)\]]|[.:](?=\s)|\s+-\s)",
    re.MULTILINE,
)
_LABEL = re.compile(r"\(?(?P<letter>[A-Z])(?:[.):]\s*|\s+-\s+)")
_INLINE = re.compile(r"(?<!\w)\(?(?P<letter>[A-Z])\)(?=\s)")  # "(A) Venus (B) Mars"
_OTHER = re.compile(r"\s*(?:or|and|/|,|或|和)\s*\(?(?P<letter>[A-Z])\b(?!\s+(?:is|are|was)\b)")
_NEGATED = re.compile(r"(?:\b(?:not|neither|nor)|n't)\W+(?:\w+\W+)?$|不$")


def option_texts(reference: Any) -> tuple[str, dict[str, str]]:
    """(reference letter, {letter: option text or ""}). Raises UserError when unusable."""
    spec = {"answer": reference} if isinstance(reference, str) else reference
    if not isinstance(spec, dict) or not isinstance(spec.get("answer"), str):
        raise UserError("A choice reference needs a letter: give {'answer': 'B'}.")
    given = bare(spec["answer"])
    gold = given.strip("()[]. ").upper()
    options = spec.get("options")
    if options is None:
        options = max(4, ascii_uppercase.find(gold) + 1)
    if isinstance(options, int) and 0 < options <= len(ascii_uppercase):
        texts = dict.fromkeys(ascii_uppercase[:options], "")
    elif isinstance(options, dict):
        texts = {str(k).strip("(). ").upper(): bare(str(v)) for k, v in options.items()}
    elif not isinstance(options, list | tuple | str):
        raise UserError("The options must be letters, texts, or a count: correct the row.")
    else:
        options = [str(o) for o in options]
        letters = [o.upper() for o in options if len(o) == 1 and o.isalpha()]
        in_order = letters == list(ascii_uppercase[: len(letters)])
        if len(letters) == len(options) and (gold in letters or in_order):
            texts = dict.fromkeys(letters, "")
        else:
            texts = dict(zip(ascii_uppercase, map(bare, options), strict=False))
            labels = [_LABEL.match(text) for text in texts.values()]
            if [m and m["letter"] for m in labels] == list(texts):  # "A) Venus", "B) Mars"
                texts = {m["letter"]: m.string[m.end() :] for m in labels if m}
        if len(options) > len(ascii_uppercase):
            raise UserError("Options are named by letters: give at most 26.")
    if not texts:
        raise UserError("A choice needs options: give their letters, texts, or count.")
    if not all(len(k) == 1 and k in ascii_uppercase for k in texts):
        raise UserError("Options are named by letters: name them A, B, C.")
    if gold not in texts:
        same = [k for k, v in texts.items() if v and _plain(v) == _plain(given)]
        labelled = _LABEL.match(given)
        if labelled and _plain(texts.get(labelled["letter"], "")) == _plain(
            given[labelled.end() :]
        ):
            same = [labelled["letter"]]
        gold = same[0] if len(same) == 1 else gold
    if gold not in texts:
        raise UserError(f"The reference letter {gold!r} is not among the options: correct the row.")
    return gold, texts


def bare(text: str) -> str:
    """The text in compatibility form, without Markdown and LaTeX markup."""
    return _MARKUP.sub("", plain(text).replace("~", " ")).strip()


def extract(answer: str, texts: dict[str, str]) -> tuple[str | None, str]:
    """(letter submitted or None, where it was found). The letter may lie outside the option set."""
    boxed = [_letter_of(bare(b), texts) for b in boxes(plain(answer))]
    if boxed:
        return _only(boxed, "boxed")
    answer = bare(answer)
    stated: list[tuple[int, str]] = []
    for start, end, letter in _statements(answer, texts):
        if _NEGATED.search(answer[max(0, start - 20) : start]):
            continue
        stated.append((end, letter))
        other = _OTHER.match(answer, end)
        if other and other["letter"] != letter or _names_another(answer[end:], letter, texts):
            return None, "two options submitted at once"
    if stated:
        stated.sort()
        last_change = max((p for p, letter in stated if letter != stated[-1][1]), default=None)
        if last_change is None or RETRACTED.search(answer, last_change, stated[-1][0]):
            return stated[-1][1], "stated"
        return None, "two different final answers"
    return _only([_letter_of(answer, texts)], "alone")


_AS_LETTER = {_STATED: re.compile(_LETTER), _HENCE: re.compile(_CAPITAL)}


def _statements(answer: str, texts: dict[str, str]) -> list[tuple[int, int, str]]:
    """(start, end, letter) of each statement, by its letter or by an option's text."""
    found = [(m.start(), m.end(), m["letter"]) for m in _IS_RIGHT.finditer(answer)]
    for letter, text in texts.items():
        if text:
            first = rf"(?i:(?<!\w){re.escape(text)}\s+{_IS_ANSWER})"
            found += [(m.start(), m.end(), letter) for m in re.finditer(first, answer)]
    for pattern, as_letter in _AS_LETTER.items():
        for match in pattern.finditer(answer):
            if letter_at := as_letter.match(answer, match.end()):
                found.append((match.start(), letter_at.end(), letter_at["letter"].upper()))
            elif named := _named(answer[match.end() :], texts):
                found.append((match.start(), match.end() + named[1], named[0]))
    return found


def _named(rest: str, texts: dict[str, str]) -> tuple[str, int] | None:
    """(letter, length) of the one option whose text a statement begins with, the longest."""
    ends: dict[str, int] = {}
    for letter, text in texts.items():
        words = re.escape(_plain(text)).replace(r"\ ", r"\s+")
        match = re.match(rf"(?i:(?:the\s+)?{words})(?!\w|[.,]\d)", rest) if words else None
        ends |= {letter: match.end()} if match else {}
    longest = max(ends.values(), default=0)
    named = [letter for letter, end in ends.items() if end == longest]
    return (named[0], longest) if len(named) == 1 else None


def _names_another(rest: str, letter: str, texts: dict[str, str]) -> bool:
    joined = re.match(r"\s*(?:or|and|/|,|或|和)\s*", rest)
    named = _named(rest[joined.end() :], texts) if joined else None
    return named is not None and named[0] != letter


def _letter_of(text: str, texts: dict[str, str]) -> str | None:
    """The letter that a short text submits: alone, before a delimiter, or by an option's text."""
    if alone := _ALONE.fullmatch(text):
        same = [k for k, v in texts.items() if v and _plain(v) == _plain(text)]
        letter = alone["letter"].upper()
        return same[0] if letter not in texts and len(same) == 1 else letter
    same = [k for k, v in texts.items() if v and _plain(v) == _plain(text)]
    if len(same) == 1:
        return same[0]
    for letter, option in texts.items():  # "B (Mars)", "Mars (B)": the letter and its own text
        words = re.escape(_plain(option))
        both = rf"\W*{letter}\W+{words}\W*|\W*{words}\W+(?:option\W+)?{letter}\W*"
        if option and re.fullmatch(both, _plain(text), re.IGNORECASE):
            return letter
    lines = text.split("\n")  # a letter alone on the first line or the last, reasons beside it
    edges = [m["letter"] for m in map(_ALONE.fullmatch, (lines[0], lines[-1])) if m]
    if len(set(edges)) == 1 and edges[0].isupper():
        return edges[0]
    listed = {m["letter"] for m in (*_LISTED.finditer(text), *_INLINE.finditer(text))}
    return listed.pop() if len(listed) == 1 and _LISTED.match(text) else None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .")


def _only(letters: list[str | None], where: str) -> tuple[str | None, str]:
    if len(set(letters)) > 1:
        return None, "two different final answers"
    return letters[0], where if letters[0] else "no option submitted"


def first_letter(answer: str) -> str | None:
    """The report's rule: the first letter of the text, whatever it belongs to."""
    return next((c.upper() for c in answer if c.isalpha()), None)


def verify(answer: str, reference: Any) -> Verdict:
    """Correct when the submitted letter is the reference's (module docstring: what is accepted).

    Raises UserError for an unusable reference.
    """
    gold, texts = option_texts(reference)
    rule = reference.get("rule", "anchored") if isinstance(reference, dict) else "anchored"
    if rule not in ("anchored", "first_letter"):
        raise UserError(f"Unknown choice rule {rule!r}: use 'anchored' or 'first_letter'.")
    text = answer_span(answer)
    if not text or len(text) > MAX_ANSWER:
        letter, where = None, "empty answer" if not text else "answer too long"
    elif rule == "first_letter":
        letter, where = first_letter(text), "first letter"
    else:
        letter, where = extract(text[-4000:], texts)  # a final answer stands at the end
    if letter and letter not in texts:
        where = f"{letter} is not an option"
    reason = f"{where}: {letter}" if letter in texts else where
    return Verdict(letter == gold, reason, detail={"submitted": letter})
