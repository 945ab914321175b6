"""Tables, figure and verdict of stage 07."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from katlab.intervals import bootstrap, paired_difference


def by_case(cases: pd.DataFrame) -> pd.DataFrame:
    """Each case's think-on rate and accuracy with intervals, well-formed share, tokens, prompts."""
    table = {}
    for name, frame in cases.groupby("case", sort=False):
        rate, accuracy = bootstrap(frame, "thinks"), bootstrap(frame, "correct")
        table[name] = {
            "think-on rate": _percent(rate),
            "accuracy": _percent(accuracy),
            "well formed": f"{frame['well_formed'].mean():.1%}",
            "tokens": f"{frame['tokens'].mean():.1f}",
            "prompts": frame["id"].nunique(),
        }
    return pd.DataFrame(table).T


def verdict(
    cases: pd.DataFrame, steps: pd.DataFrame
) -> list[tuple[str, object, object, bool | None]]:
    """The rows of stage 07's verdict; what the report shows once is measured over `n` queries."""
    case = dict(list(cases.groupby("case")))
    easiest, hardest = cases["difficulty"].min(), cases["difficulty"].max()
    simple = case["plain"][case["plain"]["difficulty"] == easiest]
    hard = case["plain"][case["plain"]["difficulty"] == hardest]
    calm, deep = bootstrap(simple.assign(off=~simple["thinks"]), "off"), bootstrap(hard, "thinks")
    told = {
        mode: bootstrap(frame.assign(obeys=frame["mode"].eq(mode)), "obeys")
        for mode, frame in (("off", case["told off"]), ("on", case["told on"]))
    }
    forced = pd.concat([case["forced on"], case["forced off"]])
    formed = bootstrap(forced, "well_formed")
    reached = bootstrap(steps, "reached")
    both = steps.groupby("id")["thinks"].agg(lambda t: t.any() and not t.all())
    switches = bootstrap(both.rename("both").reset_index(), "both")
    less = paired_difference(simple, case["teacher"], "tokens", relative=True)
    n, m = case["plain"]["id"].nunique(), steps["id"].nunique()
    return [
        (
            f"A simple query is answered without thinking (Figure 10; n = {len(simple)})",
            "one example",
            _percent(calm),
            calm[0] >= 0.80,
        ),
        (
            f"It costs fewer tokens than a reasoning model (n = {len(simple)})",
            "379 thought tokens saved",
            f"{less[0]:+.0%} [{less[1]:+.0%}, {less[2]:+.0%}]",
            less[2] < 0,
        ),
        (
            f"A hard query is thought through (Figure 11; n = {len(hard)})",
            "one example",
            _percent(deep),
            deep[0] >= 0.90,
        ),
        (
            f"An agent switches modes along its steps (Figure 12; {m} agents)",
            "one trajectory",
            _percent(switches),
            switches[0] >= 0.90,
        ),
        (
            f"Its tool calls do what was asked ({len(steps)} steps)",
            "one trajectory",
            _percent(reached),
            reached[0] >= 0.80,
        ),
        (
            f'"Do not think." in the query is obeyed (Figure 13; n = {n})',
            "one example",
            _percent(told["off"]),
            told["off"][0] >= 0.90,
        ),
        (
            f'"Think deeper." in the query is obeyed (Figure 13; n = {n})',
            "one example",
            _percent(told["on"]),
            told["on"][0] >= 0.90,
        ),
        (
            f"A mode forced by program gives well-formed replies (n = {len(forced)})",
            "not reported",
            _percent(formed),
            formed[0] >= 0.98,
        ),
    ]


def control_figure(cases: pd.DataFrame, steps: pd.DataFrame) -> Figure:
    """Think-on rate by difficulty as asked for in words, and what agents do at each step."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4), sharey=True, layout="constrained")
    for name, colour in (("told on", "#2563eb"), ("plain", "#94a3b8"), ("told off", "#16a34a")):
        asked = cases[cases["case"] == name]
        points = {d: bootstrap(part, "thinks") for d, part in asked.groupby("difficulty")}
        mean, low, high = np.array(list(points.values())).T
        left.errorbar(
            list(points),
            mean,
            yerr=[mean - low, high - mean],
            color=colour,
            marker="o",
            capsize=3,
            label={"plain": "nothing said"}.get(name, name),
        )
    left.set(title="wishes in words (95 % intervals)", xlabel="difficulty", xticks=list(points))
    left.set(ylabel="share", ylim=(-0.03, 1.05))
    left.legend(title="think-on rate", frameon=False)
    by_step = steps.groupby("step")[["thinks", "reached"]].mean()
    right.bar(by_step.index - 0.2, by_step["thinks"], 0.36, color="#2563eb", label="thinks")
    right.bar(by_step.index + 0.2, by_step["reached"], 0.36, color="#7c3aed", label="dial is right")
    asked = steps.groupby("step")["changes"].first()
    labels = [f"{step}: {n} change{'s' * (n > 1)}" for step, n in asked.items()]
    right.set(xticks=by_step.index, xticklabels=labels, xlabel="step of the agent")
    right.set_title(f"agents with tools (n = {steps['id'].nunique()})")
    right.legend(frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.25))
    figure.suptitle("Who decides: the user's words and the agent's step")
    return figure


def _percent(interval: tuple[float, float, float]) -> str:
    mean, low, high = interval
    return f"{mean:.1%} [{low:.1%}, {high:.1%}]"
