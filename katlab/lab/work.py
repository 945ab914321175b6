"""The contract of a stage's work: `run(stage)` gives figures, once, however it is started.

Usage:  @lab.work
        def run(stage: lab.StageRun) -> dict[str, float]: ...
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING

from katlab import UserError
from katlab.lab import identity, profiles

if TYPE_CHECKING:
    from katlab.lab.runs import StageRun

INTERRUPTED = "Interrupted; run this cell again to go on from the last checkpoint."


def work(run: Callable[[StageRun], dict[str, float]]) -> Callable[[StageRun], dict[str, float]]:
    """Let `run` do its work only where it is not finished; its figures become the headline.

    Finished means that result.json holds figures under the stage's fingerprint: they are returned.
    Raises UserError where settings were changed by hand since the stage began, because neither the
    fingerprint nor the finished part of the work would know.
    """

    @wraps(run)
    def once(stage: StageRun) -> dict[str, float]:
        refuse_changes(stage)
        if (figures := stage.result()) is not None:
            return figures
        try:
            return stage.conclude(run(stage))
        except KeyboardInterrupt as stop:  # what a notebook shows of it
            stop._render_traceback_ = lambda: [INTERRUPTED]  # type: ignore[attr-defined]
            raise

    return once


def changes(stage: StageRun) -> dict[str, tuple[object, object]]:
    """Settings changed by hand since a stage was begun, by dotted key: (before, now)."""
    now, begun = profiles.flat(stage.config.model_dump()), profiles.flat(stage.begun)
    keys = dict.fromkeys([*begun, *now])
    return {key: (begun.get(key), now.get(key)) for key in keys if begun.get(key) != now.get(key)}


def refuse_changes(stage: StageRun) -> None:
    """UserError where settings were changed by hand; it names the variant to go on with."""
    changed = changes(stage)
    if changed:
        own = f"{profiles.section(stage.name)}."
        short = {key.removeprefix(own): values for key, values in changed.items()}
        told = ", ".join(f"{key} {was} -> {now}" for key, (was, now) in short.items())
        new = identity.name(stage.run, {key: now for key, (_, now) in changed.items()})
        given = "".join(f", {k}={now!r}" for k, (_, now) in short.items() if k.isidentifier())
        raise UserError(
            f"Settings changed in this notebook ({told}), and run '{stage.run}' keeps its own; "
            f'train anew in a variant with: stage = stage.variant("{new}"{given})'
        )
