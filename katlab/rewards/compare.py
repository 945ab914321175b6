"""Whether what a sandbox said is what a test wants; everything here is untrusted but the wants.

Records are the tagged plain JSON of `sandbox/inside.py`. No table is built from untrusted keys
(colliding ones would cost quadratic time), and recursion follows the expected value's depth.

How far a number may be off. A reference may state a tolerance, absolute or relative, for all of
its numbers. Without one:
  - a value by JSON whose expected number is a float: 1e-9 relative, and 1e-9 where 0.0 is expected;
  - a value in an assert: not at all, as Python's == has it;
  - a printed number whose expected text has a point or an exponent: half of that text's last place
    or 1e-6 relative, but no more than 1e-6 (or 1e-9 relative), so that 0.3333333333 is 0.333333 and
    0.0 is not 0.0000001; integers, like all other words, are compared as text.
Blanks at a line's end and empty lines at the text's end say nothing, nor does how many blanks part
the numbers of a line of numbers.
Usage: `holds([1, 2], Want("json", [1, 2]))`
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

_PRINTED = re.compile(r"[+-]?(?:\d+(?:\.(\d*))?|\.(\d+))(?:[eE]([+-]?\d{1,4}))?")


@dataclass(frozen=True)
class Want:
    """What one call or run must give: op is json, either, ==, !=, is, true, false, near, text."""

    op: str
    value: Any = None
    within: float = 0.0


def holds(got: Any, want: Want) -> bool:
    """Whether a parsed record is what a test wants. `got` is the sandbox's tagged plain JSON."""
    if want.op == "text":
        return isinstance(got, str) and _same_text(got, want.value, want.within)
    if want.op in ("true", "false"):
        empty = got in (None, False, 0, "", []) or (isinstance(got, dict) and not any(got.values()))
        return empty == (want.op == "false")
    if want.op == "near":
        number = isinstance(got, int | float)
        return number and abs(got - want.value) < max(want.within, 1e-300)
    if want.op == "either":  # the value itself, or what the list of one holds
        return any(same(got, value, True, want.within) for value in (want.value, *want.value))
    equal = same(got, want.value, want.op == "json", want.within)
    if want.op == "is":
        return equal and type(got) is type(want.value)
    return equal != (want.op == "!=")


def _same_text(got: str, want: str, within: float) -> bool:
    lines, wanted = ([line.rstrip() for line in text.rstrip().split("\n")] for text in (got, want))
    return lines == wanted or (
        len(lines) == len(wanted)
        and all(_same_line(*pair, within) for pair in zip(lines, wanted, strict=True))
    )


def _same_line(got: str, want: str, within: float) -> bool:
    if got == want:
        return True
    words, wanted = got.split(), want.split()
    if len(words) != len(wanted) or got[:1].isspace() != want[:1].isspace():
        return False
    if not all(map(_PRINTED.fullmatch, wanted)) and _blanks(got) != _blanks(want):
        return False
    return all(_same_word(*pair, within) for pair in zip(words, wanted, strict=True))


def _blanks(line: str) -> list[str]:
    return re.split(r"\S+", line)


def _same_word(got: str, want: str, within: float) -> bool:
    if got == want:
        return True
    printed = _PRINTED.fullmatch(want)
    if not printed or not _PRINTED.fullmatch(got):
        return False
    decimals, bare_decimals, exponent = printed.groups()
    if not within and decimals is None and bare_decimals is None and exponent is None:
        return False
    off, size = abs(float(got) - float(want)), abs(float(want))
    if within:
        return off <= within * max(1.0, size)
    places = len(decimals or bare_decimals or "") - int(exponent or 0)
    last_place = 0.5000001 * 10.0**-places
    return off <= max(min(max(last_place, 1e-6 * size), 1e-6), 1e-9 * size)


def same(got: Any, want: Any, by_json: bool, within: float = 0.0) -> bool:
    """Equality of tagged JSON with a Python value; no table is ever built from untrusted keys.

    By JSON: a tuple equals a list, true is not 1, 9.0 equals 9, a float may be off by 1e-9.
    Otherwise as Python's == has it. `within`: how far any number may be off, if not at all.
    """
    tag: str
    body: Any
    ((tag, body),) = got.items() if isinstance(got, dict) else [("", None)]
    if tag in ("~i", "~f"):
        got = int(body, 16) if tag == "~i" else float(body)
    if isinstance(want, bool) or isinstance(got, bool):
        return got == want and (not by_json or type(got) is type(want))
    if isinstance(want, int | float):
        if not isinstance(got, int | float):
            return False
        if got == want or (by_json and got != got and want != want):  # or no number, as is right
            return True
        if within:
            return abs(got - want) <= within * max(1, abs(want))
        zero = 0.0 if want else 1e-9
        floats = by_json and isinstance(want, float)
        return floats and math.isclose(got, want, rel_tol=1e-9, abs_tol=zero)
    if isinstance(want, list | tuple):
        items = body if tag == "~t" else got
        if not isinstance(items, list) or (not by_json and (tag == "~t") != (type(want) is tuple)):
            return False
        return len(items) == len(want) and all(
            same(*pair, by_json, within) for pair in zip(items, want, strict=True)
        )
    if isinstance(want, dict):
        if tag != "~d" or len(body) != len(want):
            return False
        left = dict(want)
        for pair in body:
            key, value = pair["~t"]
            key = str(key) if by_json and type(key) is int else scalar(key)
            if key not in left or not same(value, left.pop(key), by_json, within):
                return False
        return True
    if isinstance(want, set | frozenset):
        if tag != "~s" or len(body) != len(want):
            return False
        return {x for x in want if any(same(b, x, by_json, within) for b in body)} == want
    if isinstance(want, bytes):
        return tag == "~b" and bytes.fromhex(body) == want
    if isinstance(want, complex):
        return tag == "~c" and complex(float(body[0]), float(body[1])) == want
    return type(got) is type(want) and got == want


def scalar(value: Any) -> Any:
    """A dict key as Python has it, from tagged JSON: plain values and tuples of them."""
    if isinstance(value, dict):
        ((tag, body),) = value.items()
        if tag == "~t":
            return tuple(map(scalar, body))
        return int(body, 16) if tag == "~i" else bytes.fromhex(body) if tag == "~b" else float(body)
    return value
