r"""Multiple choice: the option letter an answer submits, against the reference letter.

Report section 4.2.2: "the first letter of the submitted option". That rule takes the article "A"
for an option, so it is kept as a switch (`"rule": "first_letter"`), and the default reads only
letters that are anchored, in this order:
  1. `\boxed{B}` (also `\boxed{\text{B}}`, `\boxed{(B) Mars}`);
  2. a statement: "the answer is B", "Answer: B", "option B is correct", "not B, so C";
  3. an answer that is the letter alone, or starts with it and a delimiter: "B", "(B)", "B. Mars";
  4. the text of exactly one option.
Two different submissions are wrong unless the second takes the first back ("no, wait: ..."), and a
letter outside the option set is wrong.

Accepts: answer, free text. Reference: "B", or {"answer": "B", "options": letters, list of option
texts, {letter: text}, or a count}; without options the set is A to D (or up to the answer).
Usage: `verify("Not B, so C.", {"answer": "C", "options": ["A", "B", "C", "D"]})`
"""

from __future__ import annotations

import re
from string import ascii_uppercase
from typing import Any

from katlab import UserError
from katlab.rewards.verdict import MAX_ANSWER, Verdict, answer_span

# After a letter: the end, a delimiter, or a word that continues a statement and not a noun phrase.
_AFTER = r"(?=\s*(?:$|[.,;:!?)\]}\n*]|-|\b(?:because|since|as|and|or|but|is|not|with)\b))"
_OPEN, _CLOSE = r"[(\[*$]{0,6}", r"[)\]*$]{0,6}"
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_LATEX = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mathit|rm|bf)\b|[{}$]")
_STATED = re.compile(
    r"(?i:\banswers?\b(?:\s+(?:choice|option))?\s*(?:is|are|(?:would|must|should) be|[:=])\s*[:=]?)"
    rf"\s*(?i:\boption\s+|\bchoice\s+)?{_OPEN}(?P<letter>[A-Za-z]){_CLOSE}{_AFTER}"
)
_HENCE = re.compile(  # weaker words: a capital only, "so a, ..." is an article
    r"(?i:\b(?:so|therefore|thus|hence)\b,?(?:\s+(?:it is|it's|it must be|we choose|choose|pick))?"
    r"|\b(?:choose|pick|select|chosen|correct option is|correct choice is|correct one is))"
    rf"\s*(?i:\boption\s+|\bchoice\s+)?{_OPEN}(?P<letter>[A-Z]){_CLOSE}{_AFTER}"
)
_IS_RIGHT = re.compile(
    rf"(?:\b(?:option|choice)\s+)?{_OPEN}\b(?P<letter>[A-Z])\b{_CLOSE}\s+is\s+(?:the\s+)?"
    r"(?:correct|right|best|answer)\b"
)
_ALONE = re.compile(r"[(\[*$\s]*(?P<letter>[A-Za-z])[)\]*$.:\s]*")
_LISTED = re.compile(
    r"^[ \t>*-]{0,9}[(\[*]{0,6}(?P<letter>[A-Z])(?:[)\]]|[.:](?=\s))", re.MULTILINE
)
_INLINE = re.compile(r"(?<!\w)\(?(?P<letter>[A-Z])\)(?=\s)")  # "(A) Venus (B) Mars"
_OTHER = re.compile(r"\s*(?:or|and|/|,)\s*\(?(?P<letter>[A-Z])\b(?!\s+(?:is|are|was)\b)")
_NEGATED = re.compile(r"(?:\b(?:not|neither|nor)|n't)\W+(?:\w+\W+)?$")
_RETRACTED = re.compile(r"\b(?:wait|no|actually|correction|instead|sorry|scratch|rather)\b", re.I)


def option_texts(reference: Any) -> tuple[str, dict[str, str]]:
    """(reference letter, {letter: option text or ""}). Raises UserError when unusable."""
    spec = {"answer": reference} if isinstance(reference, str) else reference
    if not isinstance(spec, dict) or not isinstance(spec.get("answer"), str):
        raise UserError("A choice reference needs a letter: give {'answer': 'B'}.")
    gold = spec["answer"].strip().strip("()").upper()
    options = spec.get("options", max(4, ascii_uppercase.find(gold) + 1))
    if isinstance(options, int):
        texts = dict.fromkeys(ascii_uppercase[:options], "")
    elif isinstance(options, dict):
        texts = {str(k).upper(): str(v) for k, v in options.items()}
    elif all(len(str(o)) == 1 and str(o).isalpha() for o in options):
        texts = {str(o).upper(): "" for o in options}
    else:
        texts = dict(zip(ascii_uppercase, map(str, options), strict=False))
    if gold not in texts:
        raise UserError(f"The reference letter {gold!r} is not among the options: correct the row.")
    return gold, texts


def extract(answer: str, texts: dict[str, str]) -> tuple[str | None, str]:
    """(letter submitted or None, where it was found). The letter may lie outside the option set."""
    boxed = [_letter_of(_LATEX.sub("", b), texts) for b in _BOXED.findall(answer)]
    if boxed:
        return _only(boxed, "boxed")
    stated = []  # (position, letter)
    for pattern in (_STATED, _HENCE, _IS_RIGHT):
        for match in pattern.finditer(answer):
            if _NEGATED.search(answer[max(0, match.start() - 20) : match.start()]):
                continue
            stated.append((match.end("letter"), match["letter"].upper()))
            other = _OTHER.match(answer, match.end())
            if other and other["letter"] != match["letter"].upper():
                return None, "two options submitted at once"
    if stated:
        stated.sort()
        last_change = max((p for p, letter in stated if letter != stated[-1][1]), default=None)
        if last_change is None or _RETRACTED.search(answer, last_change, stated[-1][0]):
            return stated[-1][1], "stated"
        return None, "two different final answers"
    return _only([_letter_of(answer, texts)], "alone")


def _letter_of(text: str, texts: dict[str, str]) -> str | None:
    """The letter that a short text submits: alone, before a delimiter, or by an option's text."""
    alone = _ALONE.fullmatch(text)
    if alone:
        return alone["letter"].upper()
    same = [k for k, v in texts.items() if v and _plain(v) == _plain(text)]
    if len(same) == 1:
        return same[0]
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
