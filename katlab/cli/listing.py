"""`katlab ls` and `katlab params`: runs and their stages; a stage's parameters and settings."""

import argparse
from collections import Counter
from pathlib import Path

from rich.table import Column
from rich.text import Text

from katlab.cli import given
from katlab.cli.parser import Commands, command
from katlab.lab import identity, overview, parameters, profiles, stages
from katlab.lab.console import plural, table
from katlab.lab.progress import seconds

# Which headline figure is a run's accuracy: the first of these that it has.
ACCURACY = (("evaluation", "final_auto_accuracy"), ("step_srpo", "accuracy"))


def register(commands: Commands) -> None:
    """Add `ls` and `params`."""
    ls = command(
        commands, "ls", "list runs, or the stages of one", _ls,
        "katlab ls", "katlab ls demo", "katlab ls demo --json",
    )  # fmt: skip
    ls.add_argument("run", nargs="?", default="", help="this run by its stages (default: all runs)")
    given.as_json(ls)

    params = command(
        commands, "params", "show the parameters and settings of a stage", _params,
        "katlab params 05", "katlab params step --profile proxy-1.5b",
    )  # fmt: skip
    params.add_argument("stage", metavar="STAGE", help="number, name or the beginning of one")
    params.add_argument(
        "--profile", default="nano", help="a profile or a TOML file (default: %(default)s)"
    )
    given.as_json(params)


def _ls(options: argparse.Namespace) -> None:
    if options.run:
        one = described(given.run_folder(options.run))
        given.print_json(one) if options.json else print(_stages(one))
        return
    outputs = stages.outputs()
    begun = {path.parents[1] for path in outputs.glob("[!.]*/*/run.json")}
    begun |= {path.parent for path in outputs.glob(f"[!.]*/{identity.FILE}")}
    folders = sorted(begun)
    every = [described(folder) for folder in folders]
    if options.json:
        given.print_json(every)
    elif not every:
        print("No runs yet; make the first with: katlab run")
    else:
        facts = ("profile", "seed", "stages", "accuracy")
        run, last = (
            Column(name, overflow="fold", min_width=14) for name in ("run", "overrides")
        )  # what may go on in a second line
        head = (run, *(Column(name, no_wrap=True) for name in facts), last)
        print(table(head, map(_row, every)))


def described(folder: Path) -> dict:
    """`overview.run` and the run's accuracy, None before it is known."""
    one = overview.run(folder)
    figures = {profiles.section(stage["stage"]): stage["headline"] for stage in one["stages"]}
    known = (figures.get(name, {}).get(key) for name, key in ACCURACY)
    return {**one, "accuracy": next((value for value in known if value is not None), None)}


def _row(one: dict) -> tuple[str | Text, ...]:
    """A run in one line; the overrides without their sections."""
    states = Counter(stage["state"] for stage in one["stages"])
    done, total = states.pop("done", 0), len(stages.discover())
    told = [f"{done} done" if done >= total else f"{done}/{total} done"]
    told += [
        f"{stage['stage'][:2]} {stage['state']}"
        for stage in one["stages"]
        if stage["state"] in states
    ]
    for mark in ("stale", "taken_from"):
        if count := sum(bool(stage[mark]) for stage in one["stages"]):
            told.append(f"{count} {mark.partition('_')[0]}")
    bad = bool(states) or any(stage["stale"] for stage in one["stages"])
    short = _overrides(one["overrides"], sections=False)
    shown = Text(", ".join(told), style="yellow" if bad else "")
    return (one["run"], _profile(one), _either(one["seed"]), shown, _share(one), short)


def _stages(one: dict) -> str:
    """A run stage by stage, earlier attempts below their stage."""
    run = stages.outputs() / one["run"]
    rows = []
    for stage in one["stages"]:
        rows.append(_stage(stage, _note(stage)))
        for name in stage["attempts"]:
            rows.append(_stage(overview.stage(run / name), "an earlier attempt"))
    lacking = {stage.name for stage in stages.discover()} - {row[0] for row in rows}
    rows += [(name, "not run", "", "", "") for name in lacking]
    facts = (
        f"{one['run']}: profile {_profile(one)} · seed {_either(one['seed'])} · "
        f"overrides {_overrides(one['overrides']) or 'none'}\n"
        f"accuracy {_share(one)} · {seconds(one['seconds'])} of work in this run"
    )
    head = ("stage", "state", Column("own time", justify="right"), "begun", "")
    return f"{facts}\n\n{table(head, sorted(rows))}"


def _stage(stage: dict, note: str) -> tuple[str, ...]:
    spent = "–" if stage["seconds"] is None else seconds(stage["seconds"])
    begun = stage["started"][:16].replace("T", " ")
    return (stage["stage"], stage["state"], spent, begun, note)


def _note(stage: dict) -> str:
    notes = [f"stale: {', '.join(need[:2] for need in stage['stale'])} is newer"]
    notes = notes if stage["stale"] else []
    if stage["taken_from"]:
        notes.append(f"taken from {stage['taken_from']}")
    elif stage["error"]:
        notes.append(stage["error"])
    elif stage["claims"]:
        notes.append(f"{stage['claims_held']} of {plural(stage['claims'], 'claim')} held")
    return ", ".join(notes)


def _overrides(overrides: dict | list, sections: bool = True) -> str:
    """Overrides as on a command line; several sets where a run's stages disagree."""
    if isinstance(overrides, list):
        return " | ".join(_overrides(one, sections) or "none" for one in overrides)
    named = {key if sections else key.rpartition(".")[2]: v for key, v in overrides.items()}
    return " ".join(f"{key}={value}" for key, value in named.items())


def _profile(one: dict) -> str:
    """The profile's name; of a TOML file without its folders."""
    given = one["profile"] if isinstance(one["profile"], list) else [one["profile"]]
    return " | ".join(Path(name).name for name in given)


def _either(value: object) -> str:
    return " | ".join(map(str, value)) if isinstance(value, list) else str(value)


def _share(one: dict) -> str:
    return "–" if one["accuracy"] is None else f"{100 * one['accuracy']:.1f} %"


def _params(options: argparse.Namespace) -> None:
    stage = stages.find(options.stage)
    section = profiles.section(stage.name)
    settings = profiles.table(options.profile).get(section, {})
    known = parameters.of(stage.name)
    if options.json:
        told = {
            "stage": stage.name,
            "profile": options.profile,
            "parameters": {name: vars(one) for name, one in known.items()},
            "settings": {f"{section}.{key}": v for key, v in profiles.flat(settings).items()},
        }
        given.print_json(told)
        return
    rows = [(name, repr(one.default), one.help) for name, one in known.items()]
    print(f"{stage.name}\n\n{table(('parameter (-p)', 'default', ''), rows)}")
    if settings:
        values = [(f"{section}.{key}", repr(v)) for key, v in profiles.flat(settings).items()]
        print(f"\n{table(('setting (-o)', f'in profile {options.profile}'), values)}")
