"""Stage 07: talk to the model: judge, thought and answer apart, forced modes, agents with tools.

Report section 6. A mode is forced by program (a prefilled judge, which cannot be refused) or in the
words of the query ("Do not think."), which the model may or may not obey. What the report shows by
single examples (Figures 10-13) is measured over many queries in katlab.case_studies.

Deviations: (1) the agent's house (katlab.nano.house) stands in for a code base; its tools are
really executed, and each request is written from the state that the calls before it left behind;
(2) by default that state is all an agent remembers: the nano queries hold no tool results, so a
nano model that is shown earlier exchanges calls its tools wrongly.

    said = chat.reply(model, tokenizer, [{"role": "user", "content": "Compute 3+4."}], mode="off")
    said.judge, said.thought, said.answer
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from katlab import UserError, models, sampling, template
from katlab.evaluation import FORCED
from katlab.lab.runs import StageRun
from katlab.nano.house import DIALS, House

Model, Tokenizer = PreTrainedModel, PreTrainedTokenizerBase
CHANGES = (1, 6, 1, 4)  # asked for at each step of a trajectory: easy, hard, easy, hard


@dataclass(frozen=True)
class Reply:
    """One reply in its parts; a part that the model did not write is None.

    `tokens` counts judge, thought, answer and all (with tags and end token); `forced` says which
    mode was prefilled ("auto": none); `problem` is one of `template.PROBLEMS` or None.
    """

    messages: list[dict]
    forced: str
    mode: str | None
    problem: str | None
    judge: str
    thought: str | None
    answer: str | None
    tokens: dict[str, int] = field(default_factory=dict)


def reply(
    model: Model,
    tok: Tokenizer,
    messages: list[dict],
    mode: str = "auto",
    tools: list[dict] | None = None,
    **how,
) -> Reply:
    """One reply to a conversation that ends with a user or tool turn; `how` as in `replies`."""
    return replies(model, tok, [(messages, tools)], mode, **how)[0]


def replies(
    model: Model,
    tok: Tokenizer,
    conversations: list[tuple[list[dict], list[dict] | None]],
    mode: str = "auto",
    *,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[Reply]:
    """A reply to each (messages, tools); `mode` "on" or "off" prefills the judge and decision.

    Temperature 0 is greedy. Raises UserError for an unknown mode.
    """
    if mode not in ("auto", *template.MODES):
        raise UserError(f"There is no mode {mode!r}; use auto, on or off.")
    prefill = "" if mode == "auto" else template.judged(mode, FORCED[mode])
    generated = sampling.sample(
        model,
        tok,
        [template.prompt(tok, messages, tools) + prefill for messages, tools in conversations],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
    )
    head = tok(prefill, add_special_tokens=False)["input_ids"] if prefill else []
    tags = template.Tags.of(tok)
    return [
        _parts(tok, tags, messages, mode, [*head, *ids])
        for (messages, _), ids in zip(conversations, generated, strict=True)
    ]


def _parts(
    tok: Tokenizer, tags: template.Tags, messages: list[dict], forced: str, ids: list[int]
) -> Reply:
    parsed = template.parse(ids, tags)

    def text(span: tuple[int, int] | None) -> str | None:
        return None if span is None else tok.decode(ids[slice(*span)]).strip()

    tokens = {
        name: 0 if span is None else span[1] - span[0]
        for name, span in (
            ("judge", parsed.judge),
            ("thought", parsed.thought),
            ("answer", parsed.answer),
        )
    }
    judge = text(parsed.judge).removeprefix("<judge>").partition("</judge>")[0].strip()
    return Reply(
        messages=messages,
        forced=forced,
        mode=parsed.mode,
        problem=parsed.problem,
        judge=judge,
        thought=text(parsed.thought),
        answer=text(parsed.answer),
        tokens=tokens | {"all": parsed.length},
    )


@dataclass(frozen=True)
class Step:
    """One step of an agent: how many changes were asked for, its reply, the tool's result, and
    whether the dial came to stand where the request wanted it."""

    changes: int
    reply: Reply
    result: dict
    reached: bool


def agents(
    model: Model,
    tok: Tokenizer,
    n: int,
    *,
    seed: int = 0,
    memory: int = 0,
    on_step: Callable[[int], None] | None = None,
    **how,
) -> list[list[Step]]:
    """Run `n` agents over `CHANGES`: request, reply, tool executed, next request from its result.

    `memory` is how many earlier exchanges (request, call, tool result) stay in the prompt;
    `on_step(replies so far)` is called after each step; `how` goes to `replies`.
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
        for i, said in enumerate(replies(model, tok, conversations, seed=seed, **how)):
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


def load(stage: StageRun) -> tuple[Model, Tokenizer]:
    """The final student of the run and its tokenizer."""
    folder = stage.upstream("05_step_srpo") / "checkpoints" / "student"
    return models.load_from(folder, stage.config.model)
