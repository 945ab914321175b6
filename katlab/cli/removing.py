"""`katlab rm`: runs that are no longer wanted."""

import argparse
import sys

from katlab import UserError
from katlab.cli import given
from katlab.cli.parser import Commands, command
from katlab.lab import removal
from katlab.lab.console import plural


def register(commands: Commands) -> None:
    """Add `rm`."""
    rm = command(
        commands, "rm", "remove runs, after a question", _rm,
        "katlab rm idea", "katlab rm --yes scratch-1 scratch-2",
        more="Stages that other runs took over stay whole there.",
    )  # fmt: skip
    rm.add_argument("runs", nargs="+", metavar="RUN", help="names of runs; see katlab ls")
    rm.add_argument("-y", "--yes", action="store_true", help="do not ask")


def _rm(options: argparse.Namespace) -> int:
    folders = [given.run_folder(run) for run in dict.fromkeys(options.runs)]
    for folder in folders:  # all or none
        removal.check(folder)
    for folder in folders:
        own, shared = removal.size(folder)
        told = f"run {folder.name}: frees {_bytes(own)}"
        print(told + f"; {_bytes(shared)} more are shared with other runs and stay" * bool(shared))
    if not options.yes:
        if not sys.stdin.isatty():
            raise UserError("There is no terminal to ask on; say it with --yes.")
        try:
            answer = input(f"Remove {plural(len(folders), 'run')}? [y/N] ")
        except EOFError:
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            print("Nothing was removed.")
            return 1
    for folder in folders:
        removal.remove(folder)
    print(f"removed {', '.join(folder.name for folder in folders)}")
    return 0


def _bytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
