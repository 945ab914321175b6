"""The figures of a review's systems: all prompts together, and each set of a mixture apart.

A system is a list of samples, a table per run; means have 95 % intervals over seeds and problems.

    samples = measured.named(frames, names);  measured.systems(runs, samples, names)
"""

from collections.abc import Collection, Sequence
from statistics import fmean
from typing import Any

import pandas as pd

from katlab.compare_runs import pooling
from katlab.compare_runs.variants import Run
from katlab.evaluation import scores
from katlab.review.accepted import record, summarized

OWN = {  # of a system that judges: figure, its place in stage 06's summary.json
    "judge_agreement": "judge_agreement",
    "leakage": "answer_tokens_off_minus_on",  # forced off, in tokens: thinking in the answer
    "hacking": "hacking",  # share of think-off outputs that think in the open
}


def systems(
    runs: Sequence[Run], samples: dict[str, list[pd.DataFrame]], names: dict[str, str]
) -> dict[str, dict]:
    """Figures of all systems (`named`, by `names`)."""
    judged = [summarized(run) for run in runs]
    t_max = record(runs[0])["settings"]["max_new_tokens"]
    table: dict[str, dict] = {}
    own = {told: name for name, told in names.items()}
    for told, sides in samples.items():
        row: dict[str, Any] = _costs(sides) | {"think_on": _think_on(sides)}
        counted = all("thought_tokens" in side for side in sides)
        values = [scores.auc_oaa(side, t_max) for side in sides] if counted else []
        row["auc_oaa"] = round(fmean(values), 4) if values else None
        for key, place in OWN.items():
            values = [_first(one.get(own.get(told, told), {}).get(place)) for one in judged]
            row[key] = None if None in values else round(fmean(values), 4)
        table[told] = row
    return table


def named(
    frames: Sequence[dict[str, pd.DataFrame]],
    names: dict[str, str],
    only: Collection[str] = (),
) -> dict[str, list[pd.DataFrame]]:
    """The samples of each system, a table per run, under the name it is told by.

    A system that one of the runs lacks is left out.
    """
    return {
        names.get(name, name): [found[name] for found in frames]
        for name in frames[0]
        if all(name in found for found in frames) and (not only or name in only)
    }


def apart(samples: dict[str, list[pd.DataFrame]]) -> dict[str, dict]:
    """By set of a mixture: n, and the figures of all systems (`named`); {} of other queries."""
    first = next(iter(samples.values()))
    if "set" not in first[0]:
        return {}
    # By prompt: a control that is an expectation has no such column.
    homes = [one.drop_duplicates("id").set_index("id")["set"] for one in first]
    made: dict[str, dict] = {}
    for of in sorted(pd.concat(homes).dropna().unique()):
        figures = {}
        for name, sides in samples.items():
            rows = [one[one["id"].map(home).eq(of)] for one, home in zip(sides, homes, strict=True)]
            figures[name] = _costs(rows) | {"thinks": _mean(rows, "thinks")}
        n = sum(int(home.eq(of).sum()) for home in homes)
        made[of] = {"n": n, "systems": figures}
    return made


def _costs(sides: Sequence[pd.DataFrame]) -> dict[str, Any]:
    return {"accuracy": _mean(sides, "correct"), "tokens": _mean(sides, "tokens")}


def _mean(sides: Sequence[pd.DataFrame], column: str) -> list[float] | None:
    found = pooling.over(sides, column)
    return rounded(found.value, found.low, found.high) if found else None


def _think_on(sides: Sequence[pd.DataFrame]) -> dict[str, float]:
    """Mean over seeds of the share that thinks, by difficulty."""
    rates = [s["thinks"].astype(float).groupby(s["difficulty"]).mean() for s in sides]
    means = pd.concat(rates, axis=1).mean(axis=1).sort_index()
    return {str(level): round(float(rate), 4) for level, rate in means.items()}


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value


def rounded(*values: float) -> list[float]:
    """Floats of a summary, four places each."""
    return [round(float(value), 4) for value in values]
