"""Tables and verdict of stage 06: Table 4, the routers, outcomes of decisions, format failures.

Report section 5 and Table 4. Deviations: (1) the rows are the nano world's six categories in the
report's three groups, the columns are this run's own systems; (2) the claims of the verdict are
those of section 4.3.2 with the numbers this workbench asks of them.

    stage.verdict(evaluation_tables.verdict(arms, summary))
"""

import pandas as pd
from pandas.io.formats.style import Styler

from katlab.arms import ARMS
from katlab.evaluation.routing import (
    alarms,
    better_mode,
    failures,
    oracle_router,
    pass_rates,
    pick,
    random_router,
)
from katlab.intervals import bootstrap, paired_difference

BEFORE, AFTER = "cold start", "final"
GROUPS = {  # the report's groups of Table 4
    "General Tasks": ("general", "multi_turn"),
    "Math & Text Reasoning": ("math", "science"),
    "Agent & Coding Tasks": ("code", "tool_use"),
}
COLUMNS = (  # of Table 4: system, arm, heading
    ("final", "auto", "final, auto"),
    ("final", "on", "final, forced on"),
    ("final", "off", "final, forced off"),
    ("cold start", "auto", "cold start, auto"),
    ("distilled", "on", "distilled, on"),
    ("distilled", "off", "distilled, off"),
    ("teacher on", "on", "teacher on"),
    ("teacher off", "off", "teacher off"),
)


def routers(arms: pd.DataFrame, system: str = AFTER, delta: float = 0.0) -> pd.DataFrame:
    """Ways to choose the mode, on the same prompts: accuracy with interval, tokens, think-on, n."""
    auto, on, off = (pick(arms, system, arm) for arm in ARMS)
    rate = auto["thinks"].mean()
    oracle = oracle_router(on, off, delta)
    ways = {
        "auto": (auto, rate),
        "random, same rate": (random_router(on, off, rate), rate),
        "always on": (on, 1.0),
        "always off": (off, 0.0),
        "oracle": (oracle, oracle["mode"].eq("on").mean()),
    }
    table = []
    for name, (frame, share) in ways.items():
        accuracy, low, high = bootstrap(frame, "correct")
        table.append(
            {
                "router": name,
                "accuracy": accuracy,
                "accuracy low": low,
                "accuracy high": high,
                "tokens": frame["tokens"].mean(),
                "think-on rate": share,
                "prompts": frame["id"].nunique(),
            }
        )
    return pd.DataFrame(table).set_index("router")


def by_direct_pass_rate(arms: pd.DataFrame, system: str = AFTER) -> pd.DataFrame:
    """Think-on rate and accuracy of the auto arm by p_off, with n.

    p_off comes from the forced-off arm, so from other samples than the ones that are averaged.
    """
    auto, off = pick(arms, system, "auto").astype({"correct": float}), pick(arms, system, "off")
    auto = auto.assign(p_off=auto["id"].map(pass_rates(off)))
    return auto.groupby("p_off").agg(
        think_on=("thinks", "mean"), accuracy=("correct", "mean"), prompts=("id", "nunique")
    )


def outcomes(arms: pd.DataFrame, system: str = AFTER, delta: float = 0.0) -> pd.DataFrame:
    """What came of each decision: accuracy and tokens by the mode chosen and the better mode m*."""
    auto, on, off = (pick(arms, system, arm) for arm in ARMS)
    auto = auto.assign(better=auto["id"].map(better_mode(on, off, delta)))
    auto = auto.astype({"correct": float})
    grouped = auto.groupby(["better", "mode"])
    table = grouped.agg(
        samples=("id", "size"), accuracy=("correct", "mean"), tokens=("tokens", "mean")
    ).reset_index()
    kinds = {
        ("on", "on"): "rightly on",
        ("off", "off"): "rightly off",
        ("on", "off"): "thought was missing",
        ("off", "on"): "thought was needless",
    }
    table.insert(
        2, "outcome", [kinds[pair] for pair in zip(table["better"], table["mode"], strict=True)]
    )
    return table.rename(columns={"better": "better mode", "mode": "chosen"})


