"""Figures of stage 01: each takes studies side by side and returns a matplotlib figure.

stage.figure(depth_figures.similarity([nano, real]), "similarity", "One sentence.")
"""

from collections.abc import Sequence

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from katlab.depth_study import Study

CHOSEN, PLAIN = "#c2410c", "#2563eb"
STARTS = {"copy": "#c2410c", "zero": "#15803d", "half-step": "#2563eb"}


def _panels(count: int, title: str, width: float = 5.2, height: float = 3.8):
    figure, axes = plt.subplots(
        1, count, figsize=(width * count, height), squeeze=False, layout="constrained"
    )
    figure.suptitle(title)
    return figure, axes[0]


def similarity(studies: Sequence[Study]) -> Figure:
    """Cosine similarity of each layer's input and output, the report's quarter marked."""
    figure, axes = _panels(len(studies), "How little each layer changes its input")
    for axis, study in zip(axes, studies, strict=True):
        rows, chosen = study.layers, study.kat.duplicated
        axis.fill_between(
            rows.layer, 1 - rows.influence_high, 1 - rows.influence_low, alpha=0.25, color=PLAIN
        )
        axis.plot(rows.layer, rows.similarity, color=PLAIN, marker="o", ms=4, label="layer")
        axis.plot(
            chosen, rows.similarity[chosen], "D", color=CHOSEN, ms=8,
            label=f"most saturated quarter ({len(chosen)})",
        )  # fmt: skip
        axis.set(xlabel="layer", ylabel="cosine similarity", title=study.name)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(loc="lower right")
    return figure


def groups(studies: Sequence[Study]) -> Figure:
    """Block influence by domain and think mode, the first tokens apart."""
    figure, axes = _panels(len(studies), "Influence of each layer by kind of text")
    for axis, study in zip(axes, studies, strict=True):
        rows = study.report.layers
        for group, part in rows.groupby("group", sort=False):
            style = {"all": "-", "first tokens": ":"}.get(group, "--")
            axis.plot(part.layer, part.influence, style, label=group, lw=1.5)
        axis.set(xlabel="layer", ylabel="1 - cosine similarity", title=study.name, yscale="log")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(fontsize=7, ncols=2)
    return figure


def depth_map(studies: Sequence[Study]) -> Figure:
    """Angular distance between the states at any two depths."""
    figure, axes = _panels(len(studies), "Angular distance between depths", height=4.3)
    for axis, study in zip(axes, studies, strict=True):
        step = max(1, len(study.report.angular) // 8)
        sns.heatmap(
            study.report.angular, ax=axis, cmap="viridis", vmin=0, square=True,
            xticklabels=step, yticklabels=step, cbar_kws={"label": "arccos(cos) / pi"},
        )  # fmt: skip
        axis.set(xlabel="depth (0: embeddings)", ylabel="depth", title=study.name)
    return figure


def damage(studies: Sequence[Study], kind: str = "skip") -> Figure:
    """Loss change when a layer is skipped (or repeated) against its similarity."""
    told = {"skip": "skipped", "repeat": "run twice"}[kind]
    figure, axes = _panels(len(studies), f"Loss change when one layer is {told}")
    for axis, study in zip(axes, studies, strict=True):
        rows, chosen = study.layers, study.kat.duplicated
        marked = rows.layer.isin(chosen)
        spread = (rows[kind] - rows[f"{kind}_low"], rows[f"{kind}_high"] - rows[kind])
        spread = [s.clip(lower=0) for s in spread]
        axis.errorbar(
            rows.similarity, rows[kind], yerr=spread, fmt="none", ecolor="#cbd5e1", zorder=0
        )
        axis.scatter(rows.similarity, rows[kind], c=marked.map({True: CHOSEN, False: PLAIN}))
        for row in rows.itertuples():
            axis.annotate(
                str(row.layer), (row.similarity, getattr(row, kind)), xytext=(3, 3),
                textcoords="offset points", fontsize=7,
            )  # fmt: skip
        rank = (1 - rows.similarity).rank().corr(rows[kind].rank())  # Spearman
        axis.set(
            xlabel="cosine similarity (orange: the report's quarter)",
            ylabel="loss change, nats a token",
            title=f"{study.name}, Spearman {rank:.2f}",
        )
        axis.set_yscale("symlog", linthresh=0.1)
    return figure


def starts(table: pd.DataFrame) -> Figure:
    """Loss change before training, by variant, a panel a model."""
    parts = list(table.groupby("model", sort=False))
    figure, axes = _panels(len(parts), "What duplication costs before any training", 6.2, 3.6)
    for axis, (name, part) in zip(axes, parts, strict=True):
        own = [CHOSEN if "report" in v else PLAIN for v in part.variant]
        bars = axis.barh(part.variant, part.loss_change, color=own)
        axis.bar_label(bars, [f"{v:+.3f}" for v in part.loss_change], padding=3, fontsize=8)
        axis.margins(x=0.22)
        axis.grid(False, axis="y")
        axis.axvline(0, color="#334155", lw=0.8)
        axis.invert_yaxis()
        axis.set(xlabel="loss change, nats a token", title=name)
    return figure


def recovery(curves: pd.DataFrame) -> Figure:
    """Held-out loss before duplication, after it, and while it trains."""
    parts = list(curves.groupby("model", sort=False))
    figure, axes = _panels(len(parts), "Loss after duplication, recovering")
    for axis, (name, part) in zip(axes, parts, strict=True):
        before = part.loss[part.step < 0].iloc[0]
        axis.axhline(before, color="#334155", ls="--", lw=1, label="before duplication")
        for start, curve in part[part.step >= 0].groupby("start", sort=False):
            axis.plot(curve.step, curve.loss, marker="o", ms=3, color=STARTS[start], label=start)
        axis.set(xlabel="training step", ylabel="held-out loss, nats a token", title=name)
        axis.legend()
    return figure


def by_depth(table: pd.DataFrame, reported: int = 80) -> Figure:
    """Parameters, FLOPs and memory by number of layers; the report's depth is marked."""
    shown = {
        "parameters": ("parameters", "billions", 1e9),
        "training_flops_per_token": ("training FLOPs a token", "GFLOP", 1e9),
        "states_gib": ("training states a GPU", "GiB", 1),
        "sequences": ("sequences a GPU holds beside them", "count", 1),
    }
    figure, axes = _panels(len(shown), "The same width, deeper", 3.3, 3.2)
    for axis, (column, (title, unit, scale)) in zip(axes, shown.items(), strict=True):
        axis.plot(table.layers, table[column] / scale, marker="o", color=PLAIN)
        at = table[table.layers == reported]
        axis.plot(at.layers, at[column] / scale, "D", color=CHOSEN, ms=8)
        axis.set(title=title, xlabel="layers", ylabel=unit)
        axis.title.set_fontsize(9)
    return figure
