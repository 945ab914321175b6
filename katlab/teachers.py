"""Who answers chat requests: a local model here, an endpoint or a test's stand-in elsewhere.

Teachers, taggers and critics of the stages are all asked through `Responder.respond`.

    teacher = LocalResponder(Path("data_samples/nano/teacher_off"))
    [[answer]] = teacher.respond([row])
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from katlab import UserError, models
from katlab.generation import local
from katlab.lab import StageRun
from katlab.rewards import grade

EQUATION = re.compile(r"(-?\d+)([+-]\d+)=(-?\d+)")


class Responder(Protocol):
    """Anything that answers chat requests: a local model, an endpoint, a test's stand-in."""

    name: str

    def respond(
        self, requests: list[dict], n: int = 1, temperature: float = 0.0, seed: int = 0
    ) -> list[list[str]]:
        """`n` replies for each request, a row with `messages` and `tools`."""


@dataclass
class LocalResponder:
    """A Responder over `from_pretrained` weights; the tokenizer's chat template frames requests.

    With a stage, every call of `respond` shows its progress there.
    """

    folder: Path
    max_new_tokens: int = 160
    stage: StageRun | None = None

    def __post_init__(self):
        self.folder = Path(models.locate(str(self.folder)))
        if not (self.folder / "config.json").is_file():
            raise UserError(
                f"there is no model in {self.folder}; rebuild it with `katlab nano build`"
            )
        self.name = self.folder.name
        self.tokenizer = AutoTokenizer.from_pretrained(self.folder)
        self.model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32)

    def respond(self, requests, n=1, temperature=0.0, seed=0) -> list[list[str]]:
        prompts = [
            self.tokenizer.apply_chat_template(
                row["messages"], tools=row["tools"], tokenize=False, add_generation_prompt=True
            )
            for row in requests
            for _ in range(n)
        ]
        bar = self.stage.bar(len(prompts), f"{self.name} replies") if self.stage else None
        replies = local.sample(
            self.model,
            self.tokenizer,
            prompts,
            max_new_tokens=self.max_new_tokens,
            temperature=temperature,
            seed=seed,
            batch_size=self.stage.config.model.sample_batch if self.stage else 256,
            on_batch=(lambda done, _: bar.to(done)) if bar else None,
        )
        if bar:
            bar.close()
        texts = [t.strip() for t in self.tokenizer.batch_decode(replies, skip_special_tokens=True)]
        return [texts[i : i + n] for i in range(0, len(texts), n)]


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


def think_off(rows: list[dict], responder: Responder, samples: int, seed: int) -> list[dict]:
    """Generate `samples` answers a query, reject wrong ones, keep the one most often given."""
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


def think_on(
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
        wrong = [
            m[0] for m in EQUATION.finditer(thought or "") if int(m[1]) + int(m[2]) != int(m[3])
        ]
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
    """Verdicts of several replies a row; unscorable counts as not verified."""
    asked = [
        (row["verifier"], text, row["reference"])
        for row, texts in zip(rows, replies, strict=True)
        for text in texts
    ]
    verdicts = iter([verdict.correct is True for verdict in grade(asked)])
    return [[next(verdicts) for _ in texts] for texts in replies]
