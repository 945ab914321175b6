r"""Math: is the final answer equal to the reference, as a number, an expression, a set, or words?

Report section 4.2.2 (symbolic or numeric equivalence, 0/1). Three paths:
  1. exact, in this process, microseconds: integers, fractions, mixed numbers and decimals as exact
     rationals, and normalised strings that are identical;
  2. words alone ("Evelyn", "north and east") are compared as words, never as products of letters;
  3. everything else: `math-verify` in a worker process that is killed and restarted when an answer
     passes its deadline (`katlab.rewards.math_pool`), after bounds on length, digits, nesting,
     powers and factorials that no honest answer reaches.
Where the library says equal, an own check refuses only what it can prove unequal, and names the
proof; where it says unequal, ours accepts only what it can prove equal (`math_equal`).
Deviations: 1. an answer equals the reference as a whole: two numbers side by side ("3 4") are no
number, and text that a parser would drop ("4\sqrt(2)" read as 4) makes it wrong; 2. a list with an
ellipsis equals the same string only.

Accepts: the content of the last `\boxed{}` that is meant (several that differ are wrong, unless
the reference is a set), else what the last statement says ("the answer is", "Answer:", "答案是",
"####"; see `math_answer`), else the whole answer. Reference: a string such as "12", "\frac{1}{2}",
"x = 3", "(1, 2)", "Evelyn"; a finite number is taken with all its digits (1e-05 as 0.00001).
Usage: `verify("so the answer is 12.", "12")`
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from decimal import Decimal
from functools import lru_cache
from math import isfinite
from threading import Lock
from typing import Any

from katlab.rewards import math_pool
from katlab.rewards.math_answer import final_answer
from katlab.rewards.math_text import MAX_CHARS, MAX_DIGITS, exact, measured, normalise
from katlab.rewards.text import items
from katlab.rewards.verdict import MAX_ANSWER, Verdict, answer_span

DEADLINE = 2.0  # seconds of processor time of one answer in a worker
MAX_DEPTH, MAX_FRACTIONS = 24, 40
CACHE_SIZE = 50_000

# base^power as an exponent, with the power's digits; 10^5 and above is out of bounds.
_TOWER = re.compile(r"(?:\^|\*\*)\s*[{(]*\s*(\d+)\s*(?:\^|\*\*)\s*[{(]*\s*(\d+)")
_HUGE = re.compile(
    r"(?:\^|\*\*)\s*[{(]*\s*-?\d{6,}"  # an exponent, or a sum's upper limit
    r"|(?:\d{5,}|[)}!])\s*!"  # a factorial of five digits, or of anything in brackets
    r"|binom\s*\{\s*\d{5,}"
)
_ELLIPSIS = re.compile(r"\\(?:ldots|cdots|dots|dotsc|dotsb)(?![A-Za-z])|\.{3}|…")
# Two numerals with nothing but a blank between them, which the library would add or multiply.
_SIDE_BY_SIDE = re.compile(r"(?<!frac )(?<!binom )(?<![\d._^])\d+(?:\.\d+)? \.?\d")
MEANING = {  # the worker's states: the answer's own doing, or not
    **{"equal": True, "different": False, "timeout": False, "memory": False, "crash": False},
    **{"starved": None, "no_gold": None, "gone": None},
}
_WORKED = re.compile(r"\\boxed|####|\banswer\b|答案", re.IGNORECASE)  # a solution, not its answer
_cache: OrderedDict[tuple[str, str], tuple[bool | None, str]] = OrderedDict()
_lock = Lock()


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


def unreadable(text: str) -> str:
    """Why a string has no value, or "": a chain of different numbers ("y = 4 = 5"), or "3 4"."""
    if len({v for part in text.split("=") if (v := exact(part.strip())) is not None}) > 1:
        return "a chain of different numbers"
    bare = re.sub(r"\\text\s*\{[^{}]*\}", "", text)
    return "two numbers side by side" if _SIDE_BY_SIDE.search(bare) else ""


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
        # "2e-5" may be Euler's number less five: the worker reads it so.
        far = a.denominator == g.denominator == 1 or abs(a - g) * 1000 > max(abs(a), abs(g))
        if far and not re.search("[eE]", text + gold):
            return False, "a different number"
    if (g is not None and measured(text) == g) or (a is not None and measured(gold) == a):
        return True, "equal numbers, one with a unit"
    if fault := beyond_bounds(gold):
        return None, f"reference beyond bounds: {fault}"
    if fault := unreadable(gold):
        return None, f"the reference is {fault}"
    if fault := beyond_bounds(text) or unreadable(text):
        return False, fault
    if _ELLIPSIS.search(text) or _ELLIPSIS.search(gold):
        return False, "with an ellipsis, only the same string is equal"
    if (said := items(gold)) and (other := items(text)):
        return (True, "same words") if said == other else (False, "different words")
    return None


def _squeezed(text: str) -> str:
    """The string without blanks, but for those that part two words, digits, or list items."""
    text = _ELLIPSIS.sub("...", re.sub(r"\\([dt])frac", r"\\frac", text))
    return re.sub(r"(?<!\w)(?<!\d,) | (?!\w)|(?<=\d,) (?!\d{3}(?!\d))", "", text)


def verify_batch(pairs: list[tuple[str, Any]]) -> list[Verdict]:
    """One verdict per pair, in order; equal (reference, answer) pairs are looked at once."""
    verdicts: list[Verdict] = []
    hard: dict[tuple[str, str], list[int]] = {}
    for i, (answer, reference) in enumerate(pairs):
        start = time.perf_counter()
        gold, fault = _gold(reference) if isinstance(reference, str | int | float) else ("", "")
        submitted = final_answer(answer_span(answer)[:MAX_ANSWER])
        text = submitted if isinstance(submitted, str) else ", ".join(submitted)
        with _lock:
            found = _cache.get((gold, text))
        found = found or quick(submitted, gold)
        if not gold:
            found = None, fault or "the reference is empty, or neither a string nor a number"
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


@lru_cache(maxsize=4096, typed=True)
def _gold(reference: str | int | float) -> tuple[str, str]:
    """(normalised reference, "" or why it cannot be used)."""
    if isinstance(reference, float):
        if not isfinite(reference):
            return "", f"the reference is {reference}, not a finite number"
        reference = format(Decimal(repr(float(reference))), "f")
    try:
        text = str(reference)
    except ValueError:  # an integer beyond Python's own bound on digits
        return "", "reference beyond bounds: over 4300 digits"
    gold = final_answer(text) if _WORKED.search(text) else normalise(text)
    return (gold if isinstance(gold, str) else ", ".join(gold)), ""


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
