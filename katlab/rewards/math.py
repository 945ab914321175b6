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
a set), else what follows the last "answer is" / "answer:" / "####", else the whole answer, with $
signs, LaTeX spacing and a closing full stop taken off. Reference: a string such as "12",
"\frac{1}{2}", "x = 3", "(1, 2)"; a number is taken as its string.
Usage: `verify("so the answer is 12.", "12")`
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from fractions import Fraction
from threading import Lock
from typing import Any

from katlab import UserError
from katlab.rewards.verdict import Verdict, answer_span

DEADLINE = 2.0  # seconds of one answer in a worker
MAX_CHARS, MAX_DIGITS, MAX_DEPTH, MAX_FRACTIONS = 2000, 200, 24, 40
CACHE_SIZE = 50_000

_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_STATED = re.compile(r"(?:\banswer\s*(?:is|:|=)|####)\s*:?\s*", re.IGNORECASE)
_SPACING = re.compile(r"\\[,;:! ]|\\(?:left|right|displaystyle|quad|qquad)(?![A-Za-z])|~")
_NUMBER = re.compile(r"([+-]?)(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?(?:/(\d+))?")
_FRAC = re.compile(r"([+-]?)\\[dt]?frac\{([+-]?\d+)\}\{([+-]?\d+)\}")
_UNICODE = str.maketrans({"−": "-", "–": "-", "×": "*", "·": "*", "÷": "/", "\u00a0": " "})


def final_answer(text: str) -> str | list[str]:
    r"""What the answer submits: one string, or the list of several differing `\boxed{}` contents."""
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
        distinct = list(OrderedDict.fromkeys(boxes))
        return distinct[0] if len(distinct) == 1 else distinct
    stated = None
    for stated in _STATED.finditer(text):  # noqa: B007 (the last one is wanted)
        pass
    if stated:
        text = text[stated.end() :].split("\n", 1)[0]
    return normalise(text)


def normalise(text: str) -> str:
    """The string without dollar signs, LaTeX spacing, surrounding blanks and a closing full stop."""
    text = _SPACING.sub(" ", text.translate(_UNICODE))
    text = text.replace("$", "").replace("\\(", "").replace("\\)", "")
    text = text.replace("\\[", "").replace("\\]", "")
    return re.sub(r"\s+", " ", text).strip().strip("*").rstrip(".").strip()


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


def quick(answer: str, gold: str) -> tuple[bool, str] | None:
    """(correct, reason) where the exact path decides, else None: the worker must look."""
    submitted = final_answer(answer)
    if isinstance(submitted, str):
        if not submitted:
            return False, "empty answer"
        if submitted == gold or submitted.replace(" ", "") == gold.replace(" ", ""):
            return True, "same string"
        a, g = exact(submitted), exact(gold)
        if a is not None and g is not None:
            if a == g:
                return True, "equal numbers"
            whole = a.denominator == g.denominator == 1
            # Rounded decimals are for the worker; far apart, or two integers, needs no more look.
            if whole or abs(a - g) * 1000 > max(abs(a), abs(g)):
                return False, f"{submitted} is not {gold}"[:200]
    return None


def verify(answer: str, reference: Any) -> Verdict:
    """One verdict (module docstring: what is accepted). Raises UserError for an unusable reference.
    """
    start = time.perf_counter()
    found = quick(answer_span(answer), normalise(str(reference)))
    correct, reason = found or (None, "math worker not available")
    return Verdict(correct, reason, time.perf_counter() - start)


def doctor() -> list[tuple[str, bool, str, str]]:
    return []
