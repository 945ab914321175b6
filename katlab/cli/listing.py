"""`katlab ls` and `katlab params`: runs and their stages; a stage's parameters and settings."""

import argparse

from katlab.cli import given
from katlab.cli.parser import Commands, command
from katlab.lab import parameters, profiles, runs, stages


def register(commands: Commands) -> None:
    """Add `ls` and `params`."""
    ls = command(commands, "ls", "list runs and the state of their stages", _ls)
    ls.add_argument("run", nargs="?", default="", help="only this run")

    params = command(commands, "params", "show the parameters and settings of a stage", _params)
    params.add_argument("stage")
    params.add_argument("--profile", default="nano")


def _ls(options: argparse.Namespace) -> None:
    from katlab.lab.progress import seconds

    folder = stages.outputs()
    chosen = [given.run_folder(options.run)] if options.run else sorted(
        {path.parents[1] for path in folder.glob("*/*/run.json")}
    )  # fmt: skip
    if not chosen:
        print("No runs yet; make the first with: katlab run")
    for run in chosen:
        folders = runs.stage_folders(run)  # a mistake in the name shows before anything else
        print(run.name)
        for stage in folders:
            record = runs.read(stage)
            spent = seconds(record["seconds"]) if "seconds" in record else ""
            print(
                f"  {stage.name:22} {runs.state(record):12} {spent:>12}  {record['started'][:16]}"
            )


def _params(options: argparse.Namespace) -> None:
    stage = stages.find(options.stage)
    table = profiles.table(options.profile)  # its mistakes show before anything else
    print(f"{stage.name}: parameters (-p name=value)")
    for name, p in parameters.of(stage.name).items():
        print(f"  {name:12} {p.default!r:12} {p.help}")
    section = profiles.section(stage.name)
    settings = table.get(section, {})
    if settings:
        print(f"settings of profile {options.profile} (-o {section}.name=value)")
    for key, value in profiles.flat(settings).items():
        print(f"  {key:32} {value!r}")
