"""`katlab verify` and `katlab check`: a file of answers, a file of queries."""

import argparse
from pathlib import Path

from katlab.cli import given
from katlab.cli.parser import Commands, command


def register(commands: Commands) -> None:
    """Add `verify` and `check`."""
    verify = command(commands, "verify", "grade answers in a JSONL file", _verify)
    verify.add_argument("file", metavar="FILE.jsonl")
    verify.add_argument("--out", metavar="FILE.jsonl", help="write each verdict with its reason")

    check = command(commands, "check", "read a query file and say what is in it", _check)
    check.add_argument("file", type=Path, metavar="FILE.jsonl")
    check.add_argument("--profile", default="", help="say also what it asks for and is not there")
    check.add_argument(
        "-o", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE",
        help="a value of the profile, as in evaluation.prompts=all",
    )  # fmt: skip


def _verify(options: argparse.Namespace) -> int:
    from katlab.rewards.cli import verify_file

    return verify_file(options.file, options.out)


def _check(options: argparse.Namespace) -> int:
    from katlab.lab import profiles
    from katlab.tasks import checks

    overrides = given.typed(options.overrides, profiles.table(options.profile or profiles.SCHEMA))
    return checks.check(options.file, options.profile, overrides)
