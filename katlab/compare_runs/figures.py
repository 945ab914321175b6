"""Figures of runs side by side, each with its takeaway sentence.

Usage:  stage.figure(decision_figure(frame), "decisions", decided(frame))
"""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from katlab.lab import words
from katlab.lab.display import COLOURS, HELD
from katlab.plots import ANY, FINAL, START

DECIDED = {"cold start": START, "final": FINAL}


def claim_grid(frame: pd.DataFrame) -> Figure:
    """A grid of claims (rows) by runs (columns): held, not held, not applicable, or not run."""
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
    axes.set(xlim=(0, len(chosen) or 1), ylim=(len(rows) or 1, 0), xlabel="run")
    axes.set_title("Which claims each run reproduces")
    axes.tick_params(length=0)
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _short(claim: str) -> str:
    return claim if len(claim) <= 62 else claim[:61] + "…"


def decision_figure(frame: pd.DataFrame) -> Figure:
    """`decisions`: think-on rate, tokens and accuracy by difficulty, a line per run and system.

    Up to four runs have dashes of their own.
    """
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.1), layout="constrained")
    names = {"think_on": "think-on rate", "tokens": "tokens per response", "accuracy": "accuracy"}
    told = "run" if 1 < frame["run"].nunique() <= 4 else None
    for axis, (column, name) in zip(axes, names.items(), strict=True):
        axis.set(title=name, xlabel="difficulty", xticks=range(1, 6))
        if frame.empty:
            continue
        sns.lineplot(frame, x="difficulty", y=column, hue="system", units="run", estimator=None,
                     style=told, palette=DECIDED, marker="o", ax=axis,
                     legend=axis is axes[-1])  # fmt: skip
        axis.set(ylabel="")
        axis.set_ylim(0, None if column == "tokens" else 1.05)
    if not frame.empty:
        sns.move_legend(
            axes[-1], "upper left", bbox_to_anchor=(1, 1), title="" if told else "student"
        )
    figure.suptitle("Before and after Step-SRPO: one line per run, the model decides")
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


def moved_figure(ratios: pd.DataFrame) -> Figure:
    """`compare.spread`, one row per figure and one dot per run; at 1 a run equals the first."""
    figure, axes = plt.subplots(figsize=(8, 3.4))
    for run, values in ratios.items():
        axes.plot(values, range(len(ratios)), "o", label=run)
    axes.axvline(1, color=ANY, lw=1)
    labels = [f"{stage[:2]}  {words.label(stage, metric)[0]}" for stage, metric in ratios.index]
    axes.set_yticks(range(len(ratios)), labels)
    axes.set(title="Headline figures against the first run", xlabel=f"ratio to {ratios.columns[0]}")
    axes.legend(title="run")
    return figure


def moved_most(ratios: pd.DataFrame) -> str:
    """The takeaway sentence of `moved_figure`."""
    if ratios.shape[1] < 2 or ratios.empty:
        return "One run is nothing to compare; run another with --run NAME or --seed N."
    (stage, metric), row = ratios.index[0], ratios.iloc[0]
    return (
        f"{words.label(stage, metric)[0]} of {stage[:2]} moved most: between {row.min():.2f} and "
        f"{row.max():.2f} times the first run's value."
    )
