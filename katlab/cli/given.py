"""What several commands take from the line: a run's name; profile, seed and overrides of a run.

Usage:  given.options(command);  given.values(options, chosen)
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from katlab.lab import parameters, profiles, records, stages


def options(command: argparse.ArgumentParser) -> None:
    """Add --profile, --run, --seed, -p and -o."""
    what = command.add_argument_group("what to run")
    what.add_argument("--profile", default=None, help="nano (default), or another profile or TOML")
    what.add_argument("--run", default=None, help="folder under outputs/ (default: demo)")
    what.add_argument("--seed", type=int, default=None, help="default: 0")
    what.add_argument(
        "-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE",
        help="any other parameter of the notebooks",
    )  # fmt: skip
    what.add_argument(
        "-o", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE",
        help="a value of the profile, as in step_srpo.steps=50",
    )  # fmt: skip
    what.add_argument("--force", action="store_true", help="run even if nothing has changed")


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
