"""Run stage notebooks in order: skip what is unchanged, continue what was cut off.

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
from katlab.lab import fingerprint, notebook, parameters, report, runs, stages
from katlab.lab.console import Console
from katlab.lab.lock import run_lock
from katlab.lab.stages import Stage

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
ORPHAN = 10.0  # seconds the kernel of a killed runner may take to notice


def select(begin: str = "", only: Sequence[str] = ()) -> list[Stage]:
    """All stages, or those from one on, or just the named ones; in order."""
    every = stages.discover()
    if begin:
        every = every[every.index(stages.find(begin)) :]
    chosen = {stages.find(word) for word in only}
    return [stage for stage in every if not only or stage in chosen]


def arguments(specs: Sequence[Stage], values: dict[str, object]) -> dict[str, dict]:
    """The full, checked parameters of each stage; UserError if no notebook knows a name."""
    known = {spec.name: parameters.declared(stages.notebook(spec.name)) for spec in specs}
    every = {name: p for own in known.values() for name, p in own.items()}
    who = specs[0].name if len(specs) == 1 else "these notebooks"
    parameters.check(values, every, who)
    filled = {}
    for name, own in known.items():
        given = parameters.check({k: v for k, v in values.items() if k in own}, own, name)
        filled[name] = {key: p.default for key, p in own.items()} | given
    return filled


def run(specs: Sequence[Stage], values: dict[str, object], force: bool = False) -> Path:
    """Run stages into outputs/<run>/ and return the path of its index page.

    Raises UserError for mistakes, engine.Failed if a stage fails, engine.Interrupted if stopped.
    """
    if not specs:
        raise UserError(
            f"There are no stage notebooks in {stages.root() / 'notebooks'}; set KATLAB_ROOT to "
            "the checkout."
        )
    filled = arguments(specs, values)
    first = filled[specs[0].name]
    folder = stages.outputs() / first["run"]
    for spec in specs:  # every mistake in a profile or override shows before anything runs
        fingerprint.of(spec.name, filled[spec.name], {})
    if not folder.is_dir():  # a mistyped run leaves no empty folder among the runs
        _require_upstream(folder / specs[0].name, first)
    _environment()
    with run_lock(folder):
        console = Console(folder, [spec.name for spec in specs])
        try:
            for spec in specs:
                _stage(folder / spec.name, filled[spec.name], force, console)
        finally:
            index = report.index(folder)
        console.end(index)
    return index


def _stage(folder: Path, values: dict, force: bool, console: Console) -> None:
    upstream = notebook.upstream_fingerprints(folder)
    wanted = fingerprint.of(folder.name, values, upstream)
    always = any(spec.always for spec in stages.STAGES if spec.name == folder.name)
    if not (force or always) and _unchanged(folder, wanted):
        console.unchanged(folder.name)
        return
    _require_upstream(folder, values)
    _await_orphan(folder)
    lender = None if force or always else _lender(folder, wanted)
    if lender is not None:
        _borrow(folder, lender, values)
        console.unchanged(folder.name, f"same as in run {lender.parent.name}, taken from there")
        return
    notebook.prepare(folder, wanted)
    if force:
        runs.clear(folder)
    stage = notebook.created(folder, values, wanted, upstream)
    from katlab.lab import engine

    begun = time.monotonic()
    try:
        with console.watching(folder):
            engine.execute(stages.notebook(folder.name), folder / "notebook.ipynb", _typed(values))
        if runs.read(folder)["state"] != "done":
            raise engine.Failed("the notebook ended without stage.finish()")
    except engine.Interrupted as stop:
        stage.close("interrupted", f"stopped by {stop}")
        console.stopped(folder.name, str(stop))
        raise
    except engine.Failed as failure:
        stage.close("failed", str(failure))
        console.failed(folder, str(failure), failure.user)
        raise
    finally:
        if (folder / "notebook.ipynb").is_file():
            report.stage(folder)
    record = runs.read(folder)
    record["seconds"] = round(time.monotonic() - begun, 1)  # with kernel start and imports
    stage.write("run.json", record)
    console.done(folder)


def _typed(values: dict) -> dict:
    """Plain values for papermill, which writes them into the notebook as Python literals."""
    return json.loads(json.dumps(values))


def _unchanged(folder: Path, wanted: str) -> bool:
    if not (folder / "run.json").is_file():
        return False
    record = runs.read(folder)
    return record["state"] == "done" and record.get("fingerprint") == wanted


def _lender(folder: Path, wanted: str) -> Path | None:
    """The same stage, done with the same fingerprint, of another run."""
    others = folder.parents[1].glob(f"*/{folder.name}/run.json")
    return next((p.parent for p in sorted(others) if _unchanged(p.parent, wanted)), None)


def _borrow(folder: Path, lender: Path, values: dict) -> None:
    """Fill a stage folder with hard links to another run's; what is written later is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    runs.clear(folder)
    leave = shutil.ignore_patterns("run.json")  # written last: it is what says done
    shutil.copytree(lender, folder, copy_function=os.link, dirs_exist_ok=True, ignore=leave)
    record = runs.read(lender) | {"id": f"{folder.parent.name}/{folder.name}"}
    record |= {"parameters": values, "taken_from": lender.parent.name}
    runs.replace(folder / "run.json", json.dumps(record, indent=1) + "\n")
    report.stage(folder)


def _require_upstream(folder: Path, values: dict) -> None:
    """UserError for a missing upstream stage before a kernel is started for nothing."""
    for need in next((s.needs for s in stages.STAGES if s.name == folder.name), ()):
        done = (folder.parent / need / "run.json").is_file()
        if not done or runs.read(folder.parent / need)["state"] != "done":
            raise UserError(
                f"{folder.name} needs {need}, which is not done in run '{folder.parent.name}'; "
                f"run: katlab stage {need[:2]} --profile {values['profile']} "
                f"--run {folder.parent.name}"
            )


def _await_orphan(folder: Path) -> None:
    """A kernel outlives a killed runner by a second or so; wait for it rather than refuse."""
    until = time.monotonic() + ORPHAN
    while (folder / "run.json").is_file() and time.monotonic() < until:
        record = runs.read(folder)
        if record["state"] != "running" or not runs.alive(record):
            return
        time.sleep(0.2)


def _environment() -> None:
    """What every kernel inherits: quiet libraries, one thread a physical core, the lock's owner."""
    notebook.quiet()
    os.environ[notebook.RUNNER] = str(os.getpid())
    os.environ["KATLAB_ROOT"] = str(stages.root())
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    for name in THREADS:
        os.environ.setdefault(name, str(cores))
