"""`katlab verify` and `katlab check`: a file of answers, a file of queries."""

import argparse
from pathlib import Path

from katlab.cli import given
from katlab.cli.parser import Commands, command


def register(commands: Commands) -> None:
    """Add `verify` and `check`."""
    verify = command(
        commands, "verify", "grade answers in a JSONL file", _verify,
        "katlab verify data_samples/verify/answers.jsonl",
        "katlab verify answers.jsonl --out verdicts.jsonl",
    )  # fmt: skip
    verify.add_argument("file", metavar="FILE.jsonl", help="rows of kind, answer, reference")
    verify.add_argument(
        "--out", metavar="FILE.jsonl", help="each verdict with its reason (default: not written)"
    )

    check = command(
        commands, "check", "read a query file and say what is in it", _check,
        "katlab check data_samples/queries.jsonl",
        "katlab check mine.jsonl --profile proxy-1.5b",
    )  # fmt: skip
    check.add_argument(
        "file", type=Path, metavar="FILE.jsonl", help="one query per line, or sources"
    )
    check.add_argument(
        "--profile", default="", help="name also the settings that ask for more (default: none)"
    )
    check.add_argument(
        "-o", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE",
        help="a value of that profile, as in evaluation.prompts=all (default: none)",
    )  # fmt: skip


def _verify(options: argparse.Namespace) -> int:
    from katlab.rewards.cli import verify_file

    return verify_file(options.file, options.out)


def _check(options: argparse.Namespace) -> int:
    from katlab.lab import profiles
    from katlab.tasks import checks

    overrides = given.typed(options.overrides, profiles.table(options.profile or profiles.SCHEMA))
    return checks.check(str(options.file), options.profile, overrides)
