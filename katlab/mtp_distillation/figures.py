"""Figures of stage 03: the tokens that face each other, losses, forced modes, accepted drafts.

Report sections 3.1 and 3.3; colours tell arms or modes apart.

    stage.figure(figures.losses(log), "losses", "Cross-entropy falls.")
"""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from katlab.plots import DISTILLED, KD, MODES, bars, legend

ONE, CHUNK = "#99f6e4", "#fed7aa"  # grounds of dark text
ARMS = (KD, DISTILLED)


def alignment(groups: list[tuple[list[str], list[str]]]) -> Figure:
    """Groups of `alignment.pieces` side by side: one against one in teal, chunks in orange."""
    sides = [["|".join(side).replace("\n", "⏎") for side in group] for group in groups]
    single = [len(ours) == len(theirs) == 1 for ours, theirs in groups]
    figure, axis = plt.subplots(figsize=(11, 1.3))
    axis.set(title="Groups of tokens that cover the same bytes")
    axis.set_axis_off()
    axis.table(
        list(zip(*sides, strict=True)),
        rowLabels=["student", "teacher"],
        colWidths=[1.5 + max(map(len, pair)) for pair in sides],
        cellColours=[[ONE if one else CHUNK for one in single]] * 2,
        cellLoc="center",
        bbox=[0.07, 0.1, 0.93, 0.8],
    )
    for cell in axis.tables[0].get_celld().values():
        if cell.get_facecolor()[:3] == (1.0, 1.0, 1.0):
            cell.set_facecolor("none")  # the page's own ground
        else:
            cell.get_text().set_color("#111827")
    return figure


def losses(log: pd.DataFrame) -> Figure:
    """Next-token loss, distance to the teachers and MTP's loss by step; a row per log of an arm."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    colours = dict(zip(log["arm"].unique(), ARMS, strict=False))
    sns.lineplot(log, x="step", y="ce", hue="arm", palette=colours, ax=axes[0], legend=False)
    axes[0].set(title="next token", ylabel="cross-entropy, nats per token", yscale="log")
    column, label = distance(log)
    sns.lineplot(log, x="step", y=column, hue="arm", palette=colours, ax=axes[1], legend=False)
    axes[1].set(title="distance to the teachers", ylabel=label)
    sns.lineplot(log, x="step", y="mtp_ce_1", hue="arm", palette=colours, ax=axes[2])
    axes[2].set(title="MTP, one token further", ylabel="cross-entropy, nats per token")
    axes[2].set_yscale("log")
    legend(axes[2], "student")
    figure.suptitle("Losses of both students while they are distilled")
    return figure


def distance(log: pd.DataFrame) -> tuple[str, str]:
    """The column of the distance to the teachers and its label; KL where a teacher read along."""
    if "kl" in log:
        return "kl", "KL per paired token, nats"
    return "uld", "ULD per paired token (0 to 2)"


def forced(answers: pd.DataFrame) -> Figure:
    """Share right by difficulty, forced think-on and forced think-off, a bar per arm."""
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.4), layout="constrained", sharey=True)
    colours = dict(zip(answers["student"].unique(), ARMS, strict=False))
    for axis, mode in zip(axes, ("on", "off"), strict=True):
        rows = answers[answers["arm"] == mode]
        bars(axis, rows, "correct", "difficulty", "student", colours)
        axis.set(title=f"forced think-{mode}", ylabel="share right", ylim=(0, 1.05))
    legend(axes[1], "student")
    figure.suptitle("Right answers on command, by difficulty (95 % intervals)")
    return figure


def acceptance(drafts: pd.DataFrame) -> Figure:
    """Share of drafts that are the student's own greedy choice, by depth and mode."""
    figure, axis = plt.subplots(figsize=(5, 2.8), layout="constrained")
    shares = drafts.assign(accepted=drafts["accepted"] / drafts["tokens"])
    sns.barplot(shares, x="depth", y="accepted", hue="mode", palette=MODES, ax=axis)
    axis.set(title="Drafts that are the student's own choice", ylabel="share", ylim=(0, 1.05))
    legend(axis, "mode")
    return figure
