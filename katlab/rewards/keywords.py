"""General answers: keyword overlap and exact instruction checks.

Report section 4.2.2 ("keyword overlap"). A check is on when its key stands in the reference, and
an answer is correct when every check holds.

Accepts: answer, free text. Reference, a dict of any of
  all, any, none   keywords that must all / at least one / never appear (whole words, any case; an
                   occurrence straight after "not", "no", "never", "n't" does not count for all/any)
  overlap          {"keywords": [...], "min": 0.5}: at least this share of the keywords appears
  contains         exact strings, case and punctuation as given
  starts, ends     exact string at the edge of the answer
  count            {"text": n} or {"text": [least, most]}: exact occurrences, not overlapping
  words, lines, sentences   n or [least, most]
  json             true (the answer parses), or {key: value, ...} that the parsed object must hold
Usage: `verify("It is in cup C.", {"all": ["cup C"], "none": ["cup A", "cup B"]})`
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from katlab import UserError
from katlab.rewards.tool_call import same
from katlab.rewards.verdict import MAX_ANSWER, Verdict, answer_span

CHECKS = "all any none overlap contains starts ends count words lines sentences json".split()
_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)\n?```", re.DOTALL)


@lru_cache(maxsize=4096)
def _pattern(keyword: str) -> re.Pattern[str]:
    words = r"\s+".join(map(re.escape, keyword.split()))
    negation = r"(?P<negated>(?:\b(?:not|no|never)|n't)\s+(?:in\s+|the\s+|a\s+)?)?"
    return re.compile(rf"{negation}(?<!\w){words}(?!\w)", re.IGNORECASE)


def holds(keyword: str, text: str) -> bool:
    """Whether the keyword stands in the text as whole words and is not negated there."""
    return any(not match["negated"] for match in _pattern(keyword).finditer(text))


def _within(n: int, wanted: int | list[int]) -> bool:
    least, most = wanted if isinstance(wanted, list | tuple) else (wanted, wanted)
    return least <= n <= most


def _json_holds(text: str, wanted: bool | dict[str, Any]) -> bool:
    fenced = _FENCE.fullmatch(text)
    try:
        value = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return False
    if isinstance(wanted, bool):
        return True
    return isinstance(value, dict) and all(
        key in value and same(value[key], want, {}) for key, want in wanted.items()
    )


def _failed(text: str, ref: dict[str, Any]) -> str | None:
    """The first check that the text fails, in words; None when all hold."""
    for key in ref.get("all", ()):
        if not holds(key, text):
            return f"lacks {key!r}"
    if "any" in ref and not any(holds(key, text) for key in ref["any"]):
        return "holds none of the keywords"
    for key in ref.get("none", ()):
        if _pattern(key).search(text):
            return f"holds {key!r}"
    if "overlap" in ref:
        keys = ref["overlap"]["keywords"]
        share = sum(holds(key, text) for key in keys) / len(keys)
        if share < ref["overlap"].get("min", 0.5):
            return f"keyword overlap {share:.2f}"
    for part in ref.get("contains", ()):
        if part not in text:
            return f"does not contain {part!r}"
    if not text.startswith(ref.get("starts", "")) or not text.endswith(ref.get("ends", "")):
        return "starts or ends otherwise"
    for part, wanted in ref.get("count", {}).items():
        if not _within(text.count(part), wanted):
            return f"holds {part!r} {text.count(part)} times"
    sizes = {
        "words": len(text.split()),
        "lines": len(text.splitlines()),
        "sentences": len(re.findall(r"[.!?]+(?=\s|$)", text)),
    }
    for unit, n in sizes.items():
        if unit in ref and not _within(n, ref[unit]):
            return f"has {n} {unit}"
    if ref.get("json") is not None and not _json_holds(text, ref["json"]):
        return "is not the JSON asked for"
    return None


def verify(answer: str, reference: dict[str, Any]) -> Verdict:
    """Correct when every check in the reference holds (module docstring: the checks).

    Raises UserError for an unknown or missing check.
    """
    if not isinstance(reference, dict) or not reference:
        raise UserError("A keywords reference needs a check: give {'all': ['keyword']}.")
    if unknown := set(reference) - set(CHECKS):
        raise UserError(f"Unknown check {min(unknown)!r}: use {', '.join(CHECKS)}.")
    for key in ("all", "any", "none", "contains"):
        if not isinstance(reference.get(key, []), list | tuple):
            raise UserError(f"The check {key!r} needs a list: write {{{key!r}: ['keyword']}}.")
    text = answer_span(answer)
    if not text or len(text) > MAX_ANSWER:
        return Verdict(False, "answer too long" if text else "empty answer")
    fault = _failed(text, reference)
    return Verdict(fault is None, fault or "all checks hold")
