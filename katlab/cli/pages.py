"""`katlab report`: the pages of a run."""

import argparse

from katlab.cli import given
from katlab.cli.parser import Commands, command


def register(commands: Commands) -> None:
    """Add `report`."""
    report = command(commands, "report", "render the pages of a run again", _report)
    report.add_argument("run", metavar="RUN")


def _report(options: argparse.Namespace) -> None:
    from katlab.lab import byhand, report

    run = given.run_folder(options.run)
    for folder in report.stage_folders(run):
        if not byhand.collect(folder) and (folder / "notebook.ipynb").is_file():
            report.stage(folder)
    print(report.index(run))
