"""The `katlab` command. Mistakes end with one sentence and status 2, failed stages with 1.

To add a command, write a module here with `register(commands)` and name it in MODULES, whose order
is that of the help. `register` calls `parser.command(commands, name, text, act, *examples)` and
adds options to what it returns. `act(options)` returns None or an exit status, raises UserError for
a mistake, and does its heavy imports inside: every module here is imported for every command, and
`katlab ls` is to start at once. What several commands take (--profile, --run, -o, the name of a
run) stands in `given`. What is printed fits 80 columns; with --json it is one document.

Usage:  katlab run --profile nano --run demo
"""

import argparse
import io
import os
import sys
from collections.abc import Sequence

from katlab import UserError
from katlab.cli import (
    chat,
    comparing,
    exporting,
    files,
    listing,
    machine,
    models,
    pages,
    removing,
    reviewing,
    running,
    variants,
)
from katlab.cli.parser import Parser
from katlab.lab import disk, quiet

MODULES = (
    running,
    variants,
    listing,
    pages,
    chat,
    comparing,
    exporting,
    reviewing,
    removing,
    files,
    machine,
    models,
)
EPILOG = "Every command explains itself, with examples: katlab COMMAND --help."


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["help"]:
        given = [*given[1:], "--help"]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without ✓ must not stop a run
    quiet()
    try:
        options = parser_of_all().parse_args(given)
        status = options.act(options) or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # `katlab plan | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UserError as mistake:
        print(mistake, file=sys.stderr)
        return 2
    except OSError as error:
        told = disk.sentence(str(error))
        if not told:
            raise
        print(told, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


class _Version(argparse.Action):
    def __call__(self, parser, *_):
        print(machine.version())
        parser.exit()


def parser_of_all() -> Parser:
    """The parser of the whole command line."""
    about = "Rebuild, run and explore the KAT-V1 report, one notebook per stage."
    parser = Parser("katlab", description=about, epilog=EPILOG)
    parser.add_argument("-V", "--version", action=_Version, nargs=0, help="version, commit, Python")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for module in MODULES:
        module.register(commands)
    return parser
