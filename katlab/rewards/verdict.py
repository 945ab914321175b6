"""What a verifier says, and the span of a completion that it is asked about.

Report Table 2 (the answer stands between `<answer>` and `</answer>`) and section 4.2.2.
Usage: `Verdict(True, "equal integers", 1e-5)`; `answer_span("<think>3</think><answer>4</answer>")`
"""

from __future__ import annotations

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


TAGS = ("judge>", "/judge>", "think_on>", "think_off>", "think>", "/think>", "answer>", "/answer>")


def answer_span(completion: str | None) -> str:
    """The text of the last `<answer>` block; the whole text when it holds no tag of the template.

    A block left open, a block with further template tags in it, and a completion that judged or
    thought but never answered, all give "": nothing there is an answer. Idempotent.
    """
    if not isinstance(completion, str):
        return ""
    start = completion.rfind("<answer>")
    if start >= 0:
        end = completion.find("</answer>", start)
        completion = completion[start + len("<answer>") : end] if end >= 0 else ""
    return "" if any(f"<{tag}" in completion for tag in TAGS) else completion.strip()
