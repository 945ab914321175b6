"""What a verifier says, and the span of a completion that it is asked about.

Report Table 2 (the answer stands between `<answer>` and `</answer>`) and section 4.2.2.
Usage: `Verdict(True, "equal integers", 1e-5)`; `answer_span("<think>3</think><answer>4</answer>")`
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

MAX_ANSWER = 200_000  # characters; what is longer is wrong without being looked at


@dataclass(frozen=True)
class Verdict:
    """One graded answer: correct, wrong, or unscorable (`correct is None`), and why."""

    correct: bool | None
    reason: str
    seconds: float = 0.0
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """ "correct", "wrong" or "unscorable"."""
        return {True: "correct", False: "wrong", None: "unscorable"}[self.correct]


_TAG = re.compile(r"</?(?:judge|think|answer)>|<think_(?:on|off)>")


def answer_span(completion: str | None) -> str:
    """The text of the last `<answer>` block; the whole text when the template does not shape it.

    A block left open, a block with further template tags in it, and a completion that judged or
    thought but never answered, all give "": nothing there is an answer. Only tags in their place
    count; a tag that a sentence or a program names is content. Idempotent.
    """
    if not isinstance(completion, str):
        return ""
    placed = _placed(completion)
    if not placed:
        return completion.strip()
    openers = [tag for tag in placed if tag[0] == "<answer>"]
    if not openers and placed[-1][0] == "</answer>":  # "so it is <answer>12</answer>"
        openers = [tag for tag in _TAG.finditer(completion) if tag[0] == "<answer>"]
    if not openers:
        return ""
    rest = [tag for tag in placed if tag[0] == "</answer>" and tag.start() >= openers[-1].end()]
    end = rest[-1].start() if rest else completion.rfind("</answer>", openers[-1].end())
    content = completion[openers[-1].end() : max(end, 0)]
    return "" if _placed(content) else content.strip()


def _placed(text: str) -> list[re.Match[str]]:
    """The template's tags that stand where the template puts them.

    Tags with nothing but blanks between them are one group. The groups that begin and end the text
    are in place; if there is one, so are those that close one part and open the next, unquoted.
    """
    groups: list[list[re.Match[str]]] = []
    for tag in _TAG.finditer(text):
        if groups and not text[groups[-1][-1].end() : tag.start()].strip():
            groups[-1].append(tag)
        else:
            groups.append([tag])
    if not groups:
        return []
    begins = not text[: groups[0][0].start()].strip()
    ends = text[groups[-1][-1].end() :].strip() in ("", "<|im_end|>")
    placed = []
    for i, group in enumerate(groups):
        around = text[max(group[0].start() - 1, 0) : group[0].start()]
        around += text[group[-1].end() : group[-1].end() + 1]
        names = [tag[0] for tag in group]
        parts = names[0].startswith("</") and not names[-1].startswith("</")
        edge = (begins and i == 0) or (ends and i == len(groups) - 1)
        if edge or ((begins or ends) and parts and not set(around) & set("\"'`")):
            placed += group
    return placed
