"""Who answers chat requests, and what is asked of them: direct answers, thoughts, a critic.

Report section 3.2. Teachers, taggers and writers of rationales are all asked through
`Responder.respond`: a local model here, an endpoint or a test's stand-in elsewhere.

Deviations: (1) the thinker does not read the solver's draft, it is kept beside the thought and
tells how often thinking changed the answer; (2) the critic is a program: the verifier of the final
answer, and a check of every equation in the thought that can be read.

    teacher = teachers.load(stage, "off")
    [[answer]] = teacher.respond([row])
"""

from collections import Counter
from functools import cached_property
from typing import Protocol

from katlab import models
from katlab.generation import local
from katlab.lab import StageRun
from katlab.rewards import grade
from katlab.tasks.checks import false_equations


class Responder(Protocol):
    """Anything that answers chat requests: a local model, an endpoint, a test's stand-in."""

    name: str

    def respond(
        self, requests: list[dict], n: int = 1, temperature: float = 0.0, seed: int = 0
    ) -> list[list[str]]:
        """`n` replies for each request, a row with `messages` and `tools`."""


class LocalResponder:
    """The profile's teacher of a mode; its own chat template frames requests.

    The weights are loaded at the first request, as a student's are. Replies are kept in the stage's
    folder as they come.
    """

    def __init__(self, stage: StageRun, mode: str):
        self.stage, self.mode = stage, mode
        self.name = vars(stage.config.model)[f"teacher_{mode}"].rpartition("/")[2]

    @cached_property
    def loaded(self):
        """(model, tokenizer)."""
        return models.load_teacher(self.stage.config.model, self.mode)

    def respond(self, requests, n=1, temperature=0.0, seed=0) -> list[list[str]]:
        model, tokenizer = self.loaded
        prompts = [
            tokenizer.apply_chat_template(
                row["messages"], tools=row["tools"], tokenize=False, add_generation_prompt=True
            )
            for row in requests
            for _ in range(n)
        ]
        bar = self.stage.bar(len(prompts), f"{self.name} replies")
        replies = local.sample(
            model,
            tokenizer,
            prompts,
            max_new_tokens=self.stage.settings.max_new_tokens,
            temperature=temperature,
            seed=seed,
            batch_size=self.stage.config.model.sample_batch,
            journal=self.stage.journal("replies.jsonl"),
            on_batch=lambda done, _: bar.to(done),
        )
        bar.close()
        texts = tokenizer.batch_decode(replies, skip_special_tokens=True)
        # R1's template opens the thought in the prompt; the reply then only closes it.
        opened = [prompt.rstrip().endswith("<think>") for prompt in prompts]
        texts = [
            f"<think>\n{text.strip()}" if began else text.strip()
            for text, began in zip(texts, opened, strict=True)
        ]
        return [texts[i : i + n] for i in range(0, len(texts), n)]


def load(stage: StageRun, mode: str) -> Responder:
    """The teacher of a mode, "on" or "off", as the profile names it."""
    return LocalResponder(stage, mode)


def ask(row: dict, request: str) -> dict:
    """The query with a request about it (its tags, a rationale) appended to the last turn."""
    *history, last = row["messages"]
    asked = {"role": "user", "content": f"{last['content']}\n{request}"}
    return {"messages": [*history, asked], "tools": row["tools"]}


def split_thought(reply: str) -> tuple[str | None, str]:
    """A reasoning model's reply as (thought, answer); thought None where its tags are missing."""
    if "<think>" not in reply or "</think>" not in reply:
        return None, reply.strip()
    thought, _, answer = reply.partition("</think>")
    return thought.replace("<think>", "").strip(), answer.strip()


def direct(rows: list[dict], responder: Responder, samples: int, seed: int) -> list[dict]:
    """Generate `samples` answers per query, reject wrong ones, keep the one most often given."""
    replies = responder.respond(rows, n=samples, temperature=0.7, seed=seed)
    verdicts = _verify(rows, replies)
    kept = []
    for row, texts, right in zip(rows, replies, verdicts, strict=True):
        good = Counter(text for text, ok in zip(texts, right, strict=True) if ok)
        if good:
            answer = good.most_common(1)[0][0]
            rate = sum(right) / samples
            kept.append(row | _record("off", None, answer, responder.name) | {"pass_rate": rate})
    return kept


def with_thought(
    rows: list[dict], solver: Responder, thinker: Responder, rounds: int, seed: int
) -> list[dict]:
    """Solver drafts, thinker reasons, critic accepts or sends back, up to `rounds` times.

    Kept rows carry the draft, the number of rounds and whether thinking corrected the draft.
    """
    drafts = [reply for (reply,) in solver.respond(rows)]
    right = [ok for (ok,) in _verify(rows, [[draft] for draft in drafts])]
    kept: dict[int, dict] = {}
    waiting = list(range(len(rows)))
    for attempt in range(rounds):
        asked = [rows[i] for i in waiting]
        heat = 0.0 if attempt == 0 else 0.8  # a critic's refusal calls for another thought
        replies = [r for (r,) in thinker.respond(asked, temperature=heat, seed=seed + attempt)]
        reasons = criticize(asked, replies)
        for i, reply, reason in zip(waiting, replies, reasons, strict=True):
            if reason is None:
                thought, answer = split_thought(reply)
                kept[i] = rows[i] | _record("on", thought, answer, thinker.name)
                kept[i] |= {
                    "draft": drafts[i],
                    "rounds": attempt + 1,
                    "corrected": answer != drafts[i] and not right[i],
                }
        waiting = [i for i in waiting if i not in kept]
        if not waiting:
            break
    return [kept[i] for i in sorted(kept)]


def criticize(rows: list[dict], replies: list[str]) -> list[str | None]:
    """The critic: None accepts a reply, a sentence says why it is refused."""
    parts = [split_thought(reply) for reply in replies]
    verdicts = _verify(rows, [[answer] for _, answer in parts])
    reasons: list[str | None] = []
    for (thought, _), (ok,) in zip(parts, verdicts, strict=True):
        wrong = false_equations(thought or "")
        if thought is None:
            reasons.append("there is no thought")
        elif wrong:
            reasons.append(f"{wrong[0]} does not hold")
        else:
            reasons.append(None if ok else "the answer is not verified")
    return reasons


def _record(mode: str, thought: str | None, answer: str, teacher: str) -> dict:
    return {"mode": mode, "thought": thought, "answer": answer, "teacher": teacher}


def _verify(rows: list[dict], replies: list[list[str]]) -> list[list[bool]]:
    """Verdicts of several replies per row; unscorable counts as not verified."""
    asked = [
        (row["verifier"], text, row["reference"])
        for row, texts in zip(rows, replies, strict=True)
        for text in texts
    ]
    verdicts = iter([verdict.correct is True for verdict in grade(asked)])
    return [[next(verdicts) for _ in texts] for texts in replies]
