"""What a trainer has from the lab: its arguments, metrics and progress, a checkpoint to resume.

Usage:  arguments = training.arguments(stage, SFTConfig, output_dir=folder, batch_size=32)
        trainer = SFTTrainer(..., args=arguments, callbacks=[stage.callback(show={"loss": "loss"})])
        training.train(trainer)
"""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from katlab import UserError
from katlab.lab import profiles
from katlab.lab.settings import did_you_mean
from katlab.lab.work import refuse_changes

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback, TrainingArguments
    from transformers.trainer_utils import TrainOutput

    from katlab.lab.runs import StageRun

    Config = TypeVar("Config", bound=TrainingArguments)

# Arguments that a [<stage>.trainer] table must not set, and what sets them.
SET_BY = {
    "output_dir": "the stage's folder",
    "seed": "--seed",
    "report_to": "-p report_to=NAME",
    "max_steps": "{section}.steps",
    "num_train_epochs": "{section}.steps",
    "gradient_accumulation_steps": "batch_size and per_device_train_batch_size",
}
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "adapter_model.safetensors",
    "pytorch_model.bin",
)
COMPANIONS = ("optimizer.pt", "scheduler.pt")


def arguments(
    stage: StageRun, config_class: type[Config], *, batch_size: int, **own: object
) -> Config:
    """A trainer's configuration: what all stages share, [<stage>.trainer], and the caller's `own`.

    `batch_size` counts rows (of RL: rollouts) per optimizer step over all ranks and accumulations.
    A rank takes per_device_train_batch_size of them at once (a key of the trainer's table; else its
    whole part), and the accumulation follows. `own` must hold output_dir. Raises UserError for an
    unknown or doubly set argument, a value that the configuration refuses, a batch that does not
    divide, and settings changed by hand: a finished checkpoint would be resumed under other ones.
    """
    import torch

    refuse_changes(stage)
    check_trackers(stage.report_to)
    section, model = profiles.section(stage.name), stage.config.model
    table = dict(vars(stage.settings).get("trainer", {}))
    known = [field.name for field in dataclasses.fields(config_class) if field.init]
    for key in table:
        if key not in known:
            raise UserError(f"There is no '{section}.trainer.{key}'; {did_you_mean(key, known)}")
        if key in SET_BY or key in own:
            origin = SET_BY.get(key, f"the stage, from [{section}]").format(section=section)
            raise UserError(f"Leave out {section}.trainer.{key}: it is set by {origin}.")
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    per_device = table.pop("per_device_train_batch_size", batch_size // ranks)
    if per_device < 1 or batch_size % (per_device * ranks):
        raise UserError(
            f"A batch of {batch_size} does not divide into {ranks} x {per_device} rows (ranks x "
            f"{section}.trainer.per_device_train_batch_size); change one of them."
        )
    shared = {
        "seed": stage.seed,
        "report_to": stage.report_to,
        "disable_tqdm": True,
        "max_steps": stage.settings.steps,
        "save_total_limit": 1,
        "gradient_checkpointing": model.gradient_checkpointing,
        "bf16": model.bf16,
        "use_cpu": not torch.accelerator.is_available(),
        "per_device_train_batch_size": per_device,
        "gradient_accumulation_steps": batch_size // (per_device * ranks),
    }
    try:
        made = config_class(**{**shared, **table, **own})
    except (ValueError, TypeError) as error:
        told = str(error).splitlines()[0].rstrip(".")
        raise UserError(
            f"The trainer refuses its arguments ({told}); correct [{section}]."
        ) from error
    if made.n_gpu > 1:  # DataParallel would split batches that are laid out; torchrun takes more
        made._n_gpu = 1
    return made


def check_trackers(report_to: str) -> None:
    """UserError for a tracker that transformers does not know or this environment lacks."""
    if report_to in ("none", "all"):
        return
    from transformers import integrations

    known = ["none", "all", *sorted(integrations.integration_utils.INTEGRATION_TO_CALLBACK)]
    if report_to not in known:
        raise UserError(
            f"There is no tracker '{report_to}' for report_to; {did_you_mean(report_to, known)}"
        )
    if report_to not in integrations.get_available_reporting_integrations():
        raise UserError(
            f"The package of tracker '{report_to}' is not installed; install it (pip install "
            f"{report_to}) or leave report_to out."
        )


def train(trainer: Trainer) -> TrainOutput:
    """Train from the newest complete checkpoint of the trainer's output_dir, or from the start."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)  # the stage's own callback shows the progress
    return trainer.train(resume_from_checkpoint=latest_checkpoint(trainer.args.output_dir))


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
    stage: StageRun, what: str, show: Mapping[str, str] | None, phase: str
) -> TrainerCallback:
    """The callback behind `StageRun.callback` (transformers is imported only here)."""
    from transformers import TrainerCallback

    class StageCallback(TrainerCallback):
        """Every logged dict becomes a line of metrics.jsonl; every step moves the progress."""

        def on_train_begin(self, args, state, control, **kwargs):
            stage.forget_after(state.global_step, phase)
            self.bar = stage.bar(state.max_steps, what, show, done=state.global_step)
            for row in stage.metrics():  # of the part that a kill or an interrupt cut off
                if row.get("phase") == phase:
                    self.bar.metrics(row, row["step"])

        def on_step_end(self, args, state, control, **kwargs):
            self.bar.to(state.global_step)

        def on_log(self, args, state, control, logs=None, **kwargs):
            stage.log(step=state.global_step, phase=phase, **(logs or {}))

        def on_train_end(self, args, state, control, **kwargs):
            self.bar.close()

    return StageCallback()
