"""Agents whose answers are really executed (report section 6.3).

Deviations: (1) what stands in for a code base is small: a repository of a few files
(`katlab.tasks.repository`), or the nano world's house (`katlab.tasks.nano.house`); each request is
written from the state that the answers before left behind; (2) by default that state is all an
agent remembers: no query here holds tool results, so a nano model that is shown earlier exchanges
calls its tools wrongly.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from katlab.conversation.chat import Chat, Reply


class Errand(Protocol):
    """Where one agent works; what it is asked in a few words by step, easy and hard by turns."""

    @property
    def steps(self) -> tuple[str, ...]: ...

    def task(self, step: int) -> tuple[str, list[dict]]:
        """The request of a step (from 0) and the tools that go with it."""

    def execute(self, step: int, answer: str) -> tuple[dict, bool]:
        """What an answer brings about, and whether that is what was asked for."""


@dataclass(frozen=True)
class Step:
    """One step of an agent: what was asked for in a few words, its reply, what the reply brought
    about, and whether that was asked for."""

    asks: str
    reply: Reply
    result: dict
    reached: bool


def agents(
    talk: Chat,
    errands: Sequence[Errand],
    *,
    seed: int = 0,
    memory: int = 0,
    on_step: Callable[[int], None] | None = None,
    **how,
) -> list[list[Step]]:
    """Run an agent through each errand: request, reply, executed, next request from the result.

    `memory` is how many earlier exchanges (request, answer, result) stay in the prompt;
    `on_step(replies so far)` is called after each step; `how` goes to `Chat.replies`.
    """
    histories: list[list[dict]] = [[] for _ in errands]
    walked: list[list[Step]] = [[] for _ in errands]
    for step, asks in enumerate(errands[0].steps):
        conversations = []
        for errand, history in zip(errands, histories, strict=True):
            request, tools = errand.task(step)
            kept = history[-3 * memory :] if memory else []
            conversations.append(([*kept, {"role": "user", "content": request}], tools))
        for i, said in enumerate(talk.replies(conversations, seed=seed, **how)):
            answer = (said.answer or "") if said.problem is None else ""
            result, reached = errands[i].execute(step, answer)
            walked[i].append(Step(asks, said, result, reached))
            histories[i] += [
                said.messages[-1],
                {"role": "assistant", "content": answer},
                {"role": "tool", "content": json.dumps(result)},
            ]
        if on_step is not None:
            on_step(len(errands) * (step + 1))
    return walked


def trajectory(steps: list[Step]) -> list[dict | Reply]:
    """An agent's steps as the turns of a transcript: request, reply, tool result."""
    return [
        turn
        for step in steps
        for turn in (
            step.reply.messages[-1],
            step.reply,
            {"role": "tool", "content": json.dumps(step.result)},
        )
    ]
