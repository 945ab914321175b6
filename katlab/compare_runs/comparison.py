"""Runs set against the first: settings, figures of stage 06's samples, claims, headline figures.

Runs that differ in their seed alone are pooled. What is not there is said, never filled in.

Usage:  found = compare(outputs, ["demo", "idea"]);  found.rows[0].change
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from katlab import UserError
from katlab.compare_runs import pooling, variants
from katlab.compare_runs.pooling import Estimate
from katlab.compare_runs.variants import Run, Variant
from katlab.lab import compare as tables

MEASURES = {  # column of the samples: name and unit, factor
    "correct": ("accuracy, %", 100),
    "tokens": ("tokens", 1),
    "thinks": ("think-on rate, %", 100),
    "well_formed": ("well formed, %", 100),
}
DECIDES, TOLD = ("correct", "tokens", "thinks", "well_formed"), ("correct", "tokens")
GROUPS = (  # heading as in Table 4, system, arm, measures
    ("cold start, auto", "cold start", "auto", DECIDES[:3]),
    ("final, auto", "final", "auto", DECIDES),
    ("final, forced on", "final", "on", TOLD),
    ("final, forced off", "final", "off", TOLD),
)
ADDED = "final − cold start"  # what RL adds in each run, the model deciding


@dataclass(frozen=True)
class Row:
    """One figure of one variant: its value and its difference to the first variant.

    Of the group `ADDED` the value is a difference itself, paired within each run, and nothing more.
    """

    group: str
    measure: str
    variant: str
    value: Estimate | None
    change: Estimate | None
    of_seeds: int


@dataclass(frozen=True)
class Comparison:
    """Everything that the text, the JSON and the page show."""

    runs: list[Run]
    variants: list[Variant]
    settings: pd.DataFrame
    rows: list[Row]
    claims: pd.DataFrame
    headline: pd.DataFrame


def compare(outputs: Path, names: Sequence[str]) -> Comparison:
    """Read the runs and compare them; UserError for a run that is not there or has no stage."""
    names = list(dict.fromkeys(names))
    found = variants.group(outputs, names)
    by_name = {run.name: run for variant in found for run in variant.runs}
    runs_ = [by_name[name] for name in names]
    for run in runs_:
        if not run.settings:
            raise UserError(
                f"Run '{run.name}' has begun no stage; run: katlab run --run {run.name}"
            )
    headline, claims = tables.headline(outputs, names), tables.claims(outputs, names)
    shown = headline.unstack("run") if len(headline) else headline
    return Comparison(
        runs_,
        found,
        variants.apart(runs_),
        [*(row for group in GROUPS for row in _rows(found, *group)), *_added(found)],
        claims[claims["kind"] != "fact"],
        pd.DataFrame(shown).reindex(columns=names),
    )


def _rows(found: Sequence[Variant], group: str, system: str, arm: str, columns: tuple) -> list[Row]:
    pick = partial(_pick, system=system, arm=arm)
    rows = []
    for column in columns:
        name, factor = MEASURES[column]
        for variant in found:
            value = pooling.mean(variant, column, pick)
            change = None
            if variant is not found[0]:
                change = pooling.difference(found[0], variant, column, pick)
            scaled = (_scaled(value, factor), _scaled(change, factor))
            if any(pooling.mean(one, column, pick) for one in found):
                rows.append(Row(group, name, variant.name, *scaled, len(variant.runs)))
    return rows


def _added(found: Sequence[Variant]) -> list[Row]:
    """What RL adds: the final student minus the cold start of the same runs, both deciding."""
    before, after = (partial(_pick, system=one, arm="auto") for one in ("cold start", "final"))
    rows = []
    for column in DECIDES[:3]:
        name, factor = MEASURES[column]
        values = [pooling.within(one, column, before, after) for one in found]
        if any(values):
            rows += [
                Row(ADDED, name, variant.name, _scaled(value, factor), None, len(variant.runs))
                for variant, value in zip(found, values, strict=True)
            ]
    return rows


def _pick(samples: pd.DataFrame, system: str, arm: str) -> pd.DataFrame:
    return samples[(samples["system"] == system) & (samples["arm"] == arm)]


def _scaled(one: Estimate | None, factor: int) -> Estimate | None:
    if one is None:
        return None
    ends = tuple(factor * end for end in one.spread)
    values = (factor * one.value, factor * one.low, factor * one.high)
    return Estimate(*values, one.prompts, (ends[0], ends[1]), one.paired)


def notes(found: Comparison) -> list[str]:
    """What a reader must know before the figures, in sentences."""
    said = []
    for variant in found.variants:
        if len(variant.runs) > 1:
            seeds = ", ".join(map(str, variant.seeds))
            names = ", ".join(run.name for run in variant.runs)
            said.append(
                f"{names} differ in their seed alone ({seeds}): pooled as {variant.name}, means of"
                " the seeds with intervals over seeds and prompts."
            )
    first = found.variants[0]
    for variant in found.variants[1:]:
        shared = [str(run.seed) for run, _ in pooling.matched(first, variant)]
        if 0 < len(shared) < max(len(first.runs), len(variant.runs)):
            alone = f"seed{'s' * (len(shared) > 1)} {', '.join(shared)} alone"
            said.append(f"{variant.name} is set against {first.name} over {alone}.")
    for run in found.runs:
        if run.stale:
            stages = ", ".join(name[:2] for name in run.stale)
            said.append(f"{run.name} is stale from an earlier stage on: {stages}.")
        if run.samples.empty:
            said.append(f"{run.name} has no stage 06, so it has none of the figures below.")
    changes = [row.change for row in found.rows if row.change]
    if changes and all(change.paired for change in changes):
        said.append("Differences are paired: over the prompts that both sides answered.")
    elif changes:
        said.append(
            "† not paired: the two sides answered no prompt in common, so the difference carries "
            "the luck of both draws of prompts."
        )
    return said


def disputed(claims: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The rows of claims on which the runs' verdicts differ."""
    verdicts = claims.assign(word=claims["held"].map(str)).groupby(["stage", "claim"])
    same = verdicts["word"].nunique().eq(1) & verdicts["run"].nunique().eq(len(names))
    kept = [not same[key] for key in zip(claims["stage"], claims["claim"], strict=True)]
    return claims[kept]
