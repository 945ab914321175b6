"""What the folders of runs say: run.json and result.json of a stage, read by everything else.

Nothing is deleted: an attempt that gives way is renamed <stage>@1, <stage>@2 ... beside the new
one. Such a folder is no stage of the run, but opens like one.

Usage:  records.state(records.read(folder));  records.stage_folders(outputs / "demo")
"""

import json
import os
import platform
import re
import shlex
from datetime import datetime
from pathlib import Path

import psutil

from katlab import UserError
from katlab.lab import profiles

LONGEST = 100
RUN_NAME = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._-]{{0,{LONGEST - 1}}}")


def check_name(run: str) -> None:
    """UserError for a run name that is no plain folder name."""
    if not RUN_NAME.fullmatch(run):
        raise UserError(
            f"'{run}' is no name for a run; use letters (a to z), digits and . _ - only, at most "
            f"{LONGEST}, and none of . - in front."
        )


def check_seed(seed: int) -> None:
    """UserError for a seed that numpy does not take."""
    if not 0 <= seed < 2**32:
        raise UserError(f"Seed {seed} is out of range; take one from 0 to {2**32 - 1}.")


def stage_folders(run: Path) -> list[Path]:
    """The stage folders of a run, in order, earlier attempts left out; UserError if no such run."""
    if not run.is_dir():
        there = ", ".join(sorted(p.name for p in run.parent.glob("[!.]*") if p.is_dir())) or "none"
        raise UserError(f"There is no run '{run.name}' in {run.parent} (there: {there}).")
    folders = sorted(path.parent for path in run.glob("[!.]*/run.json"))
    return [folder for folder in folders if "@" not in folder.name]


def aside(folder: Path) -> Path:
    """Where an attempt is kept that gives way: <stage>@N beside its place."""
    earlier = [path.name.rpartition("@")[2] for path in folder.parent.glob(f"{folder.name}@*")]
    last = max((int(number) for number in earlier if number.isdecimal()), default=0)
    return folder.with_name(f"{folder.name}@{last + 1}")


def set_aside(folder: Path, copy: Path | None = None) -> Path:
    """Keep an attempt (or a copy of it) as <stage>@N by one rename and return where."""
    kept = aside(folder)
    os.rename(copy or folder, kept)
    return kept


def result(folder: Path) -> dict[str, float] | None:
    """The figures of a stage's finished work (result.json), or None if there are none.

    Figures under another fingerprint than run.json's are of other work and do not count.
    """
    path = Path(folder) / "result.json"
    if not path.is_file():
        return None
    made = json.loads(path.read_text(encoding="utf-8"))
    return made["figures"] if made["fingerprint"] == read(folder).get("fingerprint") else None


def upstream(folder: Path, need: str, values: dict) -> Path:
    """The folder of stage `need`, beside the one given, if its work is finished, else UserError.

    Work stays finished while its page is drawn again, and if that fails. `values` are the run's
    profile, seed and overrides, for the command that makes what is missing.
    """
    path, run = folder.parent / need, folder.parent.name
    told = state(read(path)) if (path / "run.json").is_file() else "not run"
    if told != "done" and (told == "not run" or result(path) is None):
        where = f"in run '{run}'" if folder.parent.is_dir() else f"yet (there is no run '{run}')"
        command = ["katlab run --to", need[:2], "--run", run]
        if values["profile"] != profiles.SCHEMA:
            command += ["--profile", shlex.quote(values["profile"])]
        if values["seed"]:
            command += ["--seed", str(values["seed"])]
        command += filter(None, [profiles.options(values["overrides"])])
        raise UserError(
            f"{folder.name} needs {need}, which is {told} {where}; run: {' '.join(command)}"
        )
    return path


def stale(folder: Path) -> list[str]:
    """The upstream stages that were run anew since this one read them, themselves or theirs."""
    changed = []
    for need, known in read(folder)["upstream"].items():
        path = folder.parent / need
        there = (path / "run.json").is_file()
        if not there or read(path).get("fingerprint", "") != known or stale(path):
            changed.append(need)
    return changed


def read(folder: Path) -> dict:
    """run.json of a stage folder; UserError if there is none."""
    path = Path(folder) / "run.json"
    if not path.is_file():
        raise UserError(f"There is no run.json in {folder}; begin the stage there first.")
    return json.loads(path.read_text(encoding="utf-8"))


def state(record: dict) -> str:
    """The state of a run.json; 'died' if it says running and its process is gone.

    Work that was finished before stays done, whoever has its notebook open.
    """
    if record["state"] != "running":
        return record["state"]
    if record.get("reused"):
        return "done"
    return "running" if alive(record) else "died"


def alive(record: dict) -> bool:
    """Whether the process that wrote run.json still runs (on another host: taken to)."""
    if record["host"] != platform.node():
        return True
    if not psutil.pid_exists(record["pid"]):
        return False
    begun = datetime.fromisoformat(record.get("opened", record["started"])).timestamp()
    try:
        process = psutil.Process(record["pid"])
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= begun + 1
    except psutil.NoSuchProcess:
        return False
