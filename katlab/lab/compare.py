"""Runs side by side, read from their folders.

Usage:  compare.headline(outputs, ["a", "b"]).unstack("run")
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from katlab.lab import runs, words
from katlab.lab.console import verdicts
from katlab.lab.runs import stage_folders

NEAR_ZERO = 0.05


def names(outputs: Path) -> list[str]:
    """Every run that has begun a stage, oldest first."""
    started: dict[str, str] = {}
    for run in (path for path in outputs.glob("[!.]*") if path.is_dir()):
        for folder in stage_folders(run):
            begun = runs.read(folder)["started"]
            started[run.name] = min(begun, started.get(run.name, begun))
    return sorted(started, key=started.get)


def states(outputs: Path, chosen: Sequence[str]) -> pd.DataFrame:
    """One row per run: profile, seed, overrides, commit, seconds, its stages' states."""
    rows = {}
    for run in chosen:
        folders = stage_folders(outputs / run)
        records = [runs.read(folder) for folder in folders]
        states = {record["id"]: runs.state(record) for record in records}
        given = [r["parameters"] for r in records]
        overrides = {f"{k} = {v}" for p in given for k, v in p.get("overrides", {}).items()}
        rows[run] = {
            "profile": " ".join(sorted({p["profile"] for p in given})),
            "seed": " ".join(sorted({str(r["seed"]) for r in records})),
            "overrides": ", ".join(sorted(overrides)),
            "commit": " ".join(sorted({r["git"].get("sha", "")[:8] for r in records})),
            "seconds": sum(record.get("seconds", 0.0) for record in records),
            "done": list(states.values()).count("done"),
            "stopped": ", ".join(k for k, v in states.items() if v not in ("done", "running")),
            "stale": ", ".join(one.name for one in folders if runs.stale(one)),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("run")


def headline(outputs: Path, chosen: Sequence[str]) -> pd.Series:
    """Headline figures, indexed by (stage, metric, run)."""
    values = {}
    for run in chosen:
        for folder in stage_folders(outputs / run):
            for metric, value in runs.read(folder)["headline"].items():
                values[folder.name, metric, run] = value
    index = pd.MultiIndex.from_tuples(values, names=["stage", "metric", "run"])
    return pd.Series(list(values.values()), index=index, dtype=object)


def claims(outputs: Path, chosen: Sequence[str]) -> pd.DataFrame:
    """Verdict rows: run, stage, claim, reported, measured, held (True, False or None), kind."""
    rows = [
        {"run": run, "stage": folder.name, **row}
        for run in chosen
        for folder in stage_folders(outputs / run)
        for row in verdicts(folder)
    ]
    columns = ["run", "stage", "claim", "reported", "measured", "held", "kind"]
    return pd.DataFrame(rows, columns=columns).astype({"held": object})


def told(table: pd.DataFrame) -> pd.DataFrame:
    """A (stage, metric) x runs table of headline figures, under their labels, with their units."""
    rows = {}
    if table.empty:
        return table
    for (stage, metric), values in table.iterrows():
        name, unit = words.label(stage, metric)
        rows[stage[:2], name] = [words.told(value, unit) for value in values]
    index = pd.MultiIndex.from_tuples(rows, names=["stage", "figure"])
    return pd.DataFrame(list(rows.values()), index=index, columns=table.columns)


def spread(table: pd.DataFrame) -> pd.DataFrame:
    """Numeric rows of a (metrics x runs) table as ratios to its first run, most spread first.

    Rows that begin near zero, such as gains and loss changes, have no telling ratio: left out.
    """
    numbers = table.apply(pd.to_numeric, errors="coerce").dropna()
    first = numbers.iloc[:, 0]
    apart = first.abs() > NEAR_ZERO
    ratios = numbers[apart].div(first[apart], axis=0)
    order = (ratios.max(axis=1) - ratios.min(axis=1)).sort_values(ascending=False)
    return ratios.loc[order.index]
