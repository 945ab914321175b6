"""`katlab chat`: talk to a student of a finished run."""

import argparse
import dataclasses
import json

from katlab import UserError, lab
from katlab.cli.parser import Commands, command


def register(commands: Commands) -> None:
    """Add `chat`."""
    told = "talk to a student of a run: judge, thought and answer apart"
    chat = command(
        commands, "chat", told, _chat,
        "katlab chat demo", "katlab chat demo --stage 04 --mode on",
        'katlab chat demo --once "Compute 3+4."',
    )  # fmt: skip
    chat.add_argument("run", metavar="RUN", help="a run whose stage 05 is done")
    chat.add_argument(
        "--stage", default="05_step_srpo", help="whose student: 04 or 05 (default: the final one)"
    )
    chat.add_argument(
        "--mode", choices=["auto", "on", "off"], default="auto",
        help="let the model decide, or force the thought on or off (default: %(default)s)",
    )  # fmt: skip
    chat.add_argument("--once", metavar="TEXT", help="answer this and end, for scripts")
    chat.add_argument("--json", action="store_true", help="with --once: the reply as JSON")
    chat.add_argument(
        "--max-tokens", type=int, default=0, help="of a reply (default: as stage 07 allows)"
    )
    chat.add_argument(
        "--temperature", type=float, default=0.0, help="0, the default, takes the likeliest tokens"
    )
    chat.add_argument("--seed", type=int, default=0, help="of what is drawn (default: 0)")


def _chat(options: argparse.Namespace) -> None:
    if options.max_tokens < 0 or options.temperature < 0:
        raise UserError("--max-tokens and --temperature take a number that is not negative.")
    if options.json and options.once is None:
        raise UserError('--json is for one reply: add --once "TEXT".')
    run = lab.open_run(options.run, unfinished=True)
    _ = run[options.stage].student  # its mistakes show before the imports, which take seconds
    from rich.console import Console

    from katlab.conversation import chat, terminal

    student, console = chat.student(run, options.stage), Console(highlight=False, markup=False)
    how = {
        "max_new_tokens": options.max_tokens or run.config.case_studies.max_new_tokens,
        "temperature": options.temperature,
        "seed": options.seed,
    }
    if options.once is None:
        terminal.talk(student, console, options.mode, **how)
        return
    asked = [{"role": "user", "content": options.once}]
    if options.json:
        said = student.reply(asked, options.mode, **how)
        print(json.dumps(dataclasses.asdict(said), indent=1))
    else:
        terminal.once(student, console, asked, options.mode, **how)
