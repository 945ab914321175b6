"""Figures of stage 05: Figures 5 and 6 of the report, the trained reward, tokens by advantage.

Each function of rollouts or samples returns the figure and the sentence that stands under it.
"""

import html

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

ON, OFF = "#2563eb", "#16a34a"  # the report draws think-on blue, think-off green
PLUS, MINUS = "37,99,235", "220,38,38"  # more of this, less of this


def windows(rollouts: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Rollouts with `window`, the middle of a sixth of the training, and the label of that axis."""
    width = max(1, (int(rollouts["step"].max()) + 1) // 6)
    start = rollouts["step"] // width * width
    middle = start + (width - 1) / 2
    thinks = (rollouts["mode"] == "on").astype(float)
    label = "step" if width == 1 else f"step (means over {width})"
    return rollouts.assign(window=middle, think_on=thinks), label


def modes(rollouts: pd.DataFrame) -> tuple[Figure, str]:
    """Which mode is chosen, over all rollouts and by difficulty (after the report's Figure 5)."""
    rows, label = windows(rollouts)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9.5, 3.4), layout="constrained", sharey=True
    )
    share = rows.groupby("window")["think_on"].mean()
    names, colours = ["think-on", "think-off"], [ON, OFF]
    left.stackplot(share.index, share, 1 - share, labels=names, colors=colours, alpha=0.7)
    left.set(title="all rollouts", xlabel=label, ylabel="share of rollouts", ylim=(0, 1))
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    sns.lineplot(rows, x="window", y="think_on", hue="difficulty", palette="crest", ax=right)
    right.set(title="think-on rate by difficulty (95 % intervals)", xlabel=label)
    sns.move_legend(right, "upper left", bbox_to_anchor=(1, 1))
    figure.suptitle("Which mode the rollouts choose")
    rates = rows.pivot_table("think_on", "window", "difficulty").bfill().ffill()
    (easy, hard), (easy_now, hard_now) = rates.iloc[[0, -1], [0, -1]].to_numpy()
    return figure, (
        f"Think-on goes from {easy:.0%} to {easy_now:.0%} at the easiest difficulty, "
        f"from {hard:.0%} to {hard_now:.0%} at the hardest."
    )


def lengths(rollouts: pd.DataFrame) -> tuple[Figure, str]:
    """How long rollouts are (after the report's Figure 6) and how often right, by mode."""
    rows, label = windows(rollouts)
    rows = rows.assign(correct=rows["correct"].astype(float))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.2), layout="constrained")
    sns.lineplot(rows, x="window", y="tokens", color="#334155", ax=left)
    left.set(title="output length", xlabel=label, ylabel="tokens per rollout")
    for mode, colour in (("on", ON), ("off", OFF)):
        chosen = rows[rows["mode"] == mode]
        sns.lineplot(chosen, x="window", y="correct", color=colour, label=mode, ax=right)
    right.legend(title="mode")
    right.set(title="accuracy by mode", xlabel=label, ylabel="share right", ylim=(0, 1))
    figure.suptitle("Rollouts during training, with 95 % intervals")
    means = rows.groupby("window")[["tokens", "correct"]].mean().iloc[[0, -1]]
    (tokens, share), (tokens_now, share_now) = means.to_numpy()
    return figure, (
        f"Rollouts go from {tokens:.0f} to {tokens_now:.0f} tokens, "
        f"right ones from {share:.0%} to {share_now:.0%}."
    )


def reward(metrics: list[dict]) -> tuple[Figure, str]:
    """The trained reward as TRL logs it, and the groups in which all rollouts earned the same."""
    rows = pd.DataFrame([row for row in metrics if "reward" in row])
    figure, axis = plt.subplots(figsize=(6.4, 2.8), layout="constrained")
    names = {"reward": "mean reward", "frac_reward_zero_std": "groups of equal rewards"}
    for (name, label), colour in zip(names.items(), ("#334155", "#f59e0b"), strict=True):
        axis.plot(rows["step"], rows[name], label=label, color=colour)
    axis.set(title="What is trained", xlabel="step", ylabel="share", ylim=(0, 1.05))
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    first, last = rows["reward"].iloc[[0, -1]]
    equal = rows["frac_reward_zero_std"].mean()
    return figure, (
        f"The mean reward goes from {first:.2f} to {last:.2f}; in {equal:.0%} of the groups all "
        "rollouts earned the same."
    )


def boundary(evaluation: pd.DataFrame) -> tuple[Figure, str]:
    """Think-on rate by difficulty before and after, on held-out queries."""
    rows = evaluation.assign(think_on=(evaluation["mode"] == "on").astype(float))
    figure, axis = plt.subplots(figsize=(6.4, 3.0), layout="constrained")
    colours = {"before": "#94a3b8", "after": ON}
    sns.barplot(rows, x="difficulty", y="think_on", hue="student", palette=colours, ax=axis, seed=0)
    title = "Think-on rate before and after Step-SRPO, held out (95 % intervals)"
    axis.set(title=title, xlabel="difficulty", ylabel="think-on rate")
    sns.move_legend(axis, "upper left", bbox_to_anchor=(1, 1))
    rates = rows.pivot_table("think_on", "student", "difficulty")
    (easy, hard), (easy_now, hard_now) = rates.loc[["before", "after"]].iloc[:, [0, -1]].to_numpy()
    return figure, (
        f"Held out, think-on goes from {easy:.0%} to {easy_now:.0%} at the easiest difficulty, "
        f"from {hard:.0%} to {hard_now:.0%} at the hardest."
    )


def coloured(pieces: list[str], advantages: list[float], title: str = "") -> str:
    """A completion as HTML, each token on its advantage: blue above 0, red below, 0 white.

    The strongest token of the completion has the full colour; the number shows under the pointer.
    """
    strongest = max(map(abs, advantages), default=0.0) or 1.0
    spans = ""
    for piece, value in zip(pieces, advantages, strict=True):
        colour = f"rgba({PLUS if value > 0 else MINUS},{0.75 * abs(value) / strongest:.2f})"
        text = html.escape(piece).replace("\n", "⏎\n")
        spans += f'<span style="background:{colour}" title="{value:+.3f}">{text}</span>'
    head = f"<b>{html.escape(title)}</b>\n" if title else ""
    return (
        '<pre style="white-space:pre-wrap;padding:8px;border:1px solid #e2e8f0;'
        f'background:#fff;color:#0f172a">{head}{spans}</pre>'
    )
