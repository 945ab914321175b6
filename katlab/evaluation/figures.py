"""Figures of stage 06: Figures 7-9 of the report, and the gate among its controls.

Report sections 4.3.2 and 5. Deviations: (1) the report's Figures 7 and 8 follow ten benchmarks over
training; here six categories, before and after Step-SRPO, and five difficulties; (2) means over
difficulties and routers carry 95 % bootstrap intervals over prompts.

    stage.figure(figures.think_on(arms), "figure_7", "Easy queries lose their thoughts.")
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from katlab.evaluation.routing import NAMED, pick
from katlab.evaluation.systems import AFTER, BEFORE
from katlab.plots import (
    ANY,
    DISTILLED,
    FINAL,
    INK,
    JUDGE,
    OFF,
    ON,
    START,
    TEACHER,
    by_difficulty,
    legend,
)
from katlab.samples import judge_agrees

PARTS = {"judge": JUDGE, "thought": ON, "answer": OFF, "tags": ANY}


def think_on(arms: pd.DataFrame) -> Figure:
    """Think-on rate before and after Step-SRPO, by category and by difficulty (after Figure 7)."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10.5, 4.2), sharey=True, layout="constrained"
    )
    before, after = (pick(arms, system, "auto") for system in (BEFORE, AFTER))
    rates = pd.DataFrame(
        {s: f.groupby("category")["thinks"].mean() for s, f in ((BEFORE, before), (AFTER, after))}
    )
    heights = _apart(rates[AFTER].to_numpy(), 0.055)
    for (category, row), height, colour in zip(
        rates.iterrows(), heights, sns.color_palette("Dark2", len(rates)), strict=True
    ):
        left.plot([0, 1], row, marker="o", color=colour)
        left.text(1.05, height, category, color=INK, va="center", fontsize=9)
    left.set(
        xticks=[0, 1],
        xticklabels=[BEFORE, AFTER],
        xlim=(-0.15, 1.5),
        xlabel="student",
        ylabel="think-on rate",
        ylim=(-0.03, 1.05),
        title="by category",
    )
    for system, frame, colour in ((BEFORE, before, START), (AFTER, after, FINAL)):
        by_difficulty(right, frame, "thinks", color=colour, label=system)
    legend(right, "student")
    right.set(ylabel="", title="by difficulty (95 % intervals)")
    figure.suptitle("Think-on rate before and after Step-SRPO")
    return figure


def think_on_map(arms: pd.DataFrame) -> Figure:
    """Think-on rate by category x difficulty, before and after Step-SRPO."""
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 3.8), sharey=True, layout="constrained")
    for axis, system in zip(axes, (BEFORE, AFTER), strict=True):
        auto = pick(arms, system, "auto")
        table = auto.pivot_table("thinks", "category", "difficulty", aggfunc="mean")
        sns.heatmap(
            table,
            vmin=0,
            vmax=1,
            cmap="Blues",
            annot=True,
            fmt=".0%",
            ax=axis,
            cbar=system == AFTER,
            cbar_kws={"label": "think-on rate"},
            linewidths=1,
        )
        axis.grid(False)
        axis.tick_params(axis="y", rotation=0)
        axis.set(title=f"{system} ({_cell_size(auto)} samples per cell)", ylabel="")
    figure.suptitle("Where the model thinks: think-on rate by category and difficulty")
    return figure


def tokens(arms: pd.DataFrame) -> Figure:
    """Mean tokens per response by category and part, before and after (after Figure 8)."""
    figure, axis = plt.subplots(figsize=(9, 4.2), layout="constrained")
    categories = sorted(arms["category"].unique())
    for offset, system in ((-0.2, BEFORE), (0.2, AFTER)):
        auto = pick(arms, system, "auto")
        parts = _parts(auto).rename(columns=lambda name: name.removesuffix("_tokens"))
        parts = parts.assign(tags=auto["tokens"] - parts.sum(axis=1))
        means = parts.groupby(auto["category"]).mean().reindex([*categories])
        means.loc["all"] = parts.mean()
        at, floor = np.arange(len(means)) + offset, np.zeros(len(means))
        for part, colour in PARTS.items():
            axis.bar(
                at,
                means[part],
                0.36,
                bottom=floor,
                color=colour,
                alpha=0.45 if system == BEFORE else 1.0,
                label=part if system == AFTER else None,
            )
            floor += means[part].to_numpy()
        for x, y in zip(at, floor, strict=True):
            axis.text(x, y + 1, f"{y:.0f}", ha="center", fontsize=8)
    axis.set(
        xticks=range(len(categories) + 1),
        xticklabels=[*categories, "all"],
        ylabel="tokens per response",
        xlabel="category (left, pale: cold start; right: final)",
    )
    axis.set_title("Tokens per response before and after Step-SRPO, by part")
    legend(axis, "part")
    axis.margins(y=0.12)
    return figure


