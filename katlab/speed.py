"""How fast a stage was, in speed.jsonl of its folder: tokens per second and MFU.

One row per training or piece of sampling of one process: part ("training", "sampling"), name,
device, tokens, seconds; of a training also flops and peak (FLOP/s of all its GPUs, None on a CPU
and on a GPU that `sizes.peak` does not know). MFU is flops / (seconds x peak).

FLOPs are what the model needs, not what is computed twice for want of memory: (1) a training takes
2 + s times a forward pass, s the share of the weights that get a gradient (3 in full, about 2 with
LoRA); (2) teachers that read along take one each; (3) MTP modules are left out, and the head is
counted for every token. The first step of 03 to 05, which warms up, is in no row if there are more.

    speed.of(stage.dir)  # {"training": {...}, "sampling": {"replies": {...}}}
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, TrainerCallback

from katlab import sizes
from katlab.lab import StageRun, read_jsonl

FILE = "speed.jsonl"


def now() -> float:
    """Seconds of perf_counter, with all that the GPU was given done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def device() -> str:
    """The GPU's name, or CPU."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def note(folder: Path, part: str, name: str, tokens: int, seconds: float, **more: Any) -> None:
    """Append a row to the speed.jsonl of a folder."""
    row = {"part": part, "name": name, "device": device(), "tokens": tokens}
    row |= {"seconds": round(seconds, 3), **more}
    with (folder / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def trained(
    stage: StageRun,
    name: str,
    model: PreTrainedModel,
    lengths: Sequence[int],
    seconds: float,
    read: float = 0.0,
) -> None:
    """Note a training on rows of so many tokens; `read` are the FLOPs of teachers beside it."""
    if not stage.writes:
        return
    forward = forward_flops(model.config.to_dict(), lengths)
    peak = sizes.peak(device())
    note(
        stage.dir,
        "training",
        name,
        sum(lengths),
        seconds,
        flops=None if forward is None else forward * (2 + trained_share(model)) + read,
        peak=peak and peak * int(os.environ.get("WORLD_SIZE", "1")),
    )


def trained_share(model: PreTrainedModel) -> float:
    """The share of a model's weights that get a gradient, MTP modules left out."""
    free = sum(
        p.numel()
        for name, p in model.named_parameters()
        if p.requires_grad and not name.startswith("mtp.")
    )
    return min(1.0, free / sizes.parameters(model.config.to_dict())["total"])


def forward_flops(config: Mapping, lengths: Sequence[int]) -> float | None:
    """FLOPs of reading rows of so many tokens each; None for a kind that is not counted."""
    if config.get("model_type") not in sizes.KINDS:
        return None
    return float(sum(n * sizes.flops_per_token(config, n) for n in lengths))


class Timed(TrainerCallback):
    """Notes a training when its last step ends: `rows` lie in the order in which it reads them.

    Of the columns only the lengths are read: input_ids; teacher_ids and reader, if there are any,
    for `readers`, the models that read along. `batch_size` rows make a step.
    """

    def __init__(
        self,
        stage: StageRun,
        name: str,
        rows: Sequence[Mapping],
        batch_size: int,
        readers: Sequence[PreTrainedModel] = (),
    ):
        self.stage, self.name, self.rows, self.size = stage, name, rows, batch_size
        self.readers = readers

    def on_train_begin(self, args, state, control, **kwargs):
        self.first, self.begun = state.global_step, now()
        self.warm = False

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == state.max_steps:
            done = self.rows[self.first * self.size : state.global_step * self.size]
            lengths = [len(row["input_ids"]) for row in done]
            trained(self.stage, self.name, model, lengths, now() - self.begun, self._read(done))
        elif not self.warm:
            self.first, self.begun, self.warm = state.global_step, now(), True

    def _read(self, rows: Sequence[Mapping]) -> float:
        read = 0.0
        for place, reader in enumerate(self.readers):
            lengths = [len(r["teacher_ids"]) for r in rows if r.get("reader") == place]
            read += forward_flops(reader.config.to_dict(), lengths) or 0.0
        return read


def of(folder: Path) -> dict[str, Any]:
    """What a stage's rows come to: {"device", "training": total or None, "sampling": by name}.

    A total has tokens, seconds, tokens_per_s and, of trainings, mfu (None where it is not known).
    """
    path = Path(folder) / FILE
    rows = read_jsonl(path) if path.is_file() else []
    drawn = [row for row in rows if row["part"] == "sampling"]
    names = dict.fromkeys(row["name"] for row in drawn)
    return {
        "device": ", ".join(dict.fromkeys(row["device"] for row in rows)) or None,
        "training": total([row for row in rows if row["part"] == "training"]),
        "sampling": {name: total([r for r in drawn if r["name"] == name]) for name in names},
    }


def total(rows: Sequence[Mapping]) -> dict[str, Any] | None:
    """Rows of one part together; None if there are none."""
    seconds = sum(row["seconds"] for row in rows)
    if not seconds:
        return None
    tokens = sum(row["tokens"] for row in rows)
    made = {"tokens": tokens, "seconds": round(seconds, 3), "tokens_per_s": round(tokens / seconds)}
    if "flops" in rows[0]:
        known = all(row["flops"] and row["peak"] for row in rows)
        could = sum(row["seconds"] * row["peak"] for row in rows) if known else 0.0
        made["mfu"] = round(sum(row["flops"] for row in rows) / could, 4) if known else None
    return made
