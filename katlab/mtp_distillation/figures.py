"""Figures of stage 03: the tokens that face each other, losses, forced modes, accepted drafts.

Report sections 3.1 and 3.3; colours tell arms or modes apart.

    stage.figure(figures.losses(log), "losses", "Cross-entropy falls.")
"""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

ONE, CHUNK = "#bfdbfe", "#fed7aa"


def alignment(groups: list[tuple[list[str], list[str]]]) -> Figure:
    """Groups of `uld.pieces` side by side: one token against one in blue, chunks in orange."""
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
    return figure


def losses(log: pd.DataFrame) -> Figure:
    """Next-token loss, distance to the teachers and MTP's loss by step; a row per log of an arm."""
    figure, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
    sns.lineplot(log, x="step", y="ce", hue="arm", ax=axes[0])
    axes[0].set(title="next token", ylabel="cross-entropy, nats per token", yscale="log")
    sns.lineplot(log, x="step", y="uld", hue="arm", ax=axes[1], legend=False)
    axes[1].set(title="distance to the teachers", ylabel="ULD per paired token (0 to 2)")
    sns.lineplot(log, x="step", y="mtp_ce_1", ax=axes[2], color="C1")
    axes[2].set(title="MTP depth 1", ylabel="cross-entropy, nats per token", yscale="log")
    return figure


def forced(answers: pd.DataFrame) -> Figure:
    """Share right by difficulty, forced think-on and forced think-off, a bar per arm."""
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.2), layout="constrained", sharey=True)
    for axis, mode in zip(axes, ("on", "off"), strict=True):
        rows, last = answers[answers["arm"] == mode], mode == "off"
        sns.barplot(rows, x="difficulty", y="correct", hue="student", ax=axis, seed=0, legend=last)
        axis.set(title=f"forced think-{mode}", ylabel="share right", ylim=(0, 1))
    return figure


def acceptance(drafts: pd.DataFrame) -> Figure:
    """Share of drafts that are the student's own greedy choice, by depth and mode."""
    figure, axis = plt.subplots(figsize=(5, 2.8), layout="constrained")
    shares = drafts.assign(accepted=drafts["accepted"] / drafts["tokens"])
    sns.barplot(shares, x="depth", y="accepted", hue="mode", ax=axis)
    axis.set(title="Drafts that are the student's own choice", ylabel="share", ylim=(0, 1))
    sns.move_legend(axis, "upper left", bbox_to_anchor=(1, 1))
    return figure
