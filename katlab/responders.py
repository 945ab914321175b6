"""Who answers chat requests: a local model here, an endpoint or a test's stand-in elsewhere.

Teachers, taggers and critics of the stages are all asked through `Responder.respond`.

    teacher = LocalResponder(Path("data_samples/nano/teacher_off"))
    [[answer]] = teacher.respond([row])
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from katlab import UserError, models, sampling
from katlab.lab.runs import StageRun


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
        replies = sampling.sample(
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
