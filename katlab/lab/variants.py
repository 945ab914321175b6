"""Variants of a run: a fork with other settings or another seed, and sweeps of forks.

A fork takes over every stage whose work does not depend on the change (its fingerprint says so),
checkpoints as hard links, and leaves the rest to be run. A sweep forks once for each combination
of values and seeds, under names that say them, so that the same command goes on where it stopped.

Usage:  variants.fork("demo", "demo-omega-0.3", {"step_srpo.omega": 0.3})
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from katlab import UserError
from katlab.lab import fingerprint, identity, notebook, parameters, profiles, records, stages
from katlab.lab.identity import Identity

if TYPE_CHECKING:
    from pathlib import Path

    from katlab.lab.runs import StageRun

COMMA = re.compile(r",(?![^\[]*\])")  # between values, not inside a list


@dataclass(frozen=True)
class Part:
    """One stage of a fork: taken over, or to be run, and why."""

    stage: str
    taken: bool
    why: str


@dataclass(frozen=True)
class Fork:
    """What a fork is to be: its name, what sets it apart in words, and its identity."""

    run: str
    told: str
    identity: Identity


def plan(source: str, new: str, overrides: dict | None = None, seed: int | None = None) -> Fork:
    """Check a fork before anything is written.

    Raises UserError for a source that has not begun, for a mistake in a value, and for a run `new`
    that is there and is another one.
    """
    records.check_name(source)
    records.check_name(new)
    folder = stages.outputs() / new
    kept = identity.read(stages.outputs() / source)
    if kept is None:
        records.stage_folders(stages.outputs() / source)  # says which runs there are
        raise UserError(f"Run '{source}' has not begun; run: katlab run --run {source}")
    given: dict[str, Any] = {"overrides": overrides or {}}
    if seed is not None:
        records.check_seed(seed)
        given["seed"] = seed
    wanted = replace(kept.changed(given), forked_from=source)
    profiles.table(wanted.profile, wanted.overrides)
    there = identity.read(folder) if folder.is_dir() else None
    if there is not None and (there != wanted or new == source):
        raise UserError(f"There is a run '{new}' already, of other settings; choose another name.")
    differences = identity.differences(kept, wanted)
    told = ", ".join(f"{key} {was} -> {now}" for key, (was, now) in differences.items())
    return Fork(new, told, wanted)


def fork(
    source: str, new: str, overrides: dict | None = None, seed: int | None = None
) -> list[Part]:
    """Make run `new` of run `source`, or go on making it; what was taken and what is to be run.

    Raises UserError as `plan` does, and while another process works in `new`.
    """
    from katlab.lab import pipeline, report
    from katlab.lab.lock import run_lock

    wanted = plan(source, new, overrides, seed)
    run, origin = stages.outputs() / new, stages.outputs() / source
    was = identity.read(origin) or wanted.identity
    before, after = (_works(one, run.name) for one in (was, wanted.identity))
    parts = []
    with run_lock(run):
        identity.keep(run, wanted.identity)
        for stage in stages.discover():
            folder, work = origin / stage.name, after[stage.name]
            why = _to_run(stage, folder, before, after, wanted.told)
            if (run / stage.name / "run.json").is_file():
                parts.append(Part(stage.name, True, f"there already, {_state(run / stage.name)}"))
            elif why:
                parts.append(Part(stage.name, False, why))
            else:
                values = _values(stage.name, wanted.identity, new)
                pipeline.take(run / stage.name, folder, values, work)
                parts.append(Part(stage.name, True, f"taken from {source}"))
        report.index(run)
    return parts


def begin(stage: StageRun, new: str, settings: dict[str, Any]) -> StageRun:
    """See `StageRun.variant`."""
    from katlab.lab.lock import run_lock
    from katlab.lab.work import changes

    own = profiles.section(stage.name)
    sections = vars(stage.config)
    given = {
        key if key.partition(".")[0] in sections else f"{own}.{key}": value
        for key, value in settings.items()
    }
    by_hand = {key: now for key, (_, now) in changes(stage).items()}
    run = stages.outputs() / new
    for part in fork(stage.run, new, by_hand | given):
        if stage.shows and part.stage in (stage.name, *stages.named(stage.name).needs):
            print(f"{part.stage}: {part.why}")
    kept = identity.read(run) or Identity()
    values = _values(stage.name, kept, new) | {"report_to": stage.report_to}
    folder = run / stage.name
    upstream = notebook.upstream_fingerprints(folder)
    wanted = fingerprint.work(stage.name, values, upstream)
    for need in upstream:
        records.upstream(folder, need, values)
    with run_lock(run):
        notebook.prepare(folder, wanted)
    return notebook.shown(notebook.created(folder, values, wanted, upstream), stage.shows)


def combinations(
    source: str, swept: Mapping[str, Sequence[Any]], seeds: Sequence[int]
) -> list[Fork]:
    """The forks of a sweep, all checked: one for each combination of values and seeds."""
    chosen: list[int | None] = [*seeds] or [None]
    forks = []
    for values in itertools.product(*swept.values()):
        overrides = dict(zip(swept, values, strict=True))
        for seed in chosen:
            further = [] if seed is None else [f"seed-{seed}"]
            forks.append(plan(source, identity.name(source, overrides, *further), overrides, seed))
    doubled = [one.run for one in forks if [other.run for other in forks].count(one.run) > 1]
    if doubled:
        raise UserError(f"Two of the sweep's runs would be named '{doubled[0]}'; give each once.")
    return forks


def parse(text: str, default: object) -> list[object]:
    """The values of a sweep's option, as '0.2,0.35,0.5', typed by the profile's own value."""
    parts = [part.strip() for part in COMMA.split(text)]
    if not all(parts):
        raise UserError(f"'{text}' leaves a value out; give them as 0.2,0.35,0.5")
    return [parameters.literal(part, default) for part in parts]


def _works(run: Identity, name: str) -> dict[str, str]:
    """The fingerprints that a run's stages would have, as code and files are now."""
    made: dict[str, str] = {}
    for stage in stages.discover():
        upstream = {need: made.get(need, "") for need in stage.needs}
        made[stage.name] = fingerprint.work(stage.name, _values(stage.name, run, name), upstream)
    return made


def _values(stage: str, run: Identity, name: str) -> dict[str, Any]:
    defaults = {key: one.default for key, one in parameters.of(stage).items()}
    return defaults | run.values() | {"run": name}


def _to_run(
    stage: stages.Stage, folder: Path, before: dict[str, str], after: dict[str, str], told: str
) -> str:
    """Why a stage is not taken over, '' if it is."""
    if stage.always:
        return "to run: it reads other runs"
    if before[stage.name] != after[stage.name]:
        moved = [need for need in stage.needs if before[need] != after[need]]
        return f"to run: after {', '.join(n[:2] for n in moved)}" if moved else f"to run: {told}"
    if _state(folder) != "done":
        return f"to run: {_state(folder)} in {folder.parent.name}"
    if records.read(folder).get("fingerprint") != after[stage.name]:
        return f"to run: code or files changed since {folder.parent.name} made it"
    return ""


def _state(folder: Path) -> str:
    there = (folder / "run.json").is_file()
    return records.state(records.read(folder)) if there else "not run"
