"""`katlab plan`, `doctor`, `gpu-check`: what a profile takes, what a machine has; --version."""

import argparse
import json
import platform
from importlib import metadata
from textwrap import fill

import katlab
from katlab.cli.parser import Commands, command
from katlab.lab import provenance


def register(commands: Commands) -> None:
    """Add `plan`, `doctor` and `gpu-check`."""
    plan = command(
        commands, "plan", "parameters, memory and compute of a profile", _plan,
        "katlab plan", "katlab plan --profile proxy-1.5b", "katlab plan --profile mine.toml",
    )  # fmt: skip
    plan.add_argument(
        "--profile", default="target-40b", help="a profile or a TOML file (default: %(default)s)"
    )
    told = "what this machine has and lacks, and the remedy"
    command(commands, "doctor", told, _doctor, "katlab doctor")
    check = command(
        commands, "gpu-check", "how fast this GPU trains and samples a profile's model", _check,
        "katlab gpu-check", "katlab gpu-check --profile proxy-1.5b --json",
        more="On random weights, offline, in five to ten minutes; the last line is JSON.",
    )  # fmt: skip
    check.add_argument(
        "--profile", default="real-0.5b", help="a profile or a TOML file (default: %(default)s)"
    )
    check.add_argument(
        "--tiny", action="store_true", help="try the check itself, on a CPU as well, in seconds"
    )
    check.add_argument("--json", action="store_true", help="nothing but the line of JSON")


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


def _check(options: argparse.Namespace) -> int:
    from katlab.gpu_check import check

    def tell(name: str, found: dict) -> None:
        if not options.json:
            told = found.get("error") or ", ".join(f"{k} {v}" for k, v in found.items())
            print(fill(f"{name}: {told}", 80, subsequent_indent="  "), flush=True)

    found = check.run(options.profile, options.tiny, tell)
    print(json.dumps(found))
    return int(bool(check.failed(found)))


def _doctor(options: argparse.Namespace) -> int:
    from katlab import doctor

    return doctor.main()
