"""`katlab run` and `katlab stage`: the notebooks in order, or one of them."""

import argparse
from collections.abc import Sequence

from katlab.cli import given
from katlab.cli.parser import Commands, command
from katlab.lab import stages


def register(commands: Commands) -> None:
    """Add `run` and `stage`."""
    run = command(commands, "run", "run the stage notebooks in order", _run)
    given.options(run)
    part = run.add_argument_group("which stages")
    part.add_argument("--from", dest="begin", default="", metavar="STAGE", help="from this on")
    part.add_argument("--to", dest="end", default="", metavar="STAGE", help="up to this one")
    part.add_argument("--only", action="append", default=[], metavar="STAGE", help="just this one")

    one = command(commands, "stage", "run one stage", _stage)
    one.add_argument("stage", help="number, name or a unique beginning of it: 5, 05, step")
    given.options(one)


def _run(options: argparse.Namespace) -> int:
    from katlab.lab import pipeline

    return execute(options, pipeline.select(options.begin, options.end, options.only))


def _stage(options: argparse.Namespace) -> int:
    return execute(options, [stages.find(options.stage)])


def execute(options: argparse.Namespace, chosen: Sequence[stages.Stage]) -> int:
    """Run stages with what the command line gives; the exit status."""
    from katlab.lab import engine, pipeline

    try:
        pipeline.run(chosen, given.values(options, chosen), options.force)
    except engine.Failed:
        return 1
    except engine.Interrupted:
        return 130
    return 0
