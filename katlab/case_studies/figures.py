"""Tables, figure and verdict of stage 07."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from katlab.intervals import bootstrap, paired_difference, percent
from katlab.plots import GREY, OFF, ON, TOOL, by_difficulty

FORMED = 0.5  # below this share of well-formed replies nothing is said about behaviour


def by_case(cases: pd.DataFrame) -> pd.DataFrame:
    """Each case's think-on rate and accuracy with intervals, well-formed share, tokens, counts.

    Unscorable replies are counted and are in no accuracy.
    """
    table = {
        name: {
            "think-on rate": percent(bootstrap(frame, "thinks")),
            "accuracy": percent(bootstrap(frame, "correct")),
            "well formed": f"{frame['well_formed'].mean():.1%}",
            "tokens": f"{frame['tokens'].mean():.1f}",
            "prompts": frame["id"].nunique(),
            "unscorable": frame["correct"].isna().sum(),
        }
        for name, frame in cases.groupby("case", sort=False)
    }
    return pd.DataFrame(table).T


def verdict(
    cases: pd.DataFrame, steps: pd.DataFrame
) -> list[tuple[str, object, object, bool | None]]:
    """The rows of stage 07's verdict; what the report shows once is measured over n queries.

    With fewer than half of the plain replies well formed, every claim but the one about the format
    is not applicable; so are the claims about agents where none was run (`steps` has no row).
    """
    case = dict(list(cases.groupby("case")))
    plain, forced = case["plain"], pd.concat([case["forced on"], case["forced off"]])
    simple = plain[plain["difficulty"] == plain["difficulty"].min()]
    hard = plain[plain["difficulty"] == plain["difficulty"].max()]
    calm = _share(~simple["thinks"], simple["id"])
    deep = bootstrap(hard, "thinks")
    told = {
        m: _share(case[f"told {m}"]["mode"].eq(m), case[f"told {m}"]["id"]) for m in ("off", "on")
    }
    formed = bootstrap(forced, "well_formed")
    less = paired_difference(simple, case["teacher"], "tokens", relative=True)
    behaviour = [
        (
            "A simple query is answered without thinking (Figure 10)",
            "one example",
            f"{percent(calm)}, n = {len(simple)}",
            calm[0] >= 0.80,
        ),
        (
            "It costs fewer tokens than a reasoning model",
            "379 thought tokens saved",
            f"{percent(less, '+.0%')}, n = {len(simple)}",
            less[2] < 0,
        ),
        (
            "A hard query is thought through (Figure 11)",
            "one example",
            f"{percent(deep)}, n = {len(hard)}",
            deep[0] >= 0.90,
        ),
        *_agents(steps),
        (
            "The query's wish for no thought is obeyed (Figure 13)",
            "one example",
            f"{percent(told['off'])}, n = {plain['id'].nunique()}",
            told["off"][0] >= 0.90,
        ),
        (
            "The query's wish for a deeper thought is obeyed (Figure 13)",
            "one example",
            f"{percent(told['on'])}, n = {plain['id'].nunique()}",
            told["on"][0] >= 0.90,
        ),
    ]
    if plain["well_formed"].mean() < FORMED:
        behaviour = [(*row[:3], None) for row in behaviour]
    claim = "A mode forced by program gives well-formed replies"
    measured = f"{percent(formed)}, n = {len(forced)}"
    return [*behaviour, (claim, "not reported", measured, formed[0] >= 0.98)]


def _agents(steps: pd.DataFrame) -> list[tuple[str, object, object, bool | None]]:
    switching = "An agent switches modes along its steps (Figure 12)"
    calling = "Its tool calls do what was asked"
    if steps.empty:
        return [
            (claim, "one trajectory", "no agent was run", None) for claim in (switching, calling)
        ]
    both = steps.groupby("id")["thinks"].agg(lambda t: t.any() and not t.all()).astype(bool)
    switches = _share(both, both.index)
    reached = bootstrap(steps, "reached")
    return [
        (
            switching,
            "one trajectory",
            f"{percent(switches)}, {steps['id'].nunique()} agents",
            switches[0] >= 0.90,
        ),
        (calling, "one trajectory", f"{percent(reached)}, {len(steps)} steps", reached[0] >= 0.80),
    ]


def _share(flags: pd.Series, ids: pd.Series) -> tuple[float, float, float]:
    """How often a flag is true, with its interval over the prompts or agents `ids`."""
    return bootstrap(pd.DataFrame({"id": list(ids), "flag": list(flags)}), "flag")


def takeaway(headline: dict[str, float]) -> str:
    """The sentence under `control_figure`, from what `run` returns."""
    told = "Words set the mode in {obeys_on:.0%} (on) and {obeys_off:.0%} (off) of the queries"
    if "agent_steps_reached" in headline:
        told += "; agents turn the dial right in {agent_steps_reached:.0%} of their steps"
    return told.format(**headline) + "."


def control_figure(cases: pd.DataFrame, steps: pd.DataFrame) -> Figure:
    """Think-on rate by difficulty as asked for in words, and what agents do at each step."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4), sharey=True, layout="constrained")
    for name, colour in (("told on", ON), ("plain", GREY), ("told off", OFF)):
        label = {"plain": "nothing said"}.get(name, name)
        by_difficulty(left, cases[cases["case"] == name], "thinks", color=colour, label=label)
    left.set(title="wishes in words (95 % intervals)", ylabel="share", ylim=(-0.03, 1.05))
    left.legend(title="think-on rate", frameon=False)
    if steps.empty:
        right.set(title="no agent was run", xlabel="step of the agent", xticks=[])
    else:
        _draw_steps(right, steps)
    figure.suptitle("Who decides: the user's words and the agent's step")
    return figure


def _draw_steps(axis: Axes, steps: pd.DataFrame) -> None:
    by_step = steps.groupby("step")[["thinks", "reached"]].mean()
    axis.bar(by_step.index - 0.2, by_step["thinks"], 0.36, color=ON, label="thinks")
    axis.bar(by_step.index + 0.2, by_step["reached"], 0.36, color=TOOL, label="dial is right")
    asked = steps.groupby("step")["changes"].first()
    labels = [f"{step}: {n} change{'s' * (n > 1)}" for step, n in asked.items()]
    axis.set(xticks=by_step.index, xticklabels=labels, xlabel="step of the agent")
    axis.set_title(f"agents with tools (n = {steps['id'].nunique()})")
    axis.legend(frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.25))
