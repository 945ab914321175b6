"""The parameters cell of a notebook, read strictly (papermill only warns about a misspelt name).

A cell tagged `parameters` assigns plain literals (str, int, float, bool, list, dict; never None);
the comment behind one is its help. Command-line values take the type of the default.

Usage:  parameters.declared(path)["seed"].default
"""

import ast
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from katlab import UserError
from katlab.lab.profiles import did_you_mean

TYPES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
TYPES |= {list: "a list", dict: "a table"}


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell."""

    name: str
    default: str | int | float | bool | list | dict
    help: str


def declared(path: Path) -> dict[str, Parameter]:
    """The parameters of a notebook, in order.

    Raises UserError if there is not exactly one parameters cell or if it is more than literals.
    """
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    tagged = [c for c in cells if "parameters" in c["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise UserError(
            f"{path.name} has {len(tagged)} cells tagged 'parameters'; it must have exactly one."
        )
    source = "".join(tagged[0]["source"])
    found = {}
    for node in ast.parse(source).body:
        name, value = _assignment(node, path)
        comment = source.splitlines()[node.end_lineno - 1][node.end_col_offset :]
        found[name] = Parameter(name, value, comment.partition("#")[2].strip())
    return found


def _assignment(node: ast.stmt, path: Path) -> tuple[str, Any]:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    value = getattr(node, "value", None)
    if len(targets) == 1 and isinstance(targets[0], ast.Name) and value is not None:
        try:
            literal = ast.literal_eval(value)
        except ValueError:
            literal = None
        if type(literal) in TYPES:
            return targets[0].id, literal
    raise UserError(
        f"Line {node.lineno} of the parameters cell of {path.name} is not 'name: type = literal'."
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
