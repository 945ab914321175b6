"""The parser of the command line, and how a module adds a command to it.

argparse with the mistakes of this house: one sentence as UserError, no usage dump, options only by
their whole names, "did you mean" for commands, options and choices.

Usage:  ls = command(commands, "ls", "list runs", act, "katlab ls demo")
"""

import argparse
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from katlab import UserError
from katlab.lab.settings import did_you_mean

Commands = argparse._SubParsersAction
KINDS = {"int": "a whole number", "float": "a number"}


def _finite(text: str) -> float:
    """`float` without NaN and infinity, which no option means."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


class _Help(argparse.HelpFormatter):
    """Examples keep their lines; everything else is filled."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("examples:"):
            return text
        return super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """A strict parser; without anything to do it prints its help."""

    grow: Callable[["Parser"], None] | None = None  # for options that need heavy imports

    def __init__(self, prog: str | None = None, **options: Any):
        options |= {"allow_abbrev": False, "exit_on_error": False, "formatter_class": _Help}
        super().__init__(prog, **options)
        self.register("type", float, _finite)
        self.set_defaults(act=lambda options: self.print_help())

    def parse_known_args(self, args=None, namespace=None):
        if self.grow is not None:
            grow, self.grow = self.grow, None
            grow(self)
        try:
            namespace, unknown = super().parse_known_args(args, namespace)
        except argparse.ArgumentError as error:
            raise UserError(self._sentence(error)) from None
        if unknown:
            raise UserError(self._stranger(unknown[0]))
        return namespace, unknown

    def error(self, message: str) -> NoReturn:
        """UserError instead of usage and exit."""
        lacking = message.partition("arguments are required: ")[2] or message
        raise UserError(f"{self.prog} needs {lacking}; see: {self.prog} --help")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = list(action.choices)
        if isinstance(action, argparse._SubParsersAction):
            near = did_you_mean(str(value), known)
            raise UserError(f"There is no command '{self.prog} {value}'; {near}")
        name = "/".join(action.option_strings) or action.dest.upper()
        raise UserError(f"{name} takes {' or '.join(map(repr, known))}, not '{value}'.")

    def _sentence(self, error: argparse.ArgumentError) -> str:
        name, message = error.argument_name or self.prog, error.message
        if wrong := re.fullmatch(r"invalid (int|float) value: (.*)", message):
            return f"{name} takes {KINDS[wrong[1]]}, not {wrong[2]}."
        if message.startswith("expected"):
            return f"{name} needs a value; see: {self.prog} --help"
        return f"{name}: {message}."

    def _stranger(self, word: str) -> str:
        if not word.startswith("-"):
            return f"{self.prog} does not take '{word}'; see: {self.prog} --help"
        own = [name for action in self._actions for name in action.option_strings]
        near = did_you_mean(word.partition("=")[0], own)
        return f"{self.prog} has no option '{word}'; {near}"


def command(
    commands: Commands, name: str, text: str, act: Callable | None, *examples: str, more: str = ""
) -> Parser:
    """A new command: its name, what it does in a few words, the function that does it, examples.

    `text` stands in the list of all commands, `more` below it in the command's own help.
    """
    described = f"{text[0].upper()}{text[1:]}. {more}".strip()
    made = commands.add_parser(name, help=text, description=described, epilog=told(examples))
    if act is not None:
        made.set_defaults(act=act)
    return made


def told(examples: Iterable[str]) -> str | None:
    """Examples as the end of a help text."""
    lines = "\n".join(f"  {example}" for example in examples)
    return f"examples:\n{lines}" if lines else None
