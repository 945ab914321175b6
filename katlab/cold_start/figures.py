"""Figures of stage 04: who votes for thinking, and the first decisions.

stage.figure(figures.votes(voted), "votes", "Hard queries vote think-on.")
"""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from katlab.cold_start.votes import spelled
from katlab.plots import INK, OFF, ON, START, bars, by_difficulty, legend


def votes(voted: pd.DataFrame) -> Figure:
    """Share of queries that vote think-on, by category and difficulty."""
    table = voted.assign(on=voted["mode"].eq("on")).pivot_table("on", "category", "difficulty")
    figure, axis = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    sns.heatmap(table, annot=True, fmt=".0%", cmap="crest", vmin=0, vmax=1, ax=axis)
    axis.grid(False)
    axis.set(title="Share of queries that vote think-on", xlabel="difficulty", ylabel="")
    return figure


def passed(voted: pd.DataFrame) -> Figure:
    """Pass rates of the votes by difficulty (95 % intervals): a line per mode, or per voter."""
    figure, axis = plt.subplots(figsize=(6.4, 3.0), layout="constrained")
    for name in voted["passed"].iloc[0]:
        rates = voted.assign(rate=[passed[name] for passed in voted["passed"]])
        rates = rates.dropna(subset="rate").astype({"rate": float})
        colour = ON if name.endswith("on") else OFF
        style = "--" if name.startswith("teacher") else "-"
        label = spelled(name)
        by_difficulty(axis, rates, "rate", color=colour, linestyle=style, label=label)
    axis.set(title="How often the votes' outputs are right", ylabel="pass rate", ylim=(0, 1.05))
    legend(axis)
    return figure


def decisions(evaluated: pd.DataFrame) -> Figure:
    """Think-on rate on held-out queries by difficulty (95 % intervals), and over all."""
    rates = evaluated.assign(on=evaluated["mode"].eq("on").astype(float))
    figure, axis = plt.subplots(figsize=(6.4, 3.0), layout="constrained")
    bars(axis, rates, "on", "difficulty", color=START)
    axis.axhline(rates["on"].mean(), color=INK, linewidth=1, linestyle="--", label="over all")
    axis.set(title="Decisions of the cold start on held-out queries", ylabel="think-on rate")
    axis.set_ylim(0, 1.05)
    legend(axis)
    return figure
