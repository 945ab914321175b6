"""The `katlab` command. Mistakes end with one sentence and status 2, failed stages with 1.

To add a command, write a module here with `register(commands)` and name it in MODULES, whose order
is that of the help. `register` calls `parser.command(commands, name, text, act)` and adds options;
`act(options)` returns None or an exit status, raises UserError for a mistake, and does its heavy
imports inside: every module is imported for every command, so that `katlab ls` stays quick.
What several commands take (--profile, --run, -o, the name of a run) stands in `given`.

Usage:  katlab run --profile nano --run demo
"""

import errno
import io
import os
import sys
from collections.abc import Sequence

from katlab import UserError
from katlab.cli import comparing, files, listing, machine, models, pages, running, variants
from katlab.cli.parser import Parser
from katlab.lab import quiet

MODULES = (
    running,
    variants,
    listing,
    comparing,
    pages,
    files,
    machine,
    models,
)
REMEDIES = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space and start again")
REMEDIES |= dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make it writable")
EPILOG = "Every command explains itself: katlab COMMAND --help."


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without ✓ must not stop a run
    quiet()
    try:
        options = _parser().parse_args(given)
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
        if error.errno not in REMEDIES:
            raise
        remedy = REMEDIES[error.errno]
        print(f"{error.strerror}: {error.filename or 'outputs/'}; {remedy}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> Parser:
    parser = Parser("katlab", description=__doc__.split("\n")[0], epilog=EPILOG)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in MODULES:
        module.register(commands)
    return parser
