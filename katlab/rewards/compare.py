"""Whether what a sandbox said is what a test wants; everything here is untrusted but the wants.

Records are the tagged plain JSON of `sandbox/inside.py`. No table is built from untrusted keys
(colliding ones would cost quadratic time), and recursion follows the expected value's depth.
Usage: `holds([1, 2], Want("json", [1, 2]))`
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Want:
    """What one call or run must give: op is json, ==, !=, true, false, near, or text."""

    op: str
    value: Any = None
    within: float = 0.0


def holds(got: Any, want: Want) -> bool:
    """Whether a parsed record is what a test wants. `got` is the sandbox's tagged plain JSON."""
    if want.op == "text":
        return isinstance(got, str) and _lines(got) == _lines(want.value)
    if want.op in ("true", "false"):
        empty = got in (None, False, 0, "", []) or (isinstance(got, dict) and not any(got.values()))
        return empty == (want.op == "false")
    if want.op == "near":
        number = isinstance(got, int | float)
        return number and abs(got - want.value) < max(want.within, 1e-300)
    equal = same(got, want.value, want.op == "json")
    if want.op == "is":
        return equal and type(got) is type(want.value)
    return equal != (want.op == "!=")


def _lines(text: str) -> list[str]:
    """Lines without trailing blanks, and without empty lines at the end; all must be equal."""
    return [line.rstrip() for line in text.rstrip().split("\n")]


def same(got: Any, want: Any, by_json: bool) -> bool:
    """Equality of tagged JSON with a Python value; no table is ever built from untrusted keys.

    By JSON: a tuple equals a list, true is not 1, 9.0 equals 9, a float may be off by 1e-9.
    Otherwise as Python's == has it.
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
        close = by_json and isinstance(want, float) and math.isclose(got, want, rel_tol=1e-9)
        return got == want or close
    if isinstance(want, list | tuple):
        items = body if tag == "~t" else got
        if not isinstance(items, list) or (not by_json and (tag == "~t") != (type(want) is tuple)):
            return False
        return len(items) == len(want) and all(map(same, items, want, [by_json] * len(want)))
    if isinstance(want, dict):
        if tag != "~d" or len(body) != len(want):
            return False
        left = dict(want)
        for pair in body:
            key, value = pair["~t"]
            key = str(key) if by_json and type(key) is int else scalar(key)
            if key not in left or not same(value, left.pop(key), by_json):
                return False
        return True
    if isinstance(want, set | frozenset):
        if tag != "~s" or len(body) != len(want):
            return False
        return {x for x in want if any(same(b, x, by_json) for b in body)} == want
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
