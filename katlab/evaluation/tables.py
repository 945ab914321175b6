"""Tables of stage 06: headline, Table 4, outcomes of decisions, what was not scored.

Report section 5 and Table 4. Deviation: the rows are the six categories in the report's three
groups, the columns are this run's own systems. Unscorable samples are in no accuracy.

    tables.headline(evaluation.run(stage))
"""

import pandas as pd
from markupsafe import Markup

from katlab import shown
from katlab.arms import ARMS
from katlab.evaluation import scores
from katlab.evaluation.routing import alarms, better_mode, failures, pass_rates, pick
from katlab.evaluation.systems import AFTER, BEFORE
from katlab.intervals import bootstrap, paired_difference, percent, points
from katlab.lab import StageRun

GROUPS = {  # the report's groups of Table 4
    "General Tasks": ("general", "multi_turn"),
    "Math & Text Reasoning": ("math", "science"),
    "Agent & Coding Tasks": ("code", "tool_use"),
}
HEADLINE = {  # of the headline's figures: name, unit, factor
    "auto_accuracy": ("accuracy", "%", 100),
    "auto_tokens": ("tokens", "per response", 1),
    "think_on": ("think-on rate", "%", 100),
    "well_formed": ("well formed", "%", 100),
    "hybrid_accuracy": ("hybrid accuracy", "%", 100),
    "decision_f1": ("decision F1", "0 to 1", 1),
    "gain_over_random": ("accuracy gained over a coin", "points", 100),
    "regret_accuracy": ("accuracy lost to the oracle", "points", 100),
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


def headline(figures: dict[str, float]) -> pd.DataFrame:
    """What `run` returns as a table: measure and unit x system, the model deciding."""
    rows = {
        (name, unit): {
            system: round(factor * figures[f"{system.replace(' ', '_')}_{key}"], 2)
            for system in (BEFORE, AFTER)
        }
        for key, (name, unit, factor) in HEADLINE.items()
    }
    index = pd.MultiIndex.from_tuples(rows, names=["measure", "unit"])
    return pd.DataFrame(list(rows.values()), index=index)


def price(arms: pd.DataFrame) -> pd.DataFrame:
    """What the saved tokens cost where: the final model deciding beside always thinking.

    By difficulty, then by category at the difficulties above `scores.EASIEST`; a difference of
    accuracies carries its interval.
    """
    auto, on = pick(arms, AFTER, "auto"), pick(arms, AFTER, "on")
    hard = auto["difficulty"] > scores.EASIEST
    groups = {f"difficulty {level}": auto["difficulty"] == level for level in _levels(auto)}
    groups |= {
        f"{category}, hard": hard & (auto["category"] == category)
        for category in sorted(auto["category"].unique())
    }
    rows = {}
    for name, at in groups.items():
        mine = auto[at]
        theirs = on[on["id"].isin(mine["id"])]
        if mine["correct"].isna().all() or theirs["correct"].isna().all():
            continue
        rows[name] = {
            "prompts": mine["id"].nunique(),
            "think-on rate": percent(bootstrap(mine, "thinks"), ".0%"),
            "accuracy": percent(bootstrap(mine, "correct"), ".0%"),
            "always thinking": percent(bootstrap(theirs, "correct"), ".0%"),
            "difference": points(paired_difference(mine, theirs, "correct")),
        }
    return pd.DataFrame(rows).T.rename_axis("queries")


def _levels(frame: pd.DataFrame) -> list[int]:
    return sorted(frame["difficulty"].unique())


def by_direct_pass_rate(arms: pd.DataFrame) -> pd.DataFrame:
    """Think-on rate and accuracy of the final system's auto arm by p_off, with n.

    p_off comes from the forced-off arm, so from other samples than the ones that are averaged.
    """
    auto, off = pick(arms, AFTER, "auto").astype({"correct": float}), pick(arms, AFTER, "off")
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


def ranked(table: pd.DataFrame) -> pd.DataFrame:
    """A `table_4` with the best of each row boxed, the second bold, the third underlined (HTML)."""
    marks = (
        "outline:1.5px solid;outline-offset:3px",
        "font-weight:700",
        "text-decoration:underline",
    )

    def mark(row: pd.Series) -> list[Markup]:
        shown, places = row.round(1), row.round(1).rank(method="dense", ascending=False)
        styles = [marks[int(p) - 1] if p <= len(marks) else "" for p in places]
        cells = zip(styles, shown, strict=True)
        return [Markup('<span style="{}">{:.1f}</span>').format(*cell) for cell in cells]

    rows = [mark(row) for _, row in table.iterrows()]
    # As objects, since pandas' own strings forget that they are HTML.
    return pd.DataFrame(rows, index=table.index, columns=table.columns, dtype=object)


def gate(summary: dict) -> pd.DataFrame:
    """The gate's own figures, one column per system; a triple is a mean with its 95 % interval."""
    rows = {
        "hybrid accuracy": lambda x: f"{x['hybrid_accuracy']:.1%}",
        "decision F1": lambda x: f"{x['decision_f1']:.3f}",
        "queries that should think": lambda x: f"{x['should_think']:.1%}",
        "regret, accuracy": lambda x: points(x["regret_accuracy"]),
        "regret, tokens": lambda x: "{:+.1f} [{:+.1f}, {:+.1f}]".format(*x["regret_tokens"]),
        "gain over a coin of its rate": lambda x: points(x["gain_over_random"]),
        "share of tokens in the judge": lambda x: f"{x['judge_share']:.1%}",
        "judge names the mode decided on": lambda x: percent(x["judge_named"]),
        "think-off outputs that think in the open": lambda x: (
            "–" if x["hacking"] is None else percent(x["hacking"])
        ),
        "unscorable samples, three arms": lambda x: f"{x['unscorable']:.1%}",
        "prompts": lambda x: x["prompts"],
        "samples": lambda x: x["samples"],
    }
    return pd.DataFrame({s: {k: f(x) for k, f in rows.items()} for s, x in summary.items()})


def leaks(summary: dict) -> pd.DataFrame:
    """Whether thinking leaks into forced-off answers, and every alarm that rings, by system."""
    rows = {}
    for system, figures in summary.items():
        excess = figures["answer_tokens_off_minus_on"]
        more = "no well-formed pair" if excess is None else f"{excess:+.2f}"
        rows[system] = {
            "answer tokens, off minus on": more,
            "answers with reflection, off": f"{figures['marked_off']:.1%}",
            "answers with reflection, on": f"{figures['marked_on']:.1%}",
            "alarms": " ".join(alarms(figures)) or "none",
        }
    return pd.DataFrame(rows)


def cells(arms: pd.DataFrame) -> pd.DataFrame:
    """Accuracy and tokens of the final system's auto arm by category x difficulty, n per cell."""
    auto = pick(arms, AFTER, "auto").astype({"correct": float})
    size = auto.groupby(["category", "difficulty"])["id"].nunique().groupby("category").min()
    parts = {}
    for name, column, digits in (("accuracy", "correct", 2), ("tokens", "tokens", 1)):
        means = auto.pivot_table(column, "category", "difficulty", aggfunc="mean").round(digits)
        means.insert(0, "prompts per cell", size)
        parts[name] = means
    return pd.concat(parts, names=["measure", "category"])


def unscorable(arms: pd.DataFrame) -> pd.DataFrame:
    """Samples that no verifier could grade, by system and arm: samples, how many, which share."""
    missing = arms["correct"].isna().groupby([arms["system"], arms["arm"]])
    table = missing.agg(samples="size", unscorable="sum")
    return table.assign(share=(table["unscorable"] / table["samples"]).map("{:.1%}".format))


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


def browse(stage: StageRun) -> None:
    """Give every sample to the run's browser, with the two judging systems side by side."""
    pair, fragment = (BEFORE, AFTER), f"system={AFTER}&arm=auto"
    shown.show(stage, "arms.jsonl", "queries.jsonl", pair=pair, fragment=fragment)
