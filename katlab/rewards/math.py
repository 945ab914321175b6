r"""Math: is the final answer equal to the reference, as a number, an expression, or a set?

Report section 4.2.2 (symbolic or numeric equivalence, 0/1). Two paths:
  1. exact, in this process, microseconds: integers, fractions and decimals as exact rationals, and
     normalised strings that are identical;
  2. everything else: `math-verify` in a worker process that is killed and restarted when an answer
     passes its deadline (`katlab.rewards.math_pool`), after bounds on length, digits, nesting,
     powers and factorials that no honest answer reaches.
Deviations: 1. an answer equals the reference as a whole: trailing text that a parser would drop
("4\sqrt(2)" read as 4) makes it wrong; 2. an "equal" from the library is checked again by value to
30 digits, and never taken between an equation and an expression, or for a list with an ellipsis.

Accepts: the content of the last `\boxed{}` (several that differ are wrong, unless the reference is
a set), else what follows the last "answer is" / "answer:" / "####" in its sentence, else the
whole answer, with $ signs, LaTeX spacing and a closing full stop taken off. Reference: a
string such as "12", "\frac{1}{2}", "x = 3", "(1, 2)"; a number is taken as its string.
Usage: `verify("so the answer is 12.", "12")`
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from fractions import Fraction
from functools import lru_cache
from threading import Lock
from typing import Any

from katlab.rewards import math_pool
from katlab.rewards.verdict import MAX_ANSWER, Verdict, answer_span

DEADLINE = 2.0  # seconds of processor time of one answer in a worker
MAX_CHARS, MAX_DIGITS, MAX_DEPTH, MAX_FRACTIONS = 2000, 200, 24, 40
CACHE_SIZE = 50_000

_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_STATED = re.compile(r"(?:\banswer\s*(?:is|:|=)|####)\s*:?\s*", re.IGNORECASE)
_SENTENCE = re.compile(r"\n|\.(?=\s)|\s+(?:because|since|as|which|so)\b")
_SPACING = re.compile(  # a run of backslashes goes whole, so that one pass leaves nothing to do
    r"\\+(?:[,;:!\s()\[\]]|(?:left|right|displaystyle|quad|qquad)(?![A-Za-z]))|~"
)
_NUMBER = re.compile(r"([+-]?)(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?(?:/(\d+))?")
_FRAC = re.compile(r"([+-]?)\\[dt]?frac\{([+-]?\d+)\}\{([+-]?\d+)\}")
# base^power as an exponent, with the power's digits; 10^5 and above is out of bounds.
_TOWER = re.compile(r"(?:\^|\*\*)\s*[{(]*\s*(\d+)\s*(?:\^|\*\*)\s*[{(]*\s*(\d+)")
_HUGE = re.compile(
    r"(?:\^|\*\*)\s*[{(]*\s*-?\d{6,}"  # an exponent, or a sum's upper limit
    r"|(?:\d{5,}|[)}!])\s*!"  # a factorial of five digits, or of anything in brackets
    r"|binom\s*\{\s*\d{5,}"
)
_ELLIPSIS = re.compile(r"\\(?:ldots|cdots|dots|dotsc|dotsb)(?![A-Za-z])|\.{3}|…")
MEANING = {  # the worker's states: the answer's own doing, or not
    **{"equal": True, "different": False, "timeout": False, "memory": False, "crash": False},
    **{"starved": None, "no_gold": None, "gone": None},
}
_cache: OrderedDict[tuple[str, str], tuple[bool | None, str]] = OrderedDict()
_lock = Lock()
_UNICODE = str.maketrans({"−": "-", "–": "-", "×": "*", "·": "*", "÷": "/", "\u00a0": " "})


def final_answer(text: str) -> str | list[str]:
    r"""What the answer submits: a string, or the list of several differing `\boxed{}` contents."""
    boxes = []
    for match in _BOXED.finditer(text):
        depth, end = 1, match.end()
        while end < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        boxes.append(normalise(text[match.end() : end - 1] if not depth else ""))
        if len(boxes) > 20:
            break
    if boxes:
        distinct = list(dict.fromkeys(boxes))
        return distinct[0] if len(distinct) == 1 else distinct
    stated = None
    for stated in _STATED.finditer(text):  # noqa: B007 (the last one is wanted)
        pass
    if stated:
        text = _SENTENCE.split(text[stated.end() :], maxsplit=1)[0]
    return normalise(text)


def normalise(text: str) -> str:
    """The string without dollar signs, LaTeX spacing, outer blanks and a closing full stop."""
    text = _SPACING.sub(" ", text.translate(_UNICODE).replace("$", ""))
    return re.sub(r"\s+", " ", text).lstrip(" *").rstrip(" *.")


def exact(text: str) -> Fraction | None:
    """The rational number that a normalised string writes in full, else None."""
    text = text.replace(" ", "")
    if len(text) > MAX_DIGITS:
        return None
    if match := _NUMBER.fullmatch(text):
        sign, whole, decimals, below = match.groups()
        if (decimals and below) or (below and int(below) == 0):
            return None
        value = Fraction(whole.replace(",", "") + (decimals or "")) / int(below or 1)
        return -value if sign == "-" else value
    if (match := _FRAC.fullmatch(text)) and int(match[3]):
        value = Fraction(int(match[2]), int(match[3]))
        return -value if match[1] == "-" else value
    return None


def beyond_bounds(text: str) -> str:
    """Why a string is too much for a parser, or ""; no honest answer of a test set comes near."""
    if len(text) > MAX_CHARS:
        return f"over {MAX_CHARS} characters"
    if re.search(rf"\d{{{MAX_DIGITS + 1}}}", text):
        return f"over {MAX_DIGITS} digits"
    depth = deepest = 0
    for char in text:
        depth += (char in "({[") - (char in ")}]")
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH or text.count("frac") > MAX_FRACTIONS:
        return "nested too deeply"
    for base, power in _TOWER.findall(text):
        if int(power[:4]) * len(base) > 6:
            return "a tower of powers"
    return "a number beyond all measure" if _HUGE.search(text) else ""


def quick(submitted: str | list[str], gold: str) -> tuple[bool | None, str] | None:
    """(verdict, reason) where the exact path or the bounds decide; None: the worker must look."""
    if isinstance(submitted, list):
        text = ", ".join(submitted)
        if not re.search(r"[,;{(\[]|\\pm|\bor\b|\band\b", gold):
            return False, f"{len(submitted)} different final answers"
    else:
        text = submitted
    if not text:
        return False, "empty answer"
    if len(text) <= MAX_CHARS and _squeezed(text) == _squeezed(gold):
        return True, "same string"
    a, g = exact(text), exact(gold)
    if a is not None and g is not None:
        if a == g:
            return True, "equal numbers"
        # Rounded decimals are the worker's; two integers, or two far numbers, need no more look.
        if a.denominator == g.denominator == 1 or abs(a - g) * 1000 > max(abs(a), abs(g)):
            return False, "a different number"
    if _contradicts(gold):
        return None, "the reference is a chain of different numbers"
    if _contradicts(text):
        return False, "a chain of different numbers"
    if fault := beyond_bounds(gold):
        return None, f"reference beyond bounds: {fault}"
    if fault := beyond_bounds(text):
        return False, f"beyond bounds: {fault}"
    if _ELLIPSIS.search(text) or _ELLIPSIS.search(gold):
        return False, "with an ellipsis, only the same string is equal"
    return None


def _contradicts(text: str) -> bool:
    """Whether a chain of equations sets different numbers equal: "y = 4 = 5"."""
    return len({v for part in text.split("=") if (v := exact(part)) is not None}) > 1


def _squeezed(text: str) -> str:
    return _ELLIPSIS.sub("...", re.sub(r"\\([dt])frac", r"\\frac", text)).replace(" ", "")


def verify_batch(pairs: list[tuple[str, Any]]) -> list[Verdict]:
    """One verdict per pair, in order; equal (reference, answer) pairs are looked at once."""
    verdicts: list[Verdict] = []
    hard: dict[tuple[str, str], list[int]] = {}
    for i, (answer, reference) in enumerate(pairs):
        start = time.perf_counter()
        gold = _gold(str(reference)) if isinstance(reference, str | int | float) else ""
        submitted = final_answer(answer_span(answer)[:MAX_ANSWER])
        text = submitted if isinstance(submitted, str) else ", ".join(submitted)
        with _lock:
            found = _cache.get((gold, text))
        found = found or quick(submitted, gold)
        if not gold:
            found = None, "the reference is empty or not a string"
        if found is None:
            hard.setdefault((gold, text), []).append(i)
        verdicts.append(Verdict(*(found or (None, "")), time.perf_counter() - start))
    if hard:
        start = time.perf_counter()
        states = math_pool.compare(list(hard), DEADLINE)
        spent = (time.perf_counter() - start) / len(hard)
        for (key, where), (state, note) in zip(hard.items(), states, strict=True):
            found = MEANING[state], note or state
            if MEANING[state] is not None:
                _remember(key, found)
            for i in where:
                verdicts[i] = Verdict(*found, spent, {"state": state})
    return verdicts


@lru_cache(maxsize=4096)
def _gold(reference: str) -> str:
    gold = final_answer(reference) if "\\boxed" in reference else normalise(reference)
    return gold if isinstance(gold, str) else ", ".join(gold)


def _remember(key: tuple[str, str], found: tuple[bool | None, str]) -> None:
    with _lock:
        _cache[key] = found
        if len(_cache) > CACHE_SIZE:
            _cache.popitem(last=False)


def verify(answer: str, reference: Any) -> Verdict:
    """One verdict (module docstring: what is accepted); unscorable when no worker can be had, or
    the reference does not parse.
    """
    return verify_batch([(answer, reference)])[0]


def doctor() -> list[tuple[str, bool, str, str]]:
    """Whether the worker starts and compares."""
    ((state, note),) = math_pool.compare([("1/2", "0.5")], 20.0)
    ok = state == "equal"
    detail, remedy = ("worker answers", "") if ok else (note, "pip install math-verify")
    return [("math-verify", ok, detail, remedy)]
