"""Figures of stage 05: Figures 5 and 6 of the report, the trained reward, tokens by advantage.

Each function of rollouts or samples returns the figure and the sentence that stands under it.
"""

import html

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from katlab.plots import ANY, FINAL, INK, MODES, START, bars, curve, legend
from katlab.samples import judge_agrees
from katlab.step_srpo.alarm import NAMED

PLUS, MINUS = "37,99,235", "220,38,38"  # more of this, less of this


def windows(rollouts: pd.DataFrame) -> tuple[pd.DataFrame, dict]:
    """Rollouts with `window`, the middle of a sixth of the training, and how its axis is set."""
    last = int(rollouts["step"].max())
    width = max(1, (last + 1) // 6)
    start = rollouts["step"] // width * width
    middle = (start + (start + width - 1).clip(upper=last)) / 2
    thinks = (rollouts["mode"] == "on").astype(float)
    label = "step" if width == 1 else f"step (means over {width})"
    axis = {"xlabel": label, "xlim": (0, max(1, last))}
    return rollouts.assign(window=middle, think_on=thinks), axis


def queries(candidates: pd.DataFrame, rollouts: pd.DataFrame) -> tuple[Figure, str]:
    """How hard the candidates are and the queries that were trained on (report section 4.2.3).

    By difficulty and by whether the cold start misses them without a thought; a candidate that no
    verifier could grade is in neither.
    """
    scored = candidates[candidates["correct"].notna()].set_index("id", drop=False)
    chosen = scored.loc[rollouts["id"], ["difficulty", "correct"]].reset_index(drop=True)
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.2), layout="constrained", sharey=True)
    labels = {True: "right without a thought", False: "missed without a thought"}
    titles = (f"all candidates ({len(scored)})", f"trained on ({rollouts['id'].nunique()})")
    levels = sorted(scored["difficulty"].unique())
    shares: list[pd.DataFrame] = []
    for axis, rows, title in zip(axes, (scored, chosen), titles, strict=True):
        share = pd.crosstab(rows["difficulty"], rows["correct"].astype(bool), normalize="all")
        share = share.reindex(index=levels, columns=list(labels), fill_value=0.0)
        bottom = share[True]
        axis.bar(levels, bottom, color=MODES["off"], label=labels[True])
        axis.bar(levels, share[False], bottom=bottom, color=MODES["on"], label=labels[False])
        axis.set(title=title, xlabel="difficulty", xticks=levels)
        shares.append(share)
    axes[0].set_ylabel("share of queries")
    legend(axes[1])
    figure.suptitle("How hard the queries are, before and after they are chosen")
    before, after = (share.sum(axis=1) for share in shares)
    missed = [share[False].sum() for share in shares]
    means = [float((share * share.index).sum()) for share in (before, after)]
    return figure, (
        f"The mean difficulty goes from {means[0]:.1f} among the candidates to {means[1]:.1f} "
        f"among the queries trained on, the share missed without a thought from {missed[0]:.0%} to "
        f"{missed[1]:.0%}; {after.iloc[0]:.0%} are of the easiest difficulty ({before.iloc[0]:.0%} "
        "before)."
    )


