"""Removing a run: what it takes on disk, what stays in others, nothing that is running.

Usage:  removal.size(outputs / "idea");  removal.remove(outputs / "idea")
"""

import os
import shutil
from pathlib import Path

from katlab import UserError
from katlab.lab import records
from katlab.lab.lock import run_lock


def size(run: Path) -> tuple[int, int]:
    """(bytes that removing a run frees, bytes of files that other runs hold as well).

    A file counts for the run if every one of its hard links lies in it.
    """
    inside: dict[tuple[int, int], int] = {}
    stats = {}
    for path in run.rglob("*"):
        if path.is_file() or path.is_symlink():
            stat = path.lstat()
            key = (stat.st_dev, stat.st_ino)
            inside[key] = inside.get(key, 0) + 1
            stats[key] = stat
    own = sum(stat.st_size for key, stat in stats.items() if stat.st_nlink <= inside[key])
    return own, sum(stat.st_size for stat in stats.values()) - own


def check(run: Path) -> None:
    """UserError if there is no such run, or if something runs in it."""
    if not run.is_dir():
        records.stage_folders(run)  # says which there are
    if run.is_symlink():
        raise UserError(f"{run} is a link; remove the link, or what it leads to, by hand.")
    for folder in records.stage_folders(run):
        record = records.read(folder)
        if record["state"] == "running" and records.alive(record):
            raise UserError(
                f"Process {record['pid']} is still running {folder.name} of run '{run.name}'; "
                "stop it before you remove the run."
            )


def remove(run: Path) -> None:
    """Delete a run; a kill leaves a hidden folder, which the next removal deletes, not half a run.

    Raises UserError as `check` does, and while another process works in the run.
    """
    check(run)
    for left in run.parent.glob(".*.removed"):
        shutil.rmtree(left)
    hidden = run.with_name(f".{run.name}.removed")
    with run_lock(run):
        os.rename(run, hidden)
    shutil.rmtree(hidden)