def table_4(arms: pd.DataFrame, column: str = "correct") -> pd.DataFrame:
    """Mean of a column, categories in the report's groups x systems; the index names the prompts.

    Accuracy is in per cent, tokens are tokens. `ranked` marks the best three of a row.
    """
    sampled = set(zip(arms["system"], arms["arm"], strict=True))
    scale = 100 if column == "correct" else 1
    rows = {}
    for group, categories in {**GROUPS, "All": tuple(sum(GROUPS.values(), ()))}.items():
        for names in [categories] if group == "All" else [(name,) for name in categories]:
            chosen = arms[arms["category"].isin(names)]
            if chosen.empty:  # the user's own queries need not span the six categories
                continue
            label = "mean" if group == "All" else names[0]
            rows[group, label, chosen["id"].nunique()] = {
                heading: scale * pick(chosen, system, arm)[column].astype(float).mean()
                for system, arm, heading in COLUMNS
                if (system, arm) in sampled
            }
    index = pd.MultiIndex.from_tuples(rows, names=["group", "category", "prompts"])
    return pd.DataFrame(list(rows.values()), index=index)


def ranked(table: pd.DataFrame) -> Styler:
    """A `table_4` with the best of each row boxed, the second bold, the third underlined."""
    marks = (
        "outline:1.5px solid #334155;outline-offset:-4px",
        "font-weight:700",
        "text-decoration:underline",
    )

    def mark(row: pd.Series) -> list[str]:
        places = row.round(1).rank(method="dense", ascending=False)
        return [marks[int(p) - 1] if p <= len(marks) else "" for p in places]

    return table.style.format("{:.1f}").apply(mark, axis=1)


def gate(summary: dict) -> pd.DataFrame:
    """The gate's own figures, one column a system; a triple is a mean with its 95 % interval."""
    rows = {
        "hybrid accuracy": lambda x: f"{x['hybrid_accuracy']:.1%}",
        "decision F1": lambda x: f"{x['decision_f1']:.3f}",
        "queries that should think": lambda x: f"{x['should_think']:.1%}",
        "regret, accuracy": lambda x: _points(x["regret_accuracy"]),
        "regret, tokens": lambda x: "{:+.1f} [{:+.1f}, {:+.1f}]".format(*x["regret_tokens"]),
        "gain over a coin of its rate": lambda x: _points(x["gain_over_random"]),
        "share of tokens in the judge": lambda x: f"{x['judge_share']:.1%}",
        "judge names the mode decided on": lambda x: f"{x['judge_agreement']:.1%}",
        "prompts": lambda x: x["prompts"],
        "samples": lambda x: x["samples"],
    }
    return pd.DataFrame({s: {k: f(x) for k, f in rows.items()} for s, x in summary.items()})


def leaks(summary: dict) -> pd.DataFrame:
    """Whether thinking leaks into forced-off answers, and every alarm that rings, by system."""
    rows = {}
    for system, figures in summary.items():
        excess = figures["answer_tokens_off_minus_on"]
        rows[system] = {
            "answer tokens, off minus on": "no well-formed pair" if excess is None else excess,
            "answers with reflection, off": f"{figures['marked_off']:.1%}",
            "answers with reflection, on": f"{figures['marked_on']:.1%}",
            "alarms": " ".join(alarms(figures)) or "none",
        }
    return pd.DataFrame(rows)


def cells(arms: pd.DataFrame, system: str = AFTER) -> pd.DataFrame:
    """Accuracy and tokens of the auto arm by category x difficulty, with the prompts of a cell."""
    auto = pick(arms, system, "auto").astype({"correct": float})
    size = auto.groupby(["category", "difficulty"])["id"].nunique().groupby("category").min()
    parts = {}
    for name, column, digits in (("accuracy", "correct", 2), ("tokens", "tokens", 1)):
        means = auto.pivot_table(column, "category", "difficulty", aggfunc="mean").round(digits)
        means.insert(0, "prompts a cell", size)
        parts[name] = means
    return pd.concat(parts, names=["measure", "category"])


