"""The parser of the command line, and how a module adds a command to it.

Usage:  ls = command(commands, "ls", "list runs", act);  ls.add_argument("run", nargs="?")
"""

import argparse
from collections.abc import Callable

Commands = argparse._SubParsersAction


class Parser(argparse.ArgumentParser):
    """An argparse parser whose options may be added when its command is really called."""

    grow: Callable[["Parser"], None] | None = None  # for options that need heavy imports

    def parse_known_args(self, args=None, namespace=None):
        if self.grow is not None:
            grow, self.grow = self.grow, None
            grow(self)
        return super().parse_known_args(args, namespace)


def command(commands: Commands, name: str, text: str, act: Callable | None) -> Parser:
    """A new command: its name, what it does in a few words, and the function that does it."""
    made = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    made.set_defaults(act=act)
    return made
