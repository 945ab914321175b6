"""Train a stage outside its notebook: in one process, or one process a rank under torchrun.

The stage's folder (made by its notebook or by StageRun.create) says everything; the module's
`train(stage)` is the very function the notebook calls, so the metrics are the same.

Usage:  python -m katlab.lab.launch 04_cold_start --dir outputs/demo/04_cold_start
        torchrun --nproc-per-node 2 -m katlab.lab.launch 04_cold_start --dir ...
"""

import argparse
import importlib
import json
import sys
from collections.abc import Sequence

from katlab import UserError
from katlab.lab import stages
from katlab.lab.notebook import quiet
from katlab.lab.runs import StageRun


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; rank 0 prints the final metrics as JSON."""
    parser = argparse.ArgumentParser("katlab.lab.launch", description=__doc__.split("\n")[0])
    parser.add_argument("stage", help="stage name, as 04_cold_start")
    parser.add_argument("--dir", required=True, help="the stage's folder under outputs/")
    options = parser.parse_args(argv)
    try:
        quiet()
        spec = stages.find(options.stage)  # both mistakes show before the module is imported
        stage = StageRun.open(options.dir)
        metrics = trainer(spec.name)(stage)
    except UserError as mistake:
        print(mistake, file=sys.stderr)
        return 2
    if stage.writes:
        stage.record(**metrics)
        print(json.dumps(metrics))
    return 0


def trainer(name: str):
    """The `train` function of a stage's module; UserError if it has none."""
    spec = stages.find(name)
    train = _train_of(spec)
    if train is None:
        trains = [s.name for s in stages.STAGES if _train_of(s)]
        raise UserError(f"Stage {spec.name} trains nothing; choose one of: {', '.join(trains)}.")
    return train


def _train_of(spec: stages.Stage):
    module = importlib.import_module(f"katlab.{spec.module}.stage") if spec.module else None
    return vars(module).get("run") if module else None


if __name__ == "__main__":
    sys.exit(main())
