"""Shared by the tests of trainers: nano's base as a student, finished stages, corpora, launches."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from katlab import models, template
from katlab.lab import StageRun, load_profile
from katlab.tasks.nano import world

BASE = Path(__file__).parents[1] / "data_samples" / "nano" / "base"


def student():
    """The base model with the tags added, as stage 03 hands it on."""
    model, tokenizer = models.load_from(BASE, load_profile("tiny").model)
    template.add_tags(tokenizer)
    torch.manual_seed(0)  # the new rows are drawn
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return model, tokenizer


def finished(root: Path, name: str, **overrides) -> StageRun:
    """A finished upstream stage whose student is the untrained one."""
    stage = StageRun.create(root, "r", name, profile="tiny", overrides=overrides)
    model, tokenizer = student()
    models.save(model, tokenizer, stage.checkpoints / "student", stage.config.model)
    stage.finish()
    return stage


def corpus_rows(n: int) -> list[dict]:
    rows = world.queries(n, seed=3, split="stage_2")
    modes = ["on", "off"] * n
    return [
        row
        | {"mode": mode, "judge": world.rationale(row, mode), "answer": row["direct"]}
        | {"thought": row["thought"] if mode == "on" else None}
        for row, mode in zip(rows, modes, strict=False)
    ]


def same(one: Path, other: Path) -> bool:
    from safetensors.torch import load_file

    a, b = (load_file(folder / "model.safetensors") for folder in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def interrupting(stage: StageRun, at: int) -> StageRun:
    """The stage with a callback that interrupts training after `at` steps."""
    from transformers import TrainerCallback

    class Interrupt(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == at:
                raise KeyboardInterrupt

    stage.callback = lambda *args, **kwargs: Interrupt()
    return stage


def torchrun(*command: object) -> None:
    """Run `python -m ...` or a script on two CPU ranks; fails with what they said."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*launcher, "--nproc_per_node", "2", *map(str, command)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