def modes(rollouts: pd.DataFrame) -> tuple[Figure, str]:
    """Which mode is chosen, over all rollouts and by difficulty (after the report's Figure 5)."""
    rows, steps = windows(rollouts)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9.5, 3.6), layout="constrained", sharey=True
    )
    share = rows.groupby("window")["think_on"].mean()
    names = ["think-on", "think-off"]
    left.stackplot(
        share.index, share, 1 - share, labels=names, colors=list(MODES.values()), alpha=0.7
    )
    left.set(title="all rollouts", ylabel="share of rollouts", ylim=(0, 1), **steps)
    figure.legend(handles=left.collections, loc="outside lower left", ncols=2)
    levels = sorted(rows["difficulty"].unique())
    for level, colour in zip(levels, sns.color_palette("crest", len(levels)), strict=True):
        part = rows[rows["difficulty"] == level]
        curve(right, part, "think_on", "window", colour, str(level))
    right.set(title="by difficulty (95 % intervals)", ylabel="think-on rate", **steps)
    legend(right, "difficulty")
    figure.suptitle("Which mode the rollouts choose")
    rates = rows.pivot_table("think_on", "window", "difficulty").bfill().ffill()
    (easy, hard), (easy_now, hard_now) = rates.iloc[[0, -1], [0, -1]].to_numpy()
    return figure, (
        f"Think-on goes from {easy:.0%} to {easy_now:.0%} at the easiest difficulty, "
        f"from {hard:.0%} to {hard_now:.0%} at the hardest."
    )


def lengths(rollouts: pd.DataFrame) -> tuple[Figure, str]:
    """How long rollouts are (after the report's Figure 6) and how often right, by mode."""
    rows, steps = windows(rollouts)
    rows = rows.assign(correct=rows["correct"].astype(float))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.3), layout="constrained")
    curve(left, rows, "tokens", "window", INK, "all rollouts")
    left.set(title="output length", ylabel="tokens per rollout", **steps)
    left.set_ylim(bottom=0)
    for mode, colour in MODES.items():
        chosen = rows[(rows["mode"] == mode) & rows["correct"].notna()]
        if len(chosen):
            curve(right, chosen, "correct", "window", colour, f"think-{mode}")
    legend(right, "mode")
    right.set(title="accuracy by mode", ylabel="share right", ylim=(0, 1.05), **steps)
    figure.suptitle("Length and accuracy of the rollouts in training (95 % intervals)")
    means = rows.groupby("window")[["tokens", "correct"]].mean().iloc[[0, -1]]
    (tokens, share), (tokens_now, share_now) = means.to_numpy()
    alone = rows.loc[rows["step"] == rows["step"].max(), "correct"].mean()
    return figure, (
        f"From the first to the last sixth of the steps rollouts go from {tokens:.0f} to "
        f"{tokens_now:.0f} tokens, right ones from {share:.0%} to {share_now:.0%}; the last step "
        f"alone, a few queries, has {alone:.0%}."
    )


def reward(metrics: list[dict]) -> tuple[Figure, str]:
    """The trained reward as TRL logs it, and the groups in which all rollouts earned the same."""
    rows = pd.DataFrame([row for row in metrics if "reward" in row])
    figure, axis = plt.subplots(figsize=(6.4, 2.8), layout="constrained")
    names = {"reward": "mean reward", "frac_reward_zero_std": "groups of equal rewards"}
    for (name, label), colour in zip(names.items(), (INK, ANY), strict=True):
        axis.plot(rows["step"], rows[name], label=label, color=colour)
    axis.set(title="The reward that is trained, and groups that teach nothing", xlabel="step")
    axis.set(ylabel="reward, or share of groups", ylim=(0, 1.05), xlim=(0, rows["step"].max()))
    legend(axis)
    first, last = rows["reward"].iloc[[0, -1]]
    equal = rows["frac_reward_zero_std"].mean()
    return figure, (
        f"The mean reward goes from {first:.2f} to {last:.2f}; in {equal:.0%} of the groups all "
        "rollouts earned the same."
    )


def judge(rollouts: pd.DataFrame, names_mode: str) -> Figure:
    """How often the judge of a rollout names the mode it takes, over training, by mode taken."""
    rows, steps = windows(rollouts.assign(agrees=judge_agrees(rollouts, names_mode)))
    figure, axis = plt.subplots(figsize=(6.4, 3.0), layout="constrained")
    axis.axhline(NAMED, color=INK, lw=1, ls=":")
    for mode, colour in MODES.items():
        chosen = rows[rows["mode"] == mode]
        if len(chosen):
            curve(axis, chosen, "agrees", "window", colour, f"think-{mode}")
    axis.set(title="Rollouts whose judge names the mode they take (95 % intervals)")
    axis.set(ylabel="share of rollouts", ylim=(-0.03, 1.05), **steps)
    legend(axis, "mode taken")
    return figure


