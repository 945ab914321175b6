"""Queries of several sources, each set apart: accuracy, tokens and think-on, the claims for each.

A run whose queries are a sum (`katlab.tasks.mixture`) reports every set by itself, procedural ones
by task and difficulty, sets with levels by level. All of it is ours.

    if sets.several(arms): stage.table(sets.table(ways), "Each set apart")
"""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from katlab.evaluation import systems
from katlab.evaluation.figures import MARKS
from katlab.evaluation.routing import pick
from katlab.evaluation.systems import AFTER, ALWAYS_OFF, ALWAYS_ON
from katlab.intervals import bootstrap, difference, no_worse, paired_difference, percent, points
from katlab.lab import Claim
from katlab.plots import by_difficulty, legend

MADE = "procedural"  # the set that has tasks
TRAINED = (MADE, "gsm8k")
SHOWN = [*systems.SAMPLED]
MARGIN = 0.02  # accuracy that may be lost where a claim says "within 2 points"


def several(arms: pd.DataFrame) -> bool:
    """Whether the samples say from which set they are."""
    return "set" in arms


def table(ways: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Set x system (`systems.ways`): prompts, accuracy, tokens and think-on with intervals."""
    rows = {}
    for name in (name for name in SHOWN if name in ways):
        for of, part in ways[name].groupby("set"):
            if part["correct"].notna().any():
                rows[of, name] = _row(part)
    return pd.DataFrame(rows).T.rename_axis(["set", "system"]).sort_index(level=0, sort_remaining=0)


def by_level(arms: pd.DataFrame) -> pd.DataFrame:
    """The final system by task and difficulty, and by level of the other sets: three arms."""
    auto, on, off = (pick(arms, AFTER, arm) for arm in ("auto", "on", "off"))
    rows = {}
    for kind, part in _kinds(auto):
        sides = {"always thinking": on, "never thinking": off}
        sides = {name: side[side["id"].isin(part["id"])] for name, side in sides.items()}
        if any(side["correct"].isna().all() for side in (part, *sides.values())):
            continue
        rows[kind] = _row(part) | {
            name: percent(bootstrap(side, "correct"), ".0%") for name, side in sides.items()
        }
    return pd.DataFrame(rows).T.rename_axis("queries")


def _row(part: pd.DataFrame) -> dict[str, object]:
    return {
        "prompts": part["id"].nunique(),
        "accuracy": percent(bootstrap(part, "correct"), ".0%"),
        "tokens": "{:.0f} [{:.0f}, {:.0f}]".format(*bootstrap(part, "tokens")),
        "think-on rate": percent(bootstrap(part, "thinks"), ".0%"),
    }


def _kinds(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """(name, rows) of every task and difficulty, and of every level of a set that has several."""
    found = []
    for of, part in frame.groupby("set"):
        by = ["task", "difficulty"] if of == MADE else ["difficulty"]
        leveled = part["difficulty"].nunique() > 1
        for key, rows in part.groupby(by) if leveled else [((), part)]:
            found.append((" ".join(map(str, (*[of] * (of != MADE), *key))), rows))
    return found


def accuracy_tokens(ways: Mapping[str, pd.DataFrame]) -> Figure:
    """Accuracy against mean tokens of every sampled system, a panel per set (95 % intervals)."""
    names = sorted(ways[ALWAYS_ON]["set"].dropna().unique())
    figure, axes = plt.subplots(
        1, len(names), figsize=(3.1 * len(names) + 2.4, 3.8), layout="constrained", squeeze=False
    )
    for axis, of in zip(axes[0], names, strict=True):
        ends = []
        for name in (name for name in SHOWN if name in ways):
            part = ways[name][ways[name]["set"] == of]
            if part["correct"].isna().all():
                continue
            (x, *wide), (y, *tall) = bootstrap(part, "tokens"), bootstrap(part, "correct")
            spans = [[[mean - low], [high - mean]] for mean, (low, high) in ((x, wide), (y, tall))]
            colour, marker = MARKS[name]
            point, *_ = axis.errorbar(
                x, y, xerr=spans[0], yerr=spans[1], fmt=marker, color=colour, capsize=2, lw=1
            )
            point.set_label(name)
            ends += [(x, y)] if name in (ALWAYS_ON, ALWAYS_OFF) else []
        axis.plot(*zip(*ends, strict=True), color=MARKS[systems.COIN][0], ls="--", lw=1, zorder=0)
        axis.set(title=f"{of}, {ways[ALWAYS_ON][ways[ALWAYS_ON]['set'] == of]['id'].nunique()}")
        axis.set(xlabel="mean tokens per response")
        axis.yaxis.set_major_formatter("{x:.0%}")
    axes[0, 0].set_ylabel("accuracy")
    legend(axes[0, -1])
    figure.suptitle("Accuracy against tokens by set, with prompts (95 % intervals)")
    return figure


def think_on(arms: pd.DataFrame) -> Figure:
    """Think-on rate of the final system by difficulty: procedural tasks, and sets with levels."""
    auto = pick(arms, AFTER, "auto")
    made, rest = auto[auto["set"] == MADE], auto[auto["set"] != MADE]
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained", sharey=True)
    parts = [("procedural, by task", made.groupby("task")), ("other sets", rest.groupby("set"))]
    for axis, (title, groups) in zip(axes, parts, strict=True):
        colours = sns.color_palette("Dark2", max(1, len(groups)))
        for (name, part), colour in zip(groups, colours, strict=False):
            by_difficulty(axis, part, "thinks", color=colour, label=name)
        axis.set(title=title, xlabel="difficulty", ylim=(-0.03, 1.05))
        if len(groups):
            legend(axis)
    axes[0].set_ylabel("think-on rate")
    figure.suptitle("Where the final model thinks, by difficulty (95 % intervals)")
    return figure


def claims(arms: pd.DataFrame) -> list[Claim]:
    """What is claimed of single sets; of a set that is not there, nothing."""
    auto, on = (pick(arms, AFTER, arm) for arm in ("auto", "on"))
    fewer = paired_difference(auto, on, "tokens", relative=True)
    found = [
        _claim(
            "At least 30 % fewer tokens than always thinking, all sets together",
            percent(fewer, "+.1%"),
            fewer[0] <= -0.30 and fewer[2] < 0,
        )
    ]
    sums = auto["task"].eq("chain_sum") if "task" in auto else auto["set"].eq("no set")
    letters = auto["task"].eq("letter_counting") if "task" in auto else sums
    bounds = {  # what: (rows, the rate's bound, whether it is the least)
        "GSM8K": (auto["set"].eq("gsm8k"), 0.9, True),
        "sums of four terms and more": (sums & (auto["difficulty"] >= 4), 0.9, True),
        "one-digit sums": (sums & auto["difficulty"].eq(1), 0.3, False),
        "letter counting": (letters, 0.3, False),
    }
    for what, (rows, bound, least) in bounds.items():
        if rows.any():
            rate = bootstrap(auto[rows], "thinks")
            held = rate[0] >= bound if least else rate[0] <= bound
            most = "at least" if least else "at most"
            found.append(_claim(f"Think-on on {what} is {most} {bound:.0%}", percent(rate), held))
    if letters.any():
        gain = paired_difference(auto[letters], on[on["id"].isin(auto[letters]["id"])], "correct")
        told = "Letter counting: accuracy above always thinking's"
        found.append(_claim(told, points(gain), gain[1] > 0))
    levels = auto[auto["set"].eq("math500")]
    if levels["difficulty"].nunique() > 1:
        ends = (levels["difficulty"].agg(end) for end in ("max", "min"))
        hard, easy = (levels[levels["difficulty"] == level] for level in ends)
        rise = difference(hard, easy, "thinks")
        told = "MATH-500: think-on is higher at the highest level than at the lowest"
        found.append(_claim(told, points(rise), rise[1] > 0))
    for of, mine in auto.groupby("set"):
        theirs = on[on["id"].isin(mine["id"])]
        if mine["correct"].notna().any() and theirs["correct"].notna().any():
            kept = no_worse(mine, theirs, "correct", MARGIN)
            told = f"{of}: accuracy is not below always thinking's, within 2 points"
            found.append(_claim(told, str(kept), kept.held))
    return found + _distilled(arms)


def _distilled(arms: pd.DataFrame) -> list[Claim]:
    """That the distilled student is not below its teachers, of the sets that are trained on."""
    found = []
    for arm in ("on", "off"):
        pair = ("distilled", f"teacher {arm}")
        sides = [arms[arms["system"].eq(system) & arms["arm"].eq(arm)] for system in pair]
        for of in TRAINED:
            mine, other = (side[side["set"].eq(of)] for side in sides)
            if mine["correct"].notna().any() and other["correct"].notna().any():
                kept = no_worse(mine, other, "correct", MARGIN)
                told = f"{of}: distilled and forced {arm}, not below its teacher, within 2 points"
                found.append(_claim(told, str(kept), kept.held))
    return found


def _claim(told: str, measured: str, held: bool) -> Claim:
    return Claim(told, "not reported", measured, bool(held), "target")
