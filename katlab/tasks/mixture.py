"""`model.queries` as a sum of sources with shares, and how many rows each then gives.

    mixture.sources("procedural:0.6 + hub:gsm8k:0.3 + mine.jsonl:0.1")
    mixture.apportion(10, [0.6, 0.3, 0.1])  # [6, 3, 1]

A source is `procedural` or `procedural:chain_sum,gcd`, `hub:MAP` (a shipped map's name or a path),
or a JSONL file of query rows; without shares all are equal. "nano" and a file alone are no sum.
"""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from katlab import UserError
from katlab.lab.stages import root

ENDLESS = 10**9  # rows, where there is no end of them
_SHARE = re.compile(r"(.+):(\d+(?:\.\d*)?|\.\d+)")


class Source(NamedTuple):
    """One summand: "procedural", "hub" or "file"; which tasks, map or path; its share of 1."""

    kind: str
    what: str
    share: float

    def __str__(self) -> str:
        return {"file": self.what}.get(self.kind) or ":".join(filter(None, self[:2]))


def sources(text: str) -> list[Source]:
    """The sources of a sum, [] for "nano" and for a query file; UserError for what is none."""
    alone = re.match(r"(?:procedural|hub)(?::|$)", text)
    if text == "nano" or not (" + " in text or alone) or (root() / text).is_file():
        return []
    if "+" in text.replace(" + ", ""):
        raise UserError(f"model.queries = {text}: write a blank on both sides of each +.")
    read = [_SHARE.fullmatch(part.strip()) for part in text.split(" + ")]
    names = [m[1] if m else part.strip() for m, part in zip(read, text.split(" + "), strict=True)]
    if any(read) and not all(read):
        raise UserError(f"model.queries = {text}: give a share to every source or to none.")
    shares = [float(m[2]) if m else 1.0 for m in read]
    if not all(shares):
        raise UserError(f"model.queries = {text}: a share is above 0; leave the source out.")
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise UserError(f"model.queries = {text}: {twice} stands there twice; add its shares.")
    return [
        Source(*_source(name), share / sum(shares))
        for name, share in zip(names, shares, strict=True)
    ]


def apportion(n: int, shares: Sequence[float]) -> list[int]:
    """`n` rows by shares, whole ones; the largest remainders are rounded up."""
    exact = [n * share / sum(shares) for share in shares]
    counts = [math.floor(value + 1e-9) for value in exact]
    by_rest = sorted(range(len(shares)), key=lambda i: counts[i] - exact[i])
    for i in by_rest[: n - sum(counts)]:
        counts[i] += 1
    return counts


def most(rooms: Sequence[int], shares: Sequence[float]) -> int:
    """The most rows that can be had by shares, where each source has `rooms` of them.

    As few fit as well: a share is never rounded up past a whole number that is not below it.
    """
    if not rooms or min(rooms) >= ENDLESS:
        return ENDLESS if rooms else 0
    fit = (room * sum(shares) / share for room, share in zip(rooms, shares, strict=True))
    return math.floor(min(fit) + 1e-9)


def _source(name: str) -> tuple[str, str]:
    kind, _, what = name.partition(":")
    if kind == "procedural" or (kind == "hub" and what):
        return kind, what
    if name.endswith(".jsonl"):
        return "file", name.removeprefix("files:")
    raise UserError(
        f"model.queries names '{name}', which is no source; write procedural, "
        "procedural:TASK,TASK, hub:MAP or a JSONL file, each with a share behind a colon."
    )
