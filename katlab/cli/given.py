"""What several commands take from the line: a run's name; profile, seed and overrides of a run.

Usage:  given.options(command);  given.values(options, chosen)
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from katlab.lab import parameters, profiles, records, stages

JSON = TypeAdapter(Any, config=ConfigDict(ser_json_inf_nan="null"))


def options(command: argparse.ArgumentParser) -> None:
    """Add --profile, --run, --seed, -p and -o."""
    what = command.add_argument_group("what to run")
    what.add_argument(
        "--profile", default=None, help="a name or a TOML file (default: the run's own, or nano)"
    )
    what.add_argument("--run", default=None, help="folder under outputs/ (default: demo)")
    what.add_argument("--seed", type=int, default=None, help="default: the run's own, or 0")
    what.add_argument(
        "-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE",
        help="any other parameter of the notebooks",
    )  # fmt: skip
    what.add_argument(
        "-o", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE",
        help="a value of the profile, as in step_srpo.steps=50",
    )  # fmt: skip


def as_json(command: argparse._ActionsContainer) -> None:
    """Add --json."""
    command.add_argument(
        "--json", action="store_true", help="one JSON document on stdout, nothing else"
    )


def print_json(value: object) -> None:
    """One JSON document; NaN and infinity, which JSON does not have, are null."""
    print(JSON.dump_json(value, indent=1).decode())


def values(options: argparse.Namespace, chosen: Sequence[stages.Stage]) -> dict[str, object]:
    """Notebook parameters from the command line, typed by the notebooks and by the profile."""
    known: dict[str, parameters.Parameter] = {}
    for stage in chosen:
        known |= parameters.of(stage.name)
    named = {"profile": options.profile, "run": options.run, "seed": options.seed}
    values = {key: value for key, value in named.items() if value is not None}
    for name, text in map(parameters.split, options.parameters):
        default = known[name].default if name in known else ""
        values[name] = parameters.literal(text, default)
    if str(values.get("profile", "")).endswith(".toml"):  # kernels start in notebooks/
        values["profile"] = str(Path(values["profile"]).resolve())
    if options.overrides:
        table = profiles.table(values.get("profile", known["profile"].default))
        values["overrides"] = typed(options.overrides, table)
    return values


def typed(overrides: Sequence[str], table: dict) -> dict[str, object]:
    """{"section.key": value} of -o SECTION.KEY=VALUE, typed by a profile's table."""
    pairs = map(parameters.split, overrides)
    return {name: parameters.literal(text, lookup(table, name)) for name, text in pairs}


def run_folder(run: str) -> Path:
    """The folder of a run by its name (which may not exist); UserError for no name of a run."""
    records.check_name(run)
    return stages.outputs() / run


def lookup(table: dict, dotted: str) -> object:
    """The value of a profile's table under a dotted key; an empty table if there is none."""
    for key in dotted.split("."):
        table = table.get(key, {}) if isinstance(table, dict) else {}
    return table
