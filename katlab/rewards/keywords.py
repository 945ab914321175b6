"""General answers: keyword overlap and exact instruction checks.

Report section 4.2.2 ("keyword overlap"). A check is on when its key stands in the reference, and
an answer is correct when every check holds.

Accepts: answer, free text. Reference, a dict of any of
  all, any, none   keywords that must all / at least one / never appear (whole words, any case, in
                   Unicode's compatibility form; in scripts without blanks between words, such as
                   Chinese, anywhere; an occurrence straight after "not", "no", "never", "n't" or
                   its Chinese like does not count for all/any)
  overlap          {"keywords": [...], "min": 0.5}: at least this share of the keywords appears
  contains         exact strings, case and punctuation as given
  starts, ends     exact string at the edge of the answer
  count            {"text": n} or {"text": [least, most]}: exact occurrences, not overlapping
  words, lines, sentences   n or [least, most]
  json             true (the answer parses), or {key: value, ...} that the parsed object must hold
Exact strings are compared in composed form (NFC). A number among keywords is taken as its string.
Usage: `verify("It is in cup C.", {"all": ["cup C"], "none": ["cup A", "cup B"]})`
"""

from __future__ import annotations

import json
import re
from typing import Any

from katlab import UserError
from katlab.rewards.markdown import blocks
from katlab.rewards.text import canonical, folded, occurrences
from katlab.rewards.tool_call import same
from katlab.rewards.verdict import MAX_ANSWER, Verdict, answer_span

_SENTENCE = re.compile(r"(?<![.!?…])[.!?…]+(?=[\"'”’)\]]*(?:\s|$))|[。！？।]+")
SIZES = {
    "words": lambda text: len(text.split()),
    "lines": lambda text: len(text.splitlines()),
    "sentences": lambda text: len(_SENTENCE.findall(text)),
}
CHECKS = ["all", "any", "none", "overlap", "contains", "starts", "ends", "count", *SIZES, "json"]


def holds(keyword: str, text: str) -> bool:
    """Whether the keyword stands in the text as whole words and is not negated there."""
    return any(occurrences(keyword, folded(text)))


def _strings(value: Any, name: str) -> list[str]:
    if not isinstance(value, list | tuple):
        raise UserError(f"The check {name!r} needs a list: write {{{name!r}: ['keyword']}}.")
    value = [str(v) if isinstance(v, int | float) and not isinstance(v, bool) else v for v in value]
    if not all(isinstance(v, str) and v.strip() for v in value):
        raise UserError(f"The check {name!r} holds what is no text: correct its list.")
    return [canonical(v) for v in value]


def _range(value: Any, name: str) -> tuple[int, int]:
    least, most = value if isinstance(value, list | tuple) and len(value) == 2 else (value, value)
    if not all(isinstance(n, int) and not isinstance(n, bool) for n in (least, most)):
        raise UserError(f"The check {name!r} needs a number or [least, most]: correct it.")
    if least > most or most < 0:
        raise UserError(f"No answer holds {name!r} from {least} to {most}: correct it.")
    return least, most


def read(reference: Any) -> dict[str, Any]:
    """The checks of a reference in one form. Raises UserError for an unknown or unusable one."""
    if not isinstance(reference, dict) or not reference:
        raise UserError("A keywords reference needs a check: give {'all': ['keyword']}.")
    if unknown := set(reference) - set(CHECKS):
        raise UserError(f"Unknown check {min(map(str, unknown))!r}: use {', '.join(CHECKS)}.")
    ref = {key: value for key, value in reference.items() if value is not None}
    if not any(value not in ([], (), {}) or key == "json" for key, value in ref.items()):
        raise UserError("A keywords reference without a check holds for all: give a keyword.")
    for key in {"all", "any", "none", "contains"} & ref.keys():
        ref[key] = _strings(ref[key], key)
    for key in {"starts", "ends"} & ref.keys():
        ref[key] = _strings([ref[key]], key)[0]
    for key in SIZES.keys() & ref.keys():
        ref[key] = _range(ref[key], key)
    if "overlap" in ref:
        spec = ref["overlap"] if isinstance(ref["overlap"], dict) else {}
        keys, least = _strings(spec.get("keywords"), "overlap"), spec.get("min", 0.5)
        if not keys or not isinstance(least, int | float) or not least <= 1:
            raise UserError("The check 'overlap' needs keywords and a share: correct it.")
        ref["overlap"] = keys, least
    if not isinstance(ref.get("count", {}), dict) or not isinstance(
        ref.get("json", {}), bool | dict
    ):
        raise UserError("The checks count and json need an object: correct the reference.")
    counts = ref.get("count", {}).items()
    ref["count"] = {_strings([k], "count")[0]: _range(v, "count") for k, v in counts}
    return ref


def _json_holds(text: str, wanted: bool | dict[str, Any]) -> bool:
    fenced = blocks(text) if text.startswith(("```", "~~~")) else []
    try:
        value = json.loads(fenced[0][1] if len(fenced) == 1 else text)
    except (ValueError, RecursionError):
        return False
    if isinstance(wanted, bool):
        return True
    return isinstance(value, dict) and all(
        key in value and same(value[key], want, {}) for key, want in wanted.items()
    )


def _failed(text: str, ref: dict[str, Any]) -> str | None:
    """The first check that the text fails, in words; None when all hold."""
    lowered = folded(text)
    for key in ref.get("all", ()):
        if not any(occurrences(key, lowered)):
            return f"lacks {key!r}"
    if "any" in ref and not any(any(occurrences(key, lowered)) for key in ref["any"]):
        return "holds none of the keywords"
    for key in ref.get("none", ()):
        if occurrences(key, lowered):
            return f"holds {key!r}"
    if "overlap" in ref:
        keys, least = ref["overlap"]
        share = sum(any(occurrences(key, lowered)) for key in keys) / len(keys)
        if share < least:
            return f"keyword overlap {share:.2f}"
    for part in ref.get("contains", ()):
        if part not in text:
            return f"does not contain {part!r}"
    if not text.startswith(ref.get("starts", "")) or not text.endswith(ref.get("ends", "")):
        return "starts or ends otherwise"
    for part, (least, most) in ref["count"].items():
        if not least <= text.count(part) <= most:
            return f"holds {part!r} {text.count(part)} times"
    for unit, size in SIZES.items():
        n = size(text) if unit in ref else 0
        if unit in ref and not ref[unit][0] <= n <= ref[unit][1]:
            return f"has {n} {unit}"
    if "json" in ref and not _json_holds(text, ref["json"]):
        return "is not the JSON asked for"
    return None


def verify(answer: str, reference: dict[str, Any]) -> Verdict:
    """Correct when every check in the reference holds (module docstring: the checks).

    Raises UserError for an unknown, missing or unusable check.
    """
    checks = read(reference)
    text = canonical(answer_span(answer))
    if not text or len(text) > MAX_ANSWER:
        return Verdict(False, "answer too long" if text else "empty answer")
    fault = _failed(text, checks)
    return Verdict(fault is None, fault or "all checks hold")