def failure_table(arms: pd.DataFrame) -> pd.DataFrame:
    """Share of samples with each format problem, by system and arm, with n."""
    judged = arms[~arms["system"].str.startswith("teacher")]
    table = {key: failures(frame) for key, frame in judged.groupby(["system", "arm"])}
    frame = pd.DataFrame(table).T
    frame.insert(0, "samples", judged.groupby(["system", "arm"]).size())
    return frame.loc[:, (frame != 0).any()]


def difference(arms: pd.DataFrame, column: str, relative: bool = False) -> tuple:
    """Final minus cold start in the auto arm: mean, low, high over their shared prompts."""
    after, before = (pick(arms, system, "auto") for system in (AFTER, BEFORE))
    return paired_difference(after, before, column, relative=relative)


def verdict(arms: pd.DataFrame, summary: dict) -> list[tuple[str, object, object, bool | None]]:
    """The rows of stage 06's verdict: claim, reported, measured with its interval, held."""
    accuracy = difference(arms, "correct")
    saved = [-x for x in difference(arms, "tokens", relative=True)]
    rates = [summary[system]["think_on"] for system in (BEFORE, AFTER)]
    final = pick(arms, AFTER, "auto")
    hardest, easiest = (
        bootstrap(final[final["difficulty"] == d], "thinks")
        for d in (final["difficulty"].max(), final["difficulty"].min())
    )
    formed = min(summary[system]["well_formed"] for system in (BEFORE, AFTER))
    gain = summary[AFTER]["gain_over_random"]
    n = final["id"].nunique()
    rows = [
        (
            f"Accuracy is no lower than the cold start's (paired over {n} prompts; held unless the "
            "whole interval lies below 0)",
            "improves",
            _points(accuracy),
            accuracy[2] >= 0,
        ),
        (
            "Generated tokens fall by at least 19 %",
            "9,887 to 8,037 (-19 %)",
            f"{-saved[0]:+.1%} [{-saved[1]:+.1%}, {-saved[2]:+.1%}]",
            saved[0] >= 0.19,
        ),
        (
            "The think-on rate falls",
            "90 % to 66 %",
            f"{_percent(rates[0])} to {_percent(rates[1])}",
            difference(arms, "thinks")[2] < 0,
        ),
        (
            "Think-on at the hardest difficulty is at least 90 %",
            "> 80 % on AIME, GPQA, LCB",
            _percent(hardest),
            hardest[0] >= 0.90,
        ),
        (
            "Think-on at the easiest difficulty is at most 20 %",
            "falls on GSM8K, MBPP, IFEval",
            _percent(easiest),
            easiest[0] <= 0.20,
        ),
        (
            "At least 98 % of the outputs are well formed, before and after",
            "not reported",
            _percent(formed),
            formed[0] >= 0.98,
        ),
        (
            "The gate beats a coin with its own think-on rate",
            "not reported",
            _points(gain),
            gain[1] > 0,
        ),
    ]
    less = paired_difference(final, pick(arms, "teacher on", "on"), "tokens", relative=True)
    rows.append(
        (
            "Fewer tokens than the reasoning teacher (Figure 9)",
            "fewer on each benchmark",
            f"{less[0]:+.1%} [{less[1]:+.1%}, {less[2]:+.1%}]",
            less[2] < 0,
        )
    )
    return rows


def _percent(interval: tuple | list) -> str:
    mean, low, high = interval
    return f"{mean:.1%} [{low:.1%}, {high:.1%}]"


def _points(interval: tuple | list) -> str:
    mean, low, high = (100 * x for x in interval)
    return f"{mean:+.1f} points [{low:+.1f}, {high:+.1f}]"
