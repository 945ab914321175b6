"""`katlab plan` and `katlab doctor`: what a profile takes, what this machine has; --version."""

import argparse
import platform
from importlib import metadata

import katlab
from katlab.cli.parser import Commands, command
from katlab.lab import provenance


def register(commands: Commands) -> None:
    """Add `plan` and `doctor`."""
    plan = command(
        commands, "plan", "parameters, memory and compute of a profile", _plan,
        "katlab plan", "katlab plan --profile proxy-1.5b", "katlab plan --profile mine.toml",
    )  # fmt: skip
    plan.add_argument(
        "--profile", default="target-40b", help="a profile or a TOML file (default: %(default)s)"
    )
    told = "what this machine has and lacks, and the remedy"
    command(commands, "doctor", told, _doctor, "katlab doctor")


def version() -> str:
    """katlab's version and commit, Python's and torch's, read without importing torch."""
    git = provenance.git()
    commit = str(git.get("sha", ""))[:8] + ", with local changes" * bool(git.get("changed"))
    try:
        torch = metadata.version("torch")
    except metadata.PackageNotFoundError:
        torch = "missing"
    return (
        f"katlab {katlab.__version__}{f' ({commit})' * bool(commit)} · "
        f"Python {platform.python_version()} · torch {torch}"
    )


def _plan(options: argparse.Namespace) -> None:
    from katlab.scaling_plan import planner

    print(planner.table(options.profile))


def _doctor(options: argparse.Namespace) -> int:
    from katlab import doctor

    return doctor.main()
