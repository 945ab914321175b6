"""What the planner expects of a step that was measured: `planned_*` and `*_error`.

An error is (measured - planned) / planned; None where the planner has no rule or the GPU no peak.
"""

import math
from typing import Any

from katlab import speed
from katlab.gpu_check.bench import Bench
from katlab.lab import StageRun
from katlab.scaling_plan import planner, steps
from katlab.sizes import peak

SCHEMES = {"full": planner.SCHEMES[0], "lora": planner.SCHEMES[4], "qlora": planner.SCHEMES[5]}


def seconds(
    bench: Bench, stage: StageRun, took: float, tokens: float, rows: int, **more: Any
) -> dict[str, Any]:
    """The planner's seconds for a step of `rows` rows and `tokens` tokens, and the error."""
    config, top = stage.config, peak(speed.device())
    step = top and steps.step_seconds(
        bench.shapes[1], SCHEMES[_kind(config)], top, round(tokens), round(tokens / rows),
        config.scaling_plan.mfu, passes=math.ceil(rows / _at_once(stage)),
        checkpointed=config.model.gradient_checkpointing, **more,
    )  # fmt: skip
    return {
        "planned_step_s": step and round(step, 3),
        "step_error": step and round(took / step - 1, 3),
    }


def memory(bench: Bench, stage: StageRun, found: dict, **more: Any) -> dict[str, Any]:
    """The planner's memory for a pass of a stage's longest rows, and the error."""
    config, shape, lora = stage.config, bench.shapes[1], stage.config.lora
    kind, checkpointed = _kind(config), config.model.gradient_checkpointing
    if kind == "full" and not checkpointed:
        return {"planned_gib": None, "memory_error": None}
    adapter = steps.adapters(shape, lora.r, lora.target_modules) if kind != "full" else 0
    tokens = _at_once(stage) * bench.sizes.length
    gib = steps.step_gib(shape, SCHEMES[kind], tokens, adapter, checkpointed=checkpointed, **more)
    return {
        "planned_gib": round(gib, 4),
        "memory_error": found["peak_gib"] and round(found["peak_gib"] / gib - 1, 3),
    }


def _kind(config) -> str:
    if not config.lora.enabled:
        return "full"
    return "qlora" if config.model.quantize == "4bit" else "lora"


def _at_once(stage: StageRun) -> int:
    return dict(stage.settings.trainer)["per_device_train_batch_size"]
