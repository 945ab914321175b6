"""What the check works on: random weights of a profile's shape, rows, and stages of a made-up run.

Nothing is fetched: the tokenizer is the nano student's, whose ids are among the model's, and the
rows are the nano world's, made longer. `tiny` shrinks the shape and every count, so that the same
code runs on a CPU in seconds.

    bench = Bench(folder, "real-0.5b");  bench.write();  stage = bench.stage("sft", "04_cold_start")
"""

import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from katlab import models, template
from katlab.cold_start.corpus import encode
from katlab.lab import StageRun, write_jsonl
from katlab.lab.stages import root
from katlab.scaling_plan import planner
from katlab.tasks.nano import world

TOKENIZER = "data_samples/nano/base"
SHRUNK = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 1024,
}
KEPT = ("config.json", "generation_config.json", "model.safetensors.index.json")
STUDENTS = ("01_layer_saturation", "03_mtp_distillation", "04_cold_start")


@dataclass(frozen=True)
class Sizes:
    """Steps of a training and of RL, tokens of a row at most, prompts, tokens of a reply."""

    steps: int = 8
    rl_steps: int = 3
    length: int = 512
    rows: int = 16  # of a variant's step, all of `length` tokens
    prompts: int = 256
    reply: int = 512


TINY = Sizes(steps=2, rl_steps=2, length=256, rows=2, prompts=4, reply=8)


@dataclass(frozen=True)
class Bench:
    """A folder with two models and the stages before those that are measured."""

    folder: Path
    profile: str
    tiny: bool = False

    def write(self) -> None:
        """Write the weights, parent and deeper student, and the finished stages upstream."""
        parent, student = self.shapes
        self._write(parent, self.folder / "parent")
        self._write(student, self.folder / "student")
        tagged = self.folder / "tagged"  # the same weights under a tokenizer with the tags
        shutil.copytree(
            self.folder / "student", tagged, copy_function=lambda a, b: Path(b).symlink_to(a)
        )
        tokenizer = models.tokenizer(tagged)
        template.add_tags(tokenizer)
        for path in tagged.iterdir():  # or the tokenizer would be written into the student's
            if path.name not in KEPT and path.suffix != ".safetensors":
                path.unlink()
        tokenizer.save_pretrained(tagged)
        for name in STUDENTS:
            stage = self._begin("base", name, {})
            made = "student" if name == STUDENTS[0] else "tagged"
            (stage.checkpoints / "student").symlink_to(self.folder / made)
            stage.finish()
        corpus = self._begin("base", "02_dual_regime_data", {})
        write_jsonl(corpus.dir / "corpus.jsonl", self.rows())
        corpus.finish()

    @property
    def sizes(self) -> Sizes:
        """How much is measured."""
        return TINY if self.tiny else Sizes()

    @property
    def shapes(self) -> tuple[dict, dict]:
        """Configurations of parent and deeper student."""
        parent, student = planner.architecture(self.profile)
        if not self.tiny:
            room = {"vocab_size": max(parent["vocab_size"], SHRUNK["vocab_size"])}  # for the tags
            return parent | room, student | room
        return parent | SHRUNK | {"num_hidden_layers": 2}, parent | SHRUNK | {
            "num_hidden_layers": 3
        }

    def stage(self, part: str, name: str, **values: Any) -> StageRun:
        """A stage of this part's own run, `section.key` written section__key; see `remove`."""
        stage = self._begin(part, name, {key.replace("__", "."): v for key, v in values.items()})
        for path in (self.folder / "runs" / "base").iterdir():
            if path.name < name:
                (stage.dir.parent / path.name).symlink_to(path)
        return stage

    def remove(self, part: str) -> None:
        """Delete what a part has written, weights above all."""
        shutil.rmtree(self.folder / "runs" / part, ignore_errors=True)

    def rows(self) -> list[dict]:
        """Answered rows: half directly, half with thoughts of a quarter to all of `length`."""
        shown = world.queries(256 if not self.tiny else 24, seed=0, split="stage_2")
        made = []
        for i, row in enumerate(shown):
            if i % 2:
                length = self.sizes.length // 4 * (1 + i // 2 % 4)
                made.append(self.row(row, length))
            else:
                made.append(_answered(row, "off", None))
        return made

    def row(self, row: dict, length: int) -> dict:
        """A query answered with a thought that makes it `length` tokens of the cold start."""
        tokenizer = _tokenizer(self.folder / "tagged")
        made = _answered(row, "on", "1")
        room = length - len(encode(tokenizer, made, None)["input_ids"])
        return made | {"thought": "1" + " 1" * max(0, room // self._each(tokenizer))}

    @staticmethod
    def _each(tokenizer) -> int:
        one, ten = (
            len(tokenizer(f"1{' 1' * n}", add_special_tokens=False)["input_ids"]) for n in (1, 11)
        )
        return max(1, (ten - one) // 10)

    def _begin(self, run: str, name: str, values: dict[str, Any]) -> StageRun:
        """A stage that fetches nothing, saves no checkpoint on the way and logs every step."""
        shared = {
            "model.student": str(self.folder / "parent"),
            "model.gguf_file": "",
            "model.teacher_off": models.PARENT,
            "model.teacher_on": models.PARENT,
            "model.queries": "nano",
            "mtp_distillation.held_out": 1,
            "mtp_distillation.max_length": 2 * self.sizes.length,
            "cold_start.max_length": 2 * self.sizes.length,
        }
        for section in ("mtp_distillation", "cold_start", "step_srpo"):
            shared[f"{section}.steps"] = self.sizes.steps
            shared[f"{section}.trainer.save_strategy"] = "no"
            shared[f"{section}.trainer.logging_steps"] = 1
        del shared["step_srpo.trainer.logging_steps"]  # 1 of itself
        return StageRun.create(
            self.folder / "runs", run, name, profile=self.profile, overrides=shared | values
        )

    def _write(self, shape: dict, folder: Path) -> None:
        tokenizer = models.tokenizer(root() / TOKENIZER)
        rest = {k: v for k, v in shape.items() if k not in ("model_type", "dtype", "layer_types")}
        rest |= {
            "max_position_embeddings": 4096,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": None,
        }
        made = AutoConfig.for_model(shape["model_type"], **rest)
        torch.manual_seed(0)
        with torch.device(models.device()):
            model = AutoModelForCausalLM.from_config(made)
        models.save(model, tokenizer, folder, self._begin("base", STUDENTS[0], {}).config.model)


@cache
def _tokenizer(folder: Path):
    return models.tokenizer(folder)


def _answered(row: dict, mode: str, thought: str | None) -> dict:
    return row | {
        "mode": mode,
        "thought": thought,
        "answer": row["direct"],
        "judge": world.rationale(row, mode),
    }
