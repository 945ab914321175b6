"""The contract of a stage's work: `run(stage)` gives figures, once, however it is started.

Usage:  @lab.work
        def run(stage: lab.StageRun) -> dict[str, float]: ...
"""

import json
import shlex
from collections.abc import Callable
from functools import wraps

from katlab import UserError
from katlab.lab.profiles import section
from katlab.lab.runs import StageRun


def work(run: Callable[[StageRun], dict[str, float]]) -> Callable[[StageRun], dict[str, float]]:
    """Let `run` do its work only where it is not finished; its figures become the headline.

    Finished means that result.json holds figures under the stage's fingerprint: they are returned.
    Raises UserError where settings were changed by hand since the stage began, because neither the
    fingerprint nor the finished part of the work would know.
    """

    @wraps(run)
    def once(stage: StageRun) -> dict[str, float]:
        _refuse_changes(stage)
        if (figures := stage.result()) is not None:
            return figures
        return stage.conclude(run(stage))

    return once


def _refuse_changes(stage: StageRun) -> None:
    now, begun = stage.config.model_dump(), stage.begun
    sections = [name for name, values in begun.items() if isinstance(values, dict)]
    changed = [
        (name, key)
        for name in sections
        for key in now[name]
        if now[name][key] != begun[name].get(key)
    ]
    if changed:
        own = section(stage.name)
        told = ", ".join(
            f"{key if name == own else f'{name}.{key}'} {begun[name].get(key)} -> {now[name][key]}"
            for name, key in changed
        )
        options = " ".join(
            f"-o {shlex.quote(f'{name}.{key}={_literal(now[name][key])}')}" for name, key in changed
        )
        raise UserError(
            f"Settings changed in this notebook: {told}; "
            f"begin a variant with: katlab run --run NEW {options}"
        )


def _literal(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