def boundary(evaluation: pd.DataFrame) -> tuple[Figure, str]:
    """Think-on rate by difficulty before and after, on held-out queries."""
    rows = evaluation.assign(think_on=(evaluation["mode"] == "on").astype(float))
    figure, axis = plt.subplots(figsize=(6.4, 3.0), layout="constrained")
    names = {"before": "cold start", "after": "final"}
    named = rows.assign(student=rows["student"].map(names))
    bars(axis, named, "think_on", "difficulty", "student", {"cold start": START, "final": FINAL})
    title = "Think-on rate before and after Step-SRPO, held out (95 % intervals)"
    axis.set(title=title, ylabel="think-on rate", ylim=(0, 1.05))
    legend(axis, "student")
    rates = rows.pivot_table("think_on", "student", "difficulty")
    (easy, hard), (easy_now, hard_now) = rates.loc[["before", "after"]].iloc[:, [0, -1]].to_numpy()
    return figure, (
        f"Held out, think-on goes from {easy:.0%} to {easy_now:.0%} at the easiest difficulty, "
        f"from {hard:.0%} to {hard_now:.0%} at the hardest."
    )


def kinds(evaluation: pd.DataFrame) -> tuple[Figure, str]:
    """Think-on rate and accuracy by task, or by set where that has no tasks, held out.

    `evaluation` has the column set besides, and may have task.
    """
    kind = evaluation["set"]
    if "task" in evaluation:
        kind = evaluation["task"].fillna(kind)
    kind = kind.str.replace("_", " ")
    student = evaluation["student"].map({"before": "cold start", "after": "final"})
    rows = evaluation.assign(kind=kind, student=student)
    rows["think_on"] = (rows["mode"] == "on").astype(float)
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained", sharey=True)
    panels = {"think_on": "think-on rate", "correct": "accuracy"}
    for axis, (column, label) in zip(axes, panels.items(), strict=True):
        colours = {"cold start": START, "final": FINAL}
        bars(axis, rows[rows[column].notna()], column, "kind", "student", colours)
        axis.set(title=label, xlabel="", ylim=(0, 1.05))
        axis.tick_params(axis="x", rotation=30)
    legend(axes[1], "student")
    figure.suptitle("Before and after Step-SRPO by kind of query, held out (95 % intervals)")
    rates = rows.pivot_table("think_on", "kind", "student")
    now, moved = rates["final"], rates["final"] - rates["cold start"]
    often, rare, most = now.idxmax(), now.idxmin(), moved.abs().idxmax()
    return figure, (
        f"Held out, it thinks most on {often} ({now[often]:.0%}) and least on {rare} "
        f"({now[rare]:.0%}); {most} moved most, by {100 * moved[most]:+.0f} points."
    )


def coloured(pieces: list[str], advantages: list[float], title: str = "") -> str:
    """A completion as HTML, each token on its advantage: blue above 0, red below, 0 clear.

    The strongest token of the completion has the full colour; the number shows under the pointer.
    """
    strongest = max(map(abs, advantages), default=0.0) or 1.0
    spans = ""
    for piece, value in zip(pieces, advantages, strict=True):
        colour = f"rgba({PLUS if value > 0 else MINUS},{0.4 * abs(value) / strongest:.2f})"
        text = html.escape(piece).replace("\n", "⏎\n")
        spans += f'<span style="background:{colour}" title="{value:+.3f}">{text}</span>'
    head = f"<b>{html.escape(title)}</b>\n" if title else ""
    return (
        '<pre style="white-space:pre-wrap;padding:8px;border:1px solid rgba(128,128,128,.35);'
        f'background:none;color:inherit">{head}{spans}</pre>'
    )
