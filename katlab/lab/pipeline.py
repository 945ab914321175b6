"""Run stage notebooks in order: skip what is unchanged, continue what was cut off.

Where only the page changed (the notebook's code), the notebook is executed over the finished work;
where the work changed, the earlier attempt is set aside (`records.set_aside`) and done anew.

Usage:  pipeline.run(stages.discover(), {"profile": "nano", "run": "demo", "seed": 0})
"""

import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from katlab import UserError
from katlab.lab import (
    fingerprint,
    identity,
    notebook,
    parameters,
    records,
    report,
    stages,
    steps,
    training,
)
from katlab.lab.console import Console
from katlab.lab.lock import run_lock
from katlab.lab.rows import replace
from katlab.lab.stages import Stage

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
ORPHAN = 10.0  # seconds the kernel of a killed runner may take to notice


def select(begin: str = "", end: str = "", only: Sequence[str] = ()) -> list[Stage]:
    """All stages, or those from `begin` to `end` (both included), or just those named; in order."""
    every = stages.discover()
    if only:
        if begin or end:
            raise UserError("Give --only, or --from and --to, but not both.")
        chosen = {stages.find(word) for word in only}
        return [stage for stage in every if stage in chosen]
    first = every.index(stages.find(begin)) if begin else 0
    last = every.index(stages.find(end)) if end else len(every) - 1
    if last < first and every:
        raise UserError(f"--to {end} comes before --from {begin}; swap them.")
    return every[first : last + 1]


def arguments(chosen: Sequence[Stage], values: dict[str, object]) -> dict[str, dict]:
    """The full, checked parameters of each stage; UserError if no notebook knows a name.

    `values` are those named in a command; a run that has begun keeps the rest.
    """
    known = {stage.name: parameters.of(stage.name) for stage in chosen}
    for name in known:
        parameters.check_cell(stages.notebook(name))
    every = {name: p for own in known.values() for name, p in own.items()}
    who = chosen[0].name if len(chosen) == 1 else "these notebooks"
    parameters.check(values, every, who)
    filled = {}
    for name, own in known.items():
        given = parameters.check({k: v for k, v in values.items() if k in own}, own, name)
        filled[name] = {key: p.default for key, p in own.items()} | given
    run = next(iter(filled.values()))["run"]
    records.check_name(run)
    named = {key: values[key] for key in identity.KEYS if key in values}
    kept = identity.settle(stages.outputs() / run, named).values()
    return {name: own | kept for name, own in filled.items()}


def run(
    chosen: Sequence[Stage], values: dict[str, object], force: bool = False, quiet: bool = False
) -> Path:
    """Run stages into outputs/<run>/ and return the path of its index page.

    `quiet` prints errors (on stderr) and that path alone.

    Raises UserError for mistakes, engine.Failed if a stage fails, engine.Interrupted if stopped.
    """
    if not chosen:
        raise UserError(
            f"There are no stage notebooks in {stages.root() / 'notebooks'}; set KATLAB_ROOT to "
            "the checkout."
        )
    notebook.quiet()  # before a tracker's name brings in transformers
    filled = arguments(chosen, values)
    first = filled[chosen[0].name]
    training.check_trackers(first["report_to"])
    folder = stages.outputs() / first["run"]
    for stage in chosen:  # every mistake in a profile or override shows before anything runs
        fingerprint.work(stage.name, filled[stage.name], {})
    if not folder.is_dir():  # a mistyped run leaves no empty folder among the runs
        _require_upstream(folder / chosen[0].name, first)
    _environment()
    with run_lock(folder):
        kept = identity.settle(folder, {key: first[key] for key in identity.KEYS})
        identity.keep(folder, kept)
        console = Console(folder, [stage.name for stage in chosen], quiet)
        try:
            for stage in chosen:
                _stage(
                    folder / stage.name, filled[stage.name], force or stage.always, force, console
                )
        finally:
            index = report.index(folder)
        console.end(index)
    return index


