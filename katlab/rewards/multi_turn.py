"""Multi-turn items: the last turn, by the verifier of its kind, given the history.

Report section 4.1 lists multi-turn among its six categories and names no verifier for it.

Accepts: the completion of the last turn. Reference: {"kind": ..., "reference": ..., "history":
[messages before the turn]}. The history must end with a turn that asks (user or tool), else the
row is unscorable. A verifier file of your own that defines `verify(answer, reference, history)`
is given the history; the verifiers that ship see the answer and the reference alone, and for
`tool_call` the tools named in the history's first message where the reference has none.
Usage: `verify("14", {"kind": "math", "reference": "14", "history": [{"role": "user", ...}]})`
"""

from __future__ import annotations

import inspect
from typing import Any

from katlab import UserError
from katlab.rewards.verdict import Verdict, answer_span


def _inner(reference: Any) -> tuple[str, Any, list[dict[str, Any]]]:
    if not isinstance(reference, dict) or not {"kind", "reference"} <= set(reference):
        raise UserError("A multi_turn reference needs kind and reference: add them.")
    history = reference.get("history", [])
    if reference["kind"] == "multi_turn":
        raise UserError("A multi_turn reference cannot hold another: name its last turn's kind.")
    if not isinstance(history, list) or not all(isinstance(turn, dict) for turn in history):
        raise UserError("The history must be a list of messages: correct it.")
    if history and history[-1].get("role") not in ("user", "tool"):
        raise UserError("The history must end with a user or tool turn: cut it there.")
    kind, inner = reference["kind"], reference["reference"]
    if not isinstance(kind, str):
        raise UserError("The kind of a multi_turn reference must be a name: correct it.")
    if kind == "tool_call" and isinstance(inner, dict) and history and history[0].get("tools"):
        inner = {"tools": history[0]["tools"], **inner}
    return kind, inner, history


def verify_batch(pairs: list[tuple[str, Any]]) -> list[Verdict]:
    """One verdict per pair, in order; turns of one kind are graded as one batch."""
    from katlab.rewards import grade, one, verifier

    verdicts: dict[int, Verdict] = {}
    rows, where = [], []
    for i, (answer, reference) in enumerate(pairs):
        try:
            kind, inner, history = _inner(reference)
            module = verifier(kind)
            takes_history = len(inspect.signature(module.verify).parameters) > 2
        except (UserError, TypeError, ValueError) as error:  # a verify without a signature
            verdicts[i] = Verdict(None, str(error))
            continue
        if takes_history:
            verdicts[i] = one(module, answer_span(answer), inner, history)
        else:
            rows.append((kind, answer, inner))
            where.append(i)
    verdicts.update(zip(where, grade(rows), strict=True))
    return [verdicts[i] for i in range(len(pairs))]


def verify(answer: str, reference: dict[str, Any]) -> Verdict:
    """The last turn's verdict. Raises UserError for an unusable reference."""
    _inner(reference)
    return verify_batch([(answer, reference)])[0]
