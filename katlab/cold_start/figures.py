"""Figures of stage 04: who votes for thinking, and the first decisions.

stage.figure(figures.votes(voted), "votes", "Hard queries vote think-on.")
"""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from katlab.plots import INK, START, bars, legend


def votes(voted: pd.DataFrame) -> Figure:
    """Share of queries whose majority says think-on, by category and difficulty."""
    table = voted.assign(on=voted["mode"].eq("on")).pivot_table("on", "category", "difficulty")
    figure, axis = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    sns.heatmap(table, annot=True, fmt=".0%", cmap="crest", vmin=0, vmax=1, ax=axis)
    axis.grid(False)
    axis.set(title="Share of queries that vote think-on", xlabel="difficulty", ylabel="")
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
