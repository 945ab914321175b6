"""Figures of stage 02: what the corpus is made of, and what a verified row takes.

stage.figure(figures.composition(corpus), "composition", "Hard levels think.")
"""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from katlab.plots import OFF, ON, bars


def composition(corpus: pd.DataFrame) -> Figure:
    """Rows of each regime by the domain and the level that the tagger gave."""
    tags = pd.DataFrame(corpus["tags"].tolist(), index=corpus.index)
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.4), sharey=True, layout="constrained")
    for axis, (mode, rows) in zip(axes, tags.groupby(corpus["mode"]), strict=True):
        table = pd.crosstab(rows["domain"], rows["level"])
        sns.heatmap(table, annot=True, fmt="d", cmap="crest", cbar=False, ax=axis)
        axis.grid(False)
        axis.set(title=f"think-{mode}: {len(rows)} rows", xlabel="tagged level", ylabel="")
    figure.suptitle("Rows of the corpus by tagged domain and level")
    return figure


def effort(corpus: pd.DataFrame) -> Figure:
    """By difficulty: the share of direct answers verified, the share of drafts corrected."""
    parts = [
        ("off", "pass_rate", "think-off teacher", "share of samples verified", OFF),
        ("on", "corrected", "solver → thinker", "share of drafts corrected", ON),
    ]
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.2), layout="constrained")
    for axis, (mode, column, title, ylabel, colour) in zip(axes, parts, strict=True):
        rows = corpus[corpus["mode"] == mode]
        rows = rows.assign(**{column: rows[column].astype(float)})
        bars(axis, rows, column, "difficulty", color=colour)
        axis.set(title=title, ylabel=ylabel)
    figure.suptitle("What a verified row takes, by difficulty (95 % intervals)")
    return figure
