"""Ablations: forks of finished runs by a list of settings, and what each comes to in one table.

The list is data (ablations.toml). Stages above a change are taken over by link, so a row costs 05
and 06, and one of the cold start 04 as well. Rows are pooled over the runs' seeds (`pooling`).

    rows = ablations.plan(["demo"]);  print(console.table(ablations.HEAD, ablations.table(rows)))
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from katlab import UserError
from katlab.compare_runs import pooling
from katlab.compare_runs.variants import SAMPLED
from katlab.evaluation.routing import pick
from katlab.evaluation.stage import load
from katlab.evaluation.systems import AFTER, BEFORE
from katlab.lab import identity, overview, pipeline, profiles, stages, steps, variants
from katlab.lab.settings import did_you_mean
from katlab.lab.variants import Fork
from katlab.review import accepted

LIST = Path(__file__).with_name("ablations.toml")
HEAD = ("", "accuracy, %", "tokens", "thinks, %", "judge", "off", "on")
TOLD = """\
Final models of stage 06 with 95 % intervals. thinks: at the easiest and at the
hardest difficulty; judge: % of decisions that its words name; off, on: points
of accuracy over the cold start with the mode forced, * where the interval
leaves out 0."""


@dataclass(frozen=True)
class Row:
    """An ablation: its name, the settings that it changes, and a run for each run it is made of."""

    name: str
    overrides: dict[str, Any]
    forks: list[Fork]

    @property
    def own(self) -> list[Fork]:
        """The forks that are not the run itself."""
        return [fork for fork in self.forks if fork.told]

    @property
    def made(self) -> bool:
        """Whether stage 06 of all its runs is there."""
        return all((_run(fork.run) / SAMPLED / "summary.json").is_file() for fork in self.forks)

    @property
    def from_the_start(self) -> bool:
        """Whether it has a cold start of its own."""
        return any(not key.startswith("step_srpo.") for key in self.overrides)


def listed(path: Path = LIST) -> dict[str, dict[str, Any]]:
    """The list's rows: settings by dotted key; UserError for a file that is no such list."""
    if not path.is_file():
        raise UserError(f"There is no list of ablations {path}; give a TOML file as --list.")
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"The list {path} is not valid TOML: {error}.") from error
    for name, settings in found.items():
        if not isinstance(settings, dict) or not settings:
            raise UserError(
                f"Row '{name}' of {path} is to be a table with a setting, such as "
                'step_srpo.omega = 0.1 below ["omega 0.1"].'
            )
    return {name: profiles.flat(settings) for name, settings in found.items()}


def plan(runs: Sequence[str], only: Sequence[str] = (), path: Path = LIST) -> list[Row]:
    """The rows of the list, or those named, each with its forks; nothing is written.

    Raises UserError for an unknown row or setting, and as `variants.plan` does.
    """
    rows = listed(path)
    for name in only:
        if name not in rows:
            raise UserError(f"There is no row '{name}' in {path}; {did_you_mean(name, [*rows])}")
    return [
        Row(name, settings, [_fork(run, settings) for run in runs])
        for name, settings in rows.items()
        if not only or name in only
    ]


def _fork(run: str, settings: dict[str, Any]) -> Fork:
    kept = identity.read(_run(run)) if _run(run).is_dir() else None
    profile = (kept or identity.Identity()).profile
    typed = profiles.flat(profiles.table(profile, settings))
    settings = {key: typed[key] for key in settings}  # 0 of a number is 0.0, as in the profile
    fork = variants.plan(run, identity.name(run, settings), settings)
    return fork if fork.told else replace(fork, run=run)


def check(runs: Sequence[str]) -> list[str]:
    """The runs by seed, if they are finished, repeats, and as code and files are now.

    UserError otherwise: a fork of an older run would differ from it in more than its settings.
    """
    found = accepted.repeats(stages.outputs(), runs)
    chosen = pipeline.select(end=SAMPLED[:2])
    for run in found:
        filled = pipeline.arguments(chosen, {"run": run.name})
        moved = [
            step.folder.name[:2]
            for step in steps.rehearse(chosen, filled, force=False)
            if step.act not in (steps.UNCHANGED, steps.PAGE)
        ]
        if moved:
            raise UserError(
                f"Code or files changed since run '{run.name}' was made ({', '.join(moved)}); "
                f"bring it up to date with: katlab run --run {run.name}"
            )
    return [run.name for run in found]


def controls(runs: Sequence[str], path: Path = LIST) -> list[str]:
    """The forks of these runs that ablations have begun, for a review; rows of none are left out.

    Where a row was made of one run, the forks of all are named.
    """
    found: list[str] = []
    for row in plan(runs, path=path):
        if any(_run(fork.run).is_dir() for fork in row.own):
            found += [fork.run for fork in row.own]
    return list(dict.fromkeys(found))


def table(runs: Sequence[str], rows: Sequence[Row]) -> list[list[str]]:
    """The runs' own cold start and final model, then each row; texts in the order of `HEAD`."""
    own = [load(_run(run) / SAMPLED) for run in runs]
    shown = [_told(BEFORE, own, BEFORE), _told(AFTER, own, AFTER)]
    for row in rows:
        if not row.made:
            shown.append([row.name, "not run", *[""] * (len(HEAD) - 2)])
            continue
        found = [load(_run(fork.run) / SAMPLED) for fork in row.forks]
        if row.own and row.from_the_start:
            shown.append(_told(f"{row.name}, {BEFORE}", found, BEFORE))
        name = row.name if row.own else f"{row.name} (as it is)"
        shown.append(_told(name, found, AFTER))
    return shown


def minutes(rows: Sequence[Row]) -> float:
    """What the forks' own work took, whenever it was done; stages taken over took nothing."""
    names = {fork.run for row in rows for fork in row.own if _run(fork.run).is_dir()}
    return sum(overview.run(_run(name))["seconds"] for name in names) / 60


def _told(name: str, found: Sequence[tuple[pd.DataFrame, dict]], system: str) -> list[str]:
    sides = [pick(arms, system, "auto") for arms, _ in found]
    right, tokens = (pooling.over(sides, column) for column in ("correct", "tokens"))
    if right is None or tokens is None:
        return [name, "unscorable", *[""] * (len(HEAD) - 2)]
    low, high = (100 * end for end in (right.low, right.high))
    rates = [side["thinks"].astype(float).groupby(side["difficulty"]).mean() for side in sides]
    ends = [100 * fmean(rate.iloc[place] for rate in rates) for place in (0, -1)]
    named = fmean(judged[system]["judge_agreement"] for _, judged in found)
    return [
        name,
        f"{100 * right.value:.1f} [{low:.1f}, {high:.1f}]",
        f"{tokens.value:.1f}",
        "{:.0f} {:.0f}".format(*ends),
        f"{100 * named:.0f}",
        *(_change(found, arm) if system == AFTER else "" for arm in ("off", "on")),
    ]


def _change(found: Sequence[tuple[pd.DataFrame, dict]], arm: str) -> str:
    pairs = [(pick(arms, AFTER, arm), pick(arms, BEFORE, arm)) for arms, _ in found]
    drawn: np.ndarray = 100 * pooling.changes(pairs, "correct")
    low, high = np.quantile(drawn[1:], [0.025, 0.975])
    return f"{drawn[0]:+.1f}{'*' * bool(low > 0 or high < 0)}".replace("-", "−")


def _run(name: str) -> Path:
    return stages.outputs() / name
