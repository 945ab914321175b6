"""Do a stage's work outside its notebook: in one process, or one process per rank under torchrun.

The stage's folder (made by its notebook or by StageRun.create) says everything, and `run(stage)` is
the very function the notebook calls: the figures are the same, and finished work is not done again.

Usage:  python -m katlab.lab.launch 04_cold_start --dir outputs/demo/04_cold_start
        torchrun --nproc-per-node 2 -m katlab.lab.launch 04_cold_start --dir ...
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from katlab import UserError
from katlab.lab import stages
from katlab.lab.notebook import quiet
from katlab.lab.runs import StageRun


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; rank 0 prints the figures as JSON."""
    parser = argparse.ArgumentParser("katlab.lab.launch", description=__doc__.split("\n")[0])
    parser.add_argument("stage", help="stage name, as 04_cold_start")
    parser.add_argument("--dir", required=True, help="the stage's folder under outputs/")
    options = parser.parse_args(argv)
    try:
        quiet()
        which = stages.find(options.stage)  # both mistakes show before the module is imported
        stage = StageRun.open(options.dir)
        figures = work_of(which)(stage)
    except UserError as mistake:
        print(mistake, file=sys.stderr)
        return 2
    if stage.writes:
        print(json.dumps(figures))
    return 0


def work_of(stage: stages.Stage) -> Callable[[StageRun], dict[str, float]]:
    """The `run` function of a stage's package; UserError if its notebook does all the work."""
    if not stage.module:
        there = [one.name for one in stages.discover() if one.module]
        raise UserError(
            f"Stage {stage.name} has no work but its notebook; choose one of: {', '.join(there)}."
        )
    return import_module(stage.module).run


if __name__ == "__main__":
    sys.exit(main())