def _stage(folder: Path, values: dict, execute: bool, force: bool, console: Console) -> None:
    """Bring one stage up to date; `execute` its notebook in any case, or `force` its work anew."""
    step = steps.decide(folder, values, execute, force)
    if step.act == steps.UNCHANGED:
        console.unchanged(folder.name)
        return
    _require_upstream(folder, values)
    _await_orphan(folder)
    step = steps.decide(folder, values, execute, force)  # as the orphan has left it
    if step.hit:
        kept = take(folder, step.hit, values, step.work)
        told = f"same as in {source(step.hit, folder)}, taken from there"
        console.unchanged(folder.name, told, kept)
        if steps.done(folder, step.work, step.page):
            return
    elif kept := notebook.prepare(folder, step.work, anew=force):
        console.kept(kept)
    finished = folder.with_name(f".{folder.name}.finished")
    _keep(folder, finished, console)  # one that a kill left behind
    if steps.done(folder, step.work):
        os.rename(_copied(folder, folder), finished)
    stage = notebook.created(folder, values, step.work, step.upstream)
    stage.write("run.json", records.read(folder) | {"page": ""})
    from katlab.lab import engine

    begun = time.monotonic()
    try:
        with console.watching(folder):
            engine.execute(stages.notebook(folder.name), folder / "notebook.ipynb", _typed(values))
        if records.read(folder)["state"] != "done":
            raise engine.Failed("the notebook ended without stage.finish()")
    except engine.Interrupted as stop:
        stage.close("interrupted", f"stopped by {stop}")
        _keep(folder, finished, console)
        console.stopped(folder.name, str(stop))
        raise
    except engine.Failed as failure:
        stage.close("failed", str(failure))
        _keep(folder, finished, console)
        console.failed(folder, str(failure), failure.user)
        raise
    finally:
        if (folder / "notebook.ipynb").is_file():
            report.stage(folder)
    if finished.is_dir():
        shutil.rmtree(finished)
    record = records.read(folder) | {"page": step.page}
    if not record["reused"]:
        record["seconds"] = round(time.monotonic() - begun, 1)  # with kernel start and imports
    stage.write("run.json", record)
    console.done(folder)


def _keep(folder: Path, finished: Path, console: Console) -> None:
    """Keep a finished stage, as it was before its page was drawn again, if that failed."""
    if finished.is_dir():
        console.kept(records.set_aside(folder, finished))


def _typed(values: dict) -> dict:
    """Plain values for papermill, which writes them into the notebook as Python literals."""
    return json.loads(json.dumps(values))


def take(folder: Path, hit: Path, values: dict, work: str) -> Path | None:
    """Fill a stage's place from another run: checkpoints as hard links, the rest as copies.

    `values` are the parameters of the stage in its new run. Checkpoints are never written again;
    other files may be, when the page is executed again. Returns where an attempt that stood in
    its place was set aside, if any.
    """

    part = _copied(hit, folder)
    record = records.read(hit) | {"id": f"{folder.parent.name}/{folder.name}"}
    record |= {"parameters": values, "taken_from": source(hit, folder).removeprefix("run ")}
    replace(part / "run.json", json.dumps(record, indent=1) + "\n")
    kept = notebook.prepare(folder, work, anew=True)
    os.rename(part, folder)
    if (folder / "notebook.ipynb").is_file():
        report.stage(folder)
    return kept


def source(hit: Path, folder: Path) -> str:
    """Where a stage is taken from: another run, or an earlier attempt of this one."""
    return hit.name if hit.parent == folder.parent else f"run {hit.parent.name}"


def _copied(source: Path, place: Path) -> Path:
    """A copy of a stage's folder beside `place`, not yet in it; checkpoints as hard links."""

    def copy(file: str, target: str) -> None:
        weights = Path(file).is_relative_to(source / "checkpoints")
        os.link(file, target) if weights else shutil.copy2(file, target)

    part = place.with_name(f".{place.name}.part")
    if part.is_dir():  # a copy that a kill cut off
        shutil.rmtree(part)
    shutil.copytree(source, part, copy_function=copy)
    return part


def _require_upstream(folder: Path, values: dict) -> None:
    """UserError for a missing upstream stage before a kernel is started for nothing."""
    for need in stages.named(folder.name).needs:
        records.upstream(folder, need, values)


def _await_orphan(folder: Path) -> None:
    """A kernel outlives a killed runner by a second or so; wait for it rather than refuse."""
    until = time.monotonic() + ORPHAN
    while (folder / "run.json").is_file() and time.monotonic() < until:
        if records.state(records.read(folder)) != "running":
            return
        time.sleep(0.2)


def _environment() -> None:
    """What kernels inherit beside quiet libraries: a thread per physical core, the lock's owner."""
    os.environ[notebook.RUNNER] = str(os.getpid())
    os.environ["KATLAB_ROOT"] = str(stages.root())
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    for name in THREADS:
        os.environ.setdefault(name, str(cores))
