"""Agents with tools that are really executed (report section 6.3).

Deviations: (1) the agent's house (katlab.tasks.nano.house) stands in for a code base; its tools are
really executed, and each request is written from the state that the calls before it left behind;
(2) by default that state is all an agent remembers: the nano queries hold no tool results, so a
nano model that is shown earlier exchanges calls its tools wrongly.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from katlab.conversation.chat import Chat, Reply
from katlab.tasks.nano.house import DIALS, House

CHANGES = (1, 3, 1, 2)  # asked for at each step of a trajectory: easy, hard, easy, hard


@dataclass(frozen=True)
class Step:
    """One step of an agent: how many changes were asked for, its reply, the tool's result, and
    whether the dial came to stand where the request wanted it."""

    changes: int
    reply: Reply
    result: dict
    reached: bool


def agents(
    talk: Chat,
    n: int,
    *,
    seed: int = 0,
    memory: int = 0,
    on_step: Callable[[int], None] | None = None,
    **how,
) -> list[list[Step]]:
    """Run `n` agents over `CHANGES`: request, reply, tool executed, next request from its result.

    `memory` is how many earlier exchanges (request, call, tool result) stay in the prompt;
    `on_step(replies so far)` is called after each step; `how` goes to `Chat.replies`.
    """
    rng = random.Random(seed)
    dials = [rng.choice(DIALS) for _ in range(n)]
    houses = [House({dial: rng.randint(2, 20) for dial in DIALS}) for _ in range(n)]
    histories: list[list[dict]] = [[] for _ in range(n)]
    steps: list[list[Step]] = [[] for _ in range(n)]
    for changes in CHANGES:
        asked = [h.request(rng, dial, changes) for h, dial in zip(houses, dials, strict=True)]
        conversations = []
        for i, (request, _) in enumerate(asked):
            kept = histories[i][-3 * memory :] if memory else []
            messages = [*kept, {"role": "user", "content": request}]
            conversations.append((messages, [houses[i].tool(dials[i])]))
        for i, said in enumerate(talk.replies(conversations, seed=seed, **how)):
            answer = said.answer if said.problem is None else ""
            result = houses[i].execute(answer)
            reached = result == {dials[i]: asked[i][1]}
            steps[i].append(Step(changes, said, result, reached))
            histories[i] += [
                said.messages[-1],
                {"role": "assistant", "content": answer},
                {"role": "tool", "content": json.dumps(result)},
            ]
        if on_step is not None:
            on_step(n * len(steps[0]))
    return steps


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
