"""The parameters of a stage: what its notebook's parameters cell may set, and the defaults.

They come from the package: the five that every notebook has, and those under PARAMETERS in a
stage's settings.py. A saved notebook has no say, so that saving one changes no command. Values are
plain (str, int, float, bool, list, dict; never None) and take the type of the default.

Usage:  parameters.of("05_step_srpo")["seed"].default
"""

import json
import tomllib
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from katlab import UserError
from katlab.lab import profiles
from katlab.lab.profiles import did_you_mean

TYPES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
TYPES |= {list: "a list", dict: "a table"}


@dataclass(frozen=True)
class Parameter:
    """A default and what it means."""

    default: str | int | float | bool | list | dict
    help: str


COMMON = {
    "profile": Parameter(profiles.SCHEMA, "a shipped profile's name or a TOML file"),
    "run": Parameter("demo", "folder under outputs/"),
    "seed": Parameter(0, "drives queries, sampling and training"),
    "overrides": Parameter({}, "single values of the profile (-o section.key=value)"),
    "report_to": Parameter("none", "trackers for the trainers, under their names in transformers"),
}


def of(stage: str) -> dict[str, Parameter]:
    """The parameters of a stage by its name ('09_compare_runs'), in order."""
    own = profiles.section(stage)
    if not (profiles.PACKAGE / own / "settings.py").is_file():
        return COMMON
    further = vars(import_module(f"katlab.{own}.settings")).get("PARAMETERS", {})
    return COMMON | {name: Parameter(*pair) for name, pair in further.items()}


def check_cell(notebook: Path) -> None:
    """UserError unless one cell is tagged `parameters`: values put elsewhere would be overruled."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    tagged = sum("parameters" in cell["metadata"].get("tags", []) for cell in cells)
    if tagged != 1:
        raise UserError(
            f"{notebook.name} has {tagged} cells tagged 'parameters'; it must have exactly one."
        )


def check(values: dict[str, Any], known: dict[str, Parameter], who: str) -> dict[str, Any]:
    """Values with the types of their defaults; UserError for unknown names and wrong types."""
    return {name: _checked(name, value, known, who) for name, value in values.items()}


def _checked(name: str, value: object, known: dict[str, Parameter], who: str) -> object:
    if name not in known:
        raise UserError(f"There is no parameter '{name}' in {who}; {did_you_mean(name, known)}")
    wanted = type(known[name].default)
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise UserError(f"Parameter '{name}' of {who} takes {TYPES[wanted]}, not {value!r}.")
    return value


def split(text: str) -> tuple[str, str]:
    """'name=value' as a pair; UserError if there is no '='."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UserError(f"Write '{text}' as name=value.")
    return name.strip(), value.strip()


def literal(text: str, default: object) -> object:
    """A command-line value: text where the default is text, else a TOML value (1e-4, true, [1])."""
    if isinstance(default, str):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
