"""What a trainer needs from the lab: metrics and progress while it trains, a checkpoint to resume.

Usage:  Trainer(..., callbacks=[stage.callback(show=("reward", "think_on_rate"))])
        trainer.train(resume_from_checkpoint=lab.latest_checkpoint(stage.checkpoints))
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from katlab.lab.runs import StageRun

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "adapter_model.safetensors",
    "pytorch_model.bin",
)
COMPANIONS = ("optimizer.pt", "scheduler.pt")


def latest_checkpoint(folder: str | Path) -> str | None:
    """The newest complete `checkpoint-N` in a folder, or None.

    transformers writes checkpoints in place and resumes from damaged ones (a missing optimizer is
    replaced by a fresh one in silence), so a folder counts only with its trainer state readable
    and agreeing with its number, and with optimizer, scheduler, random state and weights whole.
    """
    numbered = [p for p in Path(folder).glob("checkpoint-*") if p.name[11:].isdecimal()]
    for path in sorted(numbered, key=lambda p: int(p.name[11:]), reverse=True):
        if _complete(path):
            return str(path)
    return None


def _complete(path: Path) -> bool:
    try:
        state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return (
        state["global_step"] == int(path.name[11:])
        and all(zipfile.is_zipfile(path / name) for name in COMPANIONS)  # torch.save makes zips
        and any(map(zipfile.is_zipfile, path.glob("rng_state*.pth")))
        and any(_readable_weights(path / name) for name in WEIGHTS)
    )


def _readable_weights(path: Path) -> bool:
    """A safetensors file whose size is what its own header promises; other kinds must exist."""
    if not path.is_file():
        return False
    if path.suffix != ".safetensors":
        return path.stat().st_size > 0
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length < path.stat().st_size:
            return False
        header = json.loads(file.read(length))
    end = max(v["data_offsets"][1] for k, v in header.items() if k != "__metadata__")
    return path.stat().st_size == 8 + length + end


def trainer_callback(
    stage: StageRun, what: str, show: tuple[str, ...], phase: str
) -> TrainerCallback:
    """The callback behind `StageRun.callback` (transformers is imported only here)."""
    from transformers import TrainerCallback

    class StageCallback(TrainerCallback):
        """Every logged dict becomes a line of metrics.jsonl; every step moves the progress."""

        def on_train_begin(self, args, state, control, **kwargs):
            stage.forget_after(state.global_step, phase)
            self.bar = stage.bar(state.max_steps, what, show, done=state.global_step)

        def on_step_end(self, args, state, control, **kwargs):
            self.bar.to(state.global_step)

        def on_log(self, args, state, control, logs=None, **kwargs):
            stage.log(step=state.global_step, phase=phase, **(logs or {}))

        def on_train_end(self, args, state, control, **kwargs):
            self.bar.close()

    return StageCallback()
