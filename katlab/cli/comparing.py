"""`katlab compare`: runs side by side."""

import argparse

from katlab.cli import given
from katlab.cli.parser import Commands, command
from katlab.lab import stages


def register(commands: Commands) -> None:
    """Add `compare`."""
    compare = command(
        commands, "compare", "claims and figures of two or more runs", _compare,
        "katlab compare demo idea", "katlab compare demo demo-seed1 demo-seed2",
    )  # fmt: skip
    compare.add_argument("runs", nargs="+", metavar="RUN", help="names of runs; see katlab ls")


def _compare(options: argparse.Namespace) -> None:
    from katlab.lab import compare

    chosen = [given.run_folder(run).name for run in options.runs]
    print(compare.side_by_side(stages.outputs(), chosen))
