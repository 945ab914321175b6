"""`katlab plan` and `katlab doctor`: what a profile takes, what this machine has."""

import argparse

from katlab.cli.parser import Commands, command


def register(commands: Commands) -> None:
    """Add `plan` and `doctor`."""
    plan = command(commands, "plan", "parameters, memory and compute of a profile", _plan)
    plan.add_argument("--profile", default="target-40b")

    command(commands, "doctor", "what this machine has and lacks, and the remedy", _doctor)


def _plan(options: argparse.Namespace) -> None:
    from katlab.scaling_plan import planner

    print(planner.table(options.profile))


def _doctor(options: argparse.Namespace) -> int:
    from katlab import doctor

    return doctor.main()