def teacher_tokens(arms: pd.DataFrame) -> Figure:
    """Tokens of the final model against the reasoning teacher, by category (after Figure 9)."""
    figure, axis = plt.subplots(figsize=(9, 3.8), layout="constrained")
    ours, theirs = pick(arms, AFTER, "auto"), pick(arms, "teacher on", "on")
    means = pd.DataFrame(
        {
            "final, auto": ours.groupby("category")["tokens"].mean(),
            "teacher on": theirs.groupby("category")["tokens"].mean(),
        }
    )
    at = np.arange(len(means))
    for offset, (name, colour) in (
        (-0.19, ("final, auto", FINAL)),
        (0.19, ("teacher on", TEACHER)),
    ):
        axis.bar(at + offset, means[name], 0.36, color=colour, label=name)
    for x, (own, other) in zip(at, means.to_numpy(), strict=True):
        axis.text(x, max(own, other) + 2, f"{own / other - 1:+.0%}", ha="center", fontsize=9)
    axis.set(xticks=at, xticklabels=means.index, ylabel="tokens per response", xlabel="category")
    axis.set_title("Tokens per response: the final model and the reasoning teacher")
    legend(axis)
    axis.margins(y=0.15)
    return figure


MARKS = {  # of `systems`: how each row of `systems.table` is drawn
    "final, it decides": (FINAL, "o"),
    "cold start, it decides": (START, "o"),
    "final, always on": (ON, "^"),
    "final, always off": (OFF, "v"),
    "base, before any stage": (INK, "s"),
    "coin at the final rate": (ANY, "D"),
    "rule of one feature": (ANY, "P"),
    "threshold on the cold start's P(on)": (START, "X"),
    "threshold on the final's P(on)": (FINAL, "X"),
    "oracle": (INK, "*"),
    "distilled, on command": (DISTILLED, "^"),
    "distilled, off command": (DISTILLED, "v"),
    "teacher that thinks": (TEACHER, "^"),
    "teacher that does not": (TEACHER, "v"),
}


def systems(table: pd.DataFrame) -> Figure:
    """Accuracy against mean tokens of every system and control (`systems.table`)."""
    figure, axis = plt.subplots(figsize=(9.5, 5), layout="constrained")
    ends = table.loc[["final, always off", "final, always on"]]
    axis.plot(ends["tokens"], ends["accuracy"], color=ANY, ls="--", lw=1, zorder=0)
    for name, row in table.iterrows():
        colour, marker = MARKS[name]
        spans = [
            [[row[key] - row[f"{key} low"]], [row[f"{key} high"] - row[key]]]
            for key in ("accuracy", "tokens")
        ]
        point, *_ = axis.errorbar(
            row["tokens"], row["accuracy"], yerr=spans[0], xerr=spans[1], fmt=marker, capsize=2,
            color=colour, ms=11 if marker == "*" else 7, elinewidth=1,
        )  # fmt: skip
        point.set_label(name)  # not the whole: in the legend an interval hides its mark
    axis.set(xlabel="mean tokens per response", ylabel="accuracy")
    axis.yaxis.set_major_formatter("{x:.0%}")
    prompts = table["prompts"].min()
    axis.set_title(f"Accuracy against tokens, {prompts} held-out prompts (95 % intervals)")
    legend(axis)
    return figure


def judge(arms: pd.DataFrame, names_mode: str) -> Figure:
    """How often the judge names the mode that is taken, by difficulty, before and after."""
    figure, axis = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
    for system, colour in ((BEFORE, START), (AFTER, FINAL)):
        auto = pick(arms, system, "auto")
        decided = auto.assign(agrees=judge_agrees(auto, names_mode)).dropna(subset="agrees")
        if len(decided):
            by_difficulty(axis, decided, "agrees", color=colour, label=system)
    axis.axhline(NAMED, color=INK, lw=1, ls=":")
    axis.set(title="Outputs whose judge names the mode they take (95 % intervals)")
    axis.set(ylabel="share of decisions", ylim=(-0.03, 1.05))
    axis.yaxis.set_major_formatter("{x:.0%}")
    legend(axis, "student")
    return figure


def _apart(heights: np.ndarray, gap: float) -> np.ndarray:
    """Heights moved just enough that labels at them do not overlap, order and mean kept."""
    placed, last = np.empty(len(heights)), -np.inf
    for i in np.argsort(heights, kind="stable"):
        last = placed[i] = max(heights[i], last + gap)
    return placed - (placed - heights).mean()


def _parts(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[["judge_tokens", "thought_tokens", "answer_tokens"]]


def _cell_size(frame: pd.DataFrame) -> int:
    return int(frame.groupby(["category", "difficulty"]).size().min())
