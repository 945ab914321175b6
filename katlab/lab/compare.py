"""Runs side by side, read from their folders.

Usage:  compare.headline(outputs, ["a", "b"]).unstack("run")
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from katlab.lab import runs
from katlab.lab.console import verdicts
from katlab.lab.display import COLOURS, HELD
from katlab.lab.report import stage_folders

NEAR_ZERO = 0.05
DECIDED = {"cold start": "#94a3b8", "final": "#2563eb"}


def names(outputs: Path) -> list[str]:
    """Every run that has begun a stage, oldest first."""
    started = {}
    for path in outputs.glob("*/*/run.json"):
        begun = runs.read(path.parent)["started"]
        run = path.parents[1].name
        started[run] = min(begun, started.get(run, begun))
    return sorted(started, key=started.get)


def states(outputs: Path, chosen: Sequence[str]) -> pd.DataFrame:
    """One row a run: profile, seed, commit, seconds, and the state of each stage."""
    rows = {}
    for run in chosen:
        records = [runs.read(folder) for folder in stage_folders(outputs / run)]
        first = records[0]
        rows[run] = {
            "profile": first["parameters"]["profile"],
            "seed": first["seed"],
            "commit": first["git"].get("sha", "")[:8],
            "seconds": sum(record.get("seconds", 0.0) for record in records),
            "done": sum(record["state"] == "done" for record in records),
            "stopped": ", ".join(r["id"] for r in records if r["state"] not in ("done", "running")),
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
    """Verdict rows: run, stage, claim, reported, measured, held (True, False or None)."""
    rows = [
        {"run": run, "stage": folder.name, **row}
        for run in chosen
        for folder in stage_folders(outputs / run)
        for row in verdicts(folder)
    ]
    columns = ["run", "stage", "claim", "reported", "measured", "held"]
    return pd.DataFrame(rows, columns=columns).astype({"held": object})


def claim_table(frame: pd.DataFrame) -> str:
    """The same rows as a Markdown table with a column a run; ✓ held, ✗ not held."""
    marks = {True: " ✓", False: " ✗", None: ""}
    frame = frame.assign(shown=frame["measured"] + frame["held"].map(lambda held: marks[held]))
    frame = frame.sort_values("stage", kind="stable")
    chosen = list(dict.fromkeys(frame["run"]))
    shown = frame.set_index(["stage", "claim", "run"])["shown"].to_dict()
    rows = [["stage", "claim", "reported", *chosen], ["---"] * (3 + len(chosen))]
    for stage, claim, reported in dict.fromkeys(
        zip(frame["stage"], frame["claim"], frame["reported"], strict=True)
    ):
        own = [shown.get((stage, claim, run), "–") for run in chosen]
        rows.append([stage[:2], claim, reported, *own])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def claim_grid(frame: pd.DataFrame) -> Figure:
    """A grid of claims (rows) by runs (columns): held, not held, not applicable, or not run."""
    import matplotlib.pyplot as plt

    chosen = list(dict.fromkeys(frame["run"]))
    frame = frame.sort_values("stage", kind="stable")
    rows = list(dict.fromkeys(zip(frame["stage"], frame["claim"], strict=True)))
    figure, axes = plt.subplots(figsize=(4.5 + 1.3 * len(chosen), 0.6 + 0.34 * len(rows)))
    for entry in frame.itertuples():
        x, y = chosen.index(entry.run), rows.index((entry.stage, entry.claim))
        axes.add_patch(plt.Rectangle((x, y), 0.96, 0.9, color=COLOURS[entry.held], alpha=0.14))
        axes.text(x + 0.48, y + 0.45, HELD[entry.held], color=COLOURS[entry.held], fontsize=8,
                  ha="center", va="center")  # fmt: skip
    labels = [f"{stage[:2]}  {_short(claim)}" for stage, claim in rows]
    axes.set_yticks([y + 0.45 for y in range(len(rows))], labels, fontsize=8)
    axes.set_xticks([x + 0.48 for x in range(len(chosen))], chosen)
    axes.set(xlim=(0, len(chosen)), ylim=(len(rows), 0), xlabel="run")
    axes.set_title("Which claims each run reproduces")
    axes.tick_params(length=0)
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _short(claim: str) -> str:
    return claim if len(claim) <= 62 else claim[:61] + "…"


def decisions(outputs: Path, chosen: Sequence[str]) -> pd.DataFrame:
    """Means of the auto arm by run, system (cold start, final) and difficulty, from stage 06.

    Columns think_on and accuracy (shares) and tokens; no rows where nothing was evaluated.
    """
    keys = ["run", "system", "difficulty"]
    frames = []
    for path in (outputs / run / "06_evaluation" / "arms.jsonl" for run in chosen):
        if path.is_file():
            arms = pd.read_json(path, lines=True).query("arm == 'auto'")
            frames.append(arms.assign(run=path.parents[1].name, think_on=arms["mode"] == "on"))
    if not frames:
        return pd.DataFrame(columns=[*keys, "think_on", "tokens", "accuracy"])
    means = pd.concat(frames).rename(columns={"correct": "accuracy"}).groupby(keys)
    return means[["think_on", "tokens", "accuracy"]].mean().reset_index()


def decision_figure(frame: pd.DataFrame) -> Figure:
    """`decisions`: think-on rate, tokens and accuracy by difficulty, a line a run and system."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.1), layout="constrained")
    names = {"think_on": "think-on rate", "tokens": "tokens a response", "accuracy": "accuracy"}
    for axis, (column, name) in zip(axes, names.items(), strict=True):
        axis.set(title=name, xlabel="difficulty", xticks=range(1, 6))
        if frame.empty:
            continue
        sns.lineplot(frame, x="difficulty", y=column, hue="system", units="run", estimator=None,
                     palette=DECIDED, marker="o", ax=axis, legend=axis is axes[0])  # fmt: skip
        axis.set(ylabel="")
        axis.set_ylim(0, None if column == "tokens" else 1.05)
    figure.suptitle("Before and after Step-SRPO: a line a run, the model decides")
    return figure


def decided(frame: pd.DataFrame) -> str:
    """The takeaway sentence of `decisions`."""
    if frame.empty:
        return "No run has been evaluated yet; run stage 06."
    final = frame[frame["system"] == "final"].groupby("difficulty")["think_on"].mean()
    tokens = frame.groupby(["run", "system"])["tokens"].mean().unstack()
    saved = 1 - tokens["final"] / tokens["cold start"]
    low, high = f"{saved.min():.0%}", f"{saved.max():.0%}"
    return (
        f"Over {len(saved)} run{'s' * (len(saved) > 1)} Step-SRPO saves"
        f" {low if low == high else f'{low} to {high}'} of the tokens and thinks on"
        f" {final.iloc[0]:.0%} of the easiest and {final.iloc[-1]:.0%} of the hardest queries."
    )


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


def moved_most(ratios: pd.DataFrame) -> str:
    """The takeaway sentence of `spread`."""
    if ratios.shape[1] < 2 or ratios.empty:
        return "One run is nothing to compare; run another with --run NAME or --seed N."
    (stage, metric), row = ratios.index[0], ratios.iloc[0]
    return (
        f"{metric} of {stage} moved most: between {row.min():.2f} and {row.max():.2f} times the "
        "first run's value."
    )
