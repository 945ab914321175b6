"""Figures of stage 01: each takes studies side by side and returns a matplotlib figure.

stage.figure(figures.similarity([own, real]), "similarity", "One sentence.")
"""

from collections.abc import Callable, Sequence

import numpy as np
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FormatStrFormatter, MaxNLocator, NullLocator

from katlab.layer_saturation.similarity import SINK_TOKENS
from katlab.layer_saturation.study import Study
from katlab.plots import ANY, INK, TOOL, legend

CHOSEN, PLAIN = "#c2410c", TOOL
STARTS = {"copy": CHOSEN, "zero": ANY, "half-step": TOOL}


def _panels(studies: Sequence[Study], title: str, width: float = 5.2, height: float = 3.8):
    """A figure with one titled panel per study, and (axis, study) pairs."""
    figure, axes = plt.subplots(
        1, len(studies), figsize=(width * len(studies), height), squeeze=False, layout="constrained"
    )
    figure.suptitle(title)
    pairs = list(zip(axes[0], studies, strict=True))
    for axis, study in pairs:
        axis.set_title(study.name)
    return figure, pairs


def _cosine_scale(axis: Axis, set_scale: Callable, low: float, high: float) -> None:
    """Stretch a cosine axis towards 1, where the layers crowd: position -log(1 - cos)."""
    set_scale(
        "function",
        functions=(lambda c: -np.log10(1.002 - c), lambda v: 1.002 - 10.0 ** (-v)),
    )
    ticks = [0.0, 0.5, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99]
    axis.set_major_locator(FixedLocator([t for t in ticks if low - 0.3 <= t <= high + 0.02]))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_locator(NullLocator())


def tokens(words: Sequence[str], cosines: Sequence[float], layer: int) -> Figure:
    """Cosine of one layer's input and output, token by token; the tokens apart are grey."""
    figure, axis = plt.subplots(figsize=(9, 3.2), layout="constrained")
    places = range(len(words))
    colours = [ANY if place < SINK_TOKENS else PLAIN for place in places]
    bars = axis.bar(places, [1 - c for c in cosines], color=colours)
    axis.bar_label(bars, [f"{c:.3f}" for c in cosines], padding=2, fontsize=8)
    axis.set_xticks(places, [repr(word)[1:-1] for word in words], rotation=40, ha="right")
    axis.margins(y=0.15)
    axis.grid(False, axis="x")
    axis.set(ylabel="1 - cosine (cosine above)", title=f"What layer {layer} changes, by token")
    return figure


def similarity(studies: Sequence[Study]) -> Figure:
    """Cosine similarity of each layer's input and output, the report's quarter marked."""
    figure, panels = _panels(studies, "How little each layer changes its input")
    for axis, study in panels:
        rows, chosen = study.layers, study.kat.duplicated
        axis.fill_between(
            rows.layer, 1 - rows.influence_high, 1 - rows.influence_low, alpha=0.25, color=PLAIN
        )
        axis.plot(rows.layer, rows.similarity, color=PLAIN, marker="o", ms=4, label="layer")
        axis.plot(
            chosen, rows.similarity[chosen], "D", color=CHOSEN, ms=8,
            label=f"most saturated quarter ({len(chosen)})",
        )  # fmt: skip
        axis.set(xlabel="layer", ylabel="cosine of input and output")
        ends = rows.similarity.min(), rows.similarity.max()
        _cosine_scale(axis.yaxis, axis.set_yscale, *ends)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def groups(studies: Sequence[Study]) -> Figure:
    """Block influence by domain and think mode, the first tokens apart."""
    figure, panels = _panels(studies, "Influence of each layer by kind of text")
    for axis, study in panels:
        rows = study.groups
        colours = iter(sns.color_palette("husl", rows["group"].nunique()))
        for group, part in rows.groupby("group", sort=False):
            kind = group.split("=")[0]
            style = {"domain": "-", "mode": "--", "first tokens": ":", "all": "-"}[kind]
            own = INK if kind == "all" else next(colours)
            told = group.replace("domain=", "").replace("mode=", "think-").replace("_", " ")
            axis.plot(part.layer, part.influence, style, label=told, lw=1.5, color=own)
        axis.set(xlabel="layer", ylabel="1 - cosine similarity", yscale="log")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend(axis)
    return figure


