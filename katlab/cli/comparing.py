"""`katlab compare`: runs side by side, on the terminal and as a page."""

import argparse

from katlab.cli import given
from katlab.cli.parser import Commands, command
from katlab.lab import stages


def register(commands: Commands) -> None:
    """Add `compare`."""
    compare = command(
        commands, "compare", "settings, figures and claims of runs, held against the first",
        _compare, "katlab compare demo idea", "katlab compare demo demo-seed1 idea --all",
        more="Runs that differ in their seed alone are pooled. Writes a page too.",
    )  # fmt: skip
    compare.add_argument("runs", nargs="+", metavar="RUN", help="names of runs; see katlab ls")
    compare.add_argument("--all", action="store_true", help="also what agrees, and every figure")
    given.as_json(compare)


def _compare(options: argparse.Namespace) -> None:
    from katlab.compare_runs import comparison, side_by_side

    outputs = stages.outputs()
    names = [given.run_folder(run).name for run in options.runs]
    found = comparison.compare(outputs, names)
    if options.json:
        given.print_json(side_by_side.as_json(found))
        return
    page = side_by_side.page(found, side_by_side.page_path(outputs, names))
    print(f"{side_by_side.text(found, options.all)}\n\n{page}")
