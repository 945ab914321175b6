"""What the planner expects of a step that was measured: `planned_*` and `*_error`.

An error is (measured - planned) / planned; None where the planner has no rule or the GPU no peak.
"""

import math
from typing import Any

from katlab import speed
from katlab.gpu_check.bench import Bench
from katlab.lab import StageRun
from katlab.scaling_plan import planner
from katlab.sizes import peak

SCHEMES = {"full": planner.SCHEMES[0], "lora": planner.SCHEMES[4], "qlora": planner.SCHEMES[5]}


def beside(bench: Bench, kind: str, stage: StageRun, found: dict) -> dict[str, Any]:
    """Both for a variant's step: rows of one length, in one pass, layers checkpointed."""
    shape, scheme, plan = bench.shapes[1], SCHEMES[kind], stage.config.scaling_plan
    lora, tokens = stage.config.lora, round(found["tokens_per_step"])
    adapter = planner.adapters(shape, lora.r, lora.target_modules) if kind != "full" else 0
    gib = planner.step_gib(shape, scheme, tokens, adapter)
    top = peak(speed.device())
    length = bench.sizes.length
    step = planner.step_seconds(shape, scheme, top, tokens, length, plan.mfu) if top else None
    return {
        "planned_step_s": step and round(step, 3),
        "step_error": step and round(found["step_s"] / step - 1, 3),
        "planned_gib": round(gib, 4),
        "memory_error": found["peak_gib"] and round(found["peak_gib"] / gib - 1, 3),
    }


def seconds(
    bench: Bench, stage: StageRun, took: float, tokens: float, rows: int = 0, **more: Any
) -> dict[str, Any]:
    """The planner's seconds for a stage's step, and the error."""
    config, shape = stage.config, dict(bench.shapes[1])
    rows = rows or stage.settings.batch_size
    shape["num_hidden_layers"] += more.pop("modules", 0)
    at_once = dict(stage.settings.trainer)["per_device_train_batch_size"]
    top = peak(speed.device())
    step = top and planner.step_seconds(
        shape, SCHEMES[_kind(config)], top, round(tokens), round(tokens / rows),
        config.scaling_plan.mfu, passes=math.ceil(rows / at_once),
        checkpointed=config.model.gradient_checkpointing, **more,
    )  # fmt: skip
    return {
        "planned_step_s": step and round(step, 3),
        "step_error": step and round(took / step - 1, 3),
    }


def _kind(config) -> str:
    if not config.lora.enabled:
        return "full"
    return "qlora" if config.model.quantize == "4bit" else "lora"


def memory(bench: Bench, stage: StageRun, found: dict, **more: Any) -> dict[str, Any]:
    """The planner's memory for a stage's longest pass, where it has a rule, and the error."""
    config, shape = stage.config, bench.shapes[1]
    kind, checkpointed = _kind(config), config.model.gradient_checkpointing
    if kind == "full" and not checkpointed:
        return {"planned_gib": None, "memory_error": None}
    tokens = dict(stage.settings.trainer)["per_device_train_batch_size"] * bench.sizes.length
    lora = config.lora
    adapter = planner.adapters(shape, lora.r, lora.target_modules) if kind != "full" else 0
    gib = planner.step_gib(shape, SCHEMES[kind], tokens, adapter, checkpointed=checkpointed, **more)
    return {
        "planned_gib": round(gib, 4),
        "memory_error": found["peak_gib"] and round(found["peak_gib"] / gib - 1, 3),
    }