def depth_map(studies: Sequence[Study]) -> Figure:
    """Angular distance between the states at any two depths."""
    figure, panels = _panels(studies, "Angular distance between depths", height=4.3)
    for axis, study in panels:
        step = max(1, len(study.angular) // 8)
        sns.heatmap(
            study.angular, ax=axis, cmap="viridis", vmin=0, square=True,
            xticklabels=step, yticklabels=step, cbar_kws={"label": "arccos(cos) / pi"},
        )  # fmt: skip
        axis.set(xlabel="depth (0: embeddings)", ylabel="depth")
    return figure


def damage(studies: Sequence[Study], kind: str) -> Figure:
    """Loss change when a layer is skipped (or repeated) against its similarity."""
    told = {"skip": "skipped", "repeat": "run twice"}[kind]
    figure, panels = _panels(studies, f"Loss change when one layer is {told}")
    for axis, study in panels:
        rows, chosen = study.layers, study.kat.duplicated
        marked = rows.layer.isin(chosen)
        ends = (rows[kind] - rows[f"{kind}_low"], rows[f"{kind}_high"] - rows[kind])
        spread = [end.clip(lower=0) for end in ends]
        axis.errorbar(
            rows.similarity, rows[kind], yerr=spread, fmt="none", ecolor="#cbd5e1", zorder=0
        )
        axis.scatter(rows.similarity, rows[kind], c=marked.map({True: CHOSEN, False: PLAIN}))
        named = rows[marked | rows[kind].rank(ascending=False).le(5)]  # all would overlap
        for row in named.itertuples():
            axis.annotate(
                str(row.layer), (row.similarity, getattr(row, kind)), xytext=(3, 3),
                textcoords="offset points", fontsize=7,
            )  # fmt: skip
        rank = (1 - rows.similarity).rank().corr(rows[kind].rank())  # Spearman
        axis.set(
            xlabel="cosine similarity (orange: the report's quarter)",
            ylabel="loss change, nats per token",
            title=f"{study.name}, Spearman {rank:.2f}",
        )
        if rows[kind].abs().max() > 0.1:  # ticks of this scale are unreadable within its threshold
            axis.set_yscale("symlog", linthresh=0.1)
        low, high = rows.similarity.min(), rows.similarity.max()
        _cosine_scale(axis.xaxis, axis.set_xscale, low, high)
    return figure


def starts(studies: Sequence[Study]) -> Figure:
    """Loss change before training, by variant."""
    figure, panels = _panels(studies, "What duplication costs before any training", 6.2, 3.6)
    for axis, study in panels:
        part = study.starts
        own = [CHOSEN if "report" in v else PLAIN for v in part.variant]
        bars = axis.barh(part.variant, part.loss_change, color=own)
        axis.bar_label(bars, [f"{v:+.4f}" for v in part.loss_change], padding=3, fontsize=8)
        axis.margins(x=0.28)
        axis.grid(False, axis="y")
        axis.axvline(0, color=INK, lw=0.8)
        axis.invert_yaxis()
        axis.set(xlabel="loss change, nats per token")
    return figure


def recovery(studies: Sequence[Study]) -> Figure:
    """Held-out loss before duplication, after it, and while it trains, of studies that have it."""
    trained = [study for study in studies if not study.recovery.empty]
    figure, panels = _panels(trained, "Loss after duplication, recovering")
    for axis, study in panels:
        part = study.recovery
        before = part.loss[part.step < 0].iloc[0]
        axis.axhline(before, color=INK, ls="--", lw=1, label="before duplication")
        for start, curve in part[part.step >= 0].groupby("start", sort=False):
            axis.plot(curve.step, curve.loss, marker="o", ms=3, color=STARTS[start], label=start)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set(xlabel="training step", ylabel="held-out loss, nats per token")
    legend(axis)
    return figure
