"""Figures of stage 02: what the corpus is made of, and what a verified row takes.

stage.figure(figures.composition(corpus), "composition", "Hard levels think.")
"""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure


def composition(corpus: pd.DataFrame) -> Figure:
    """Rows of each regime by the domain and the level that the tagger gave."""
    tags = pd.DataFrame(corpus["tags"].tolist(), index=corpus.index)
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.4), sharey=True, layout="constrained")
    for axis, (mode, rows) in zip(axes, tags.groupby(corpus["mode"]), strict=True):
        table = pd.crosstab(rows["domain"], rows["level"])
        sns.heatmap(table, annot=True, fmt="d", cmap="crest", cbar=False, ax=axis)
        axis.grid(False)
        axis.set(title=f"think-{mode}: {len(rows)} rows", xlabel="tagged level", ylabel="")
    return figure


def effort(corpus: pd.DataFrame) -> Figure:
    """By difficulty: the share of direct answers verified, the share of drafts corrected."""
    parts = [
        ("off", "pass_rate", "think-off teacher", "share of samples verified", "#8aa6c1"),
        ("on", "corrected", "solver → thinker", "share of drafts corrected", "#c1886a"),
    ]
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.2), layout="constrained")
    for axis, (mode, column, title, ylabel, colour) in zip(axes, parts, strict=True):
        rows = corpus[corpus["mode"] == mode]
        rows = rows.assign(**{column: rows[column].astype(float)})
        sns.barplot(rows, x="difficulty", y=column, color=colour, ax=axis, seed=0)
        axis.set(title=title, xlabel="difficulty", ylabel=ylabel)
    return figure
