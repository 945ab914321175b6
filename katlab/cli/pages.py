"""`katlab open` and `katlab report`: the pages of a run."""

import argparse
import os
import sys
import webbrowser
from pathlib import Path

from katlab import UserError
from katlab.cli import given
from katlab.cli.parser import Commands, command
from katlab.lab import records, stages


def register(commands: Commands) -> None:
    """Add `open` and `report`."""
    opened = command(
        commands, "open", "open a run's page in the browser", _open,
        "katlab open demo", "katlab open demo 06",
        more="Without a display, or over ssh, it prints the path alone.",
    )  # fmt: skip
    opened.add_argument("run", metavar="RUN", help="name of a run; see katlab ls")
    opened.add_argument("stage", nargs="?", default="", metavar="STAGE", help="that stage's page")

    report = command(
        commands, "report", "render the pages of a run again", _report, "katlab report demo"
    )
    report.add_argument("run", metavar="RUN", help="name of a run; see katlab ls")


def _open(options: argparse.Namespace) -> None:
    run = given.run_folder(options.run)
    records.stage_folders(run)  # a mistake in the name is a sentence
    page = run / "index.html"
    if options.stage:
        page = run / stages.find(options.stage).name / "report.html"
    if not page.is_file():
        raise UserError(f"There is no page {page}; make it with: katlab report {run.name}")
    print(page)
    if shown():
        webbrowser.open(page.as_uri())


def shown() -> bool:
    """Whether a browser that opens here is seen by whoever typed the command."""
    if os.environ.get("SSH_CONNECTION") or os.environ.get("SSH_TTY"):
        return False
    desktop = sys.platform in ("darwin", "win32")
    return desktop or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _report(options: argparse.Namespace) -> None:
    from katlab.lab import byhand, report

    run: Path = given.run_folder(options.run)
    for folder in report.stage_folders(run):
        if not byhand.collect(folder) and (folder / "notebook.ipynb").is_file():
            report.stage(folder)
    print(report.index(run))
