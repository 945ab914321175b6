"""Tables and figures of stage 07."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from katlab.intervals import bootstrap, percent, wilson
from katlab.plots import FINAL, OFF, ON, TOOL, bars, by_difficulty, legend


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


def by_wording(cases: pd.DataFrame) -> pd.DataFrame:
    """How often wishes are obeyed, by mode and wording, with Wilson's interval over prompts.

    Wording is "seen" (trained on) or "unseen". The sentence that is obeyed least is the first of
    them; few prompts carry the same one, so its rate is rough.
    """
    table = {}
    for (case, wording), frame in cases[cases["wish"].notna()].groupby(["case", "wording"]):
        obeyed = case.removeprefix("told ") == frame["mode"]
        each = obeyed.groupby(frame["wish"]).mean().sort_values(kind="stable")
        table[case, wording] = {
            "obeyed": percent((obeyed.mean(), *wilson(obeyed.sum(), len(obeyed)))),
            "prompts": len(frame),
            "sentences": len(each),
            "obeyed least": f"{each.index[0]} ({each.iloc[0]:.0%})",
        }
    return pd.DataFrame(table).T.rename_axis(["wish", "wording"])


def wording_takeaway(headline: dict[str, float]) -> str:
    """The sentence under `by_wording`'s table, from what `run` returns."""
    unseen = {mode: headline.get(f"obeys_unseen_{mode}") for mode in ("on", "off")}
    if short := [f"prompts.directive_{mode}" for mode, share in unseen.items() if share is None]:
        return (
            f"Too short to hold a sentence out: {' and '.join(short)}; what is tested there was "
            "trained on."
        )
    told = ", ".join(f"{share:.0%} (told {mode})" for mode, share in unseen.items())
    return f"In words that were never trained on the model obeys {told}."


def takeaway(headline: dict[str, float], steps: pd.DataFrame) -> str:
    """The sentence under `control_figure`, from what `run` returns and the agents' steps."""
    told = "Words set the mode in {obeys_on:.0%} (on) and {obeys_off:.0%} (off) of the queries"
    if "agent_steps_reached" in headline:
        told += "; agents do what was asked in {agent_steps_reached:.0%} of their steps, "
        each = steps.groupby("step")["reached"].mean()
        told += f"step by step {', '.join(f'{share:.0%}' for share in each)}"
    return told.format(**headline) + "."


def control_figure(cases: pd.DataFrame, steps: pd.DataFrame) -> Figure:
    """Think-on rate by difficulty as asked for in words, and what agents do at each step."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4), sharey=True, layout="constrained")
    for name, colour in (("told on", ON), ("plain", FINAL), ("told off", OFF)):
        label = {"plain": "nothing said"}.get(name, name)
        by_difficulty(left, cases[cases["case"] == name], "thinks", color=colour, label=label)
    left.set(title="wishes in words (95 % intervals)", ylabel="share", ylim=(-0.03, 1.05))
    legend(left, "think-on rate")
    if steps.empty:
        right.set(title="no agent was run", xlabel="step of the agent", xticks=[])
    else:
        _draw_steps(right, steps)
    figure.suptitle("Who decides: the user's words and the agent's step")
    return figure


def _draw_steps(axis: Axes, steps: pd.DataFrame) -> None:
    done = "does what was asked"
    kinds = {"thinks": "thinks", "reached": done}
    long = steps.melt(["id", "step"], list(kinds), "kind", "share").astype({"share": float})
    long["kind"] = long["kind"].map(kinds)
    bars(axis, long, "share", "step", "kind", {"thinks": ON, done: TOOL})
    asked = steps.groupby("step")["asks"].first()
    labels = [f"{step}: {words}" for step, words in asked.items()]
    axis.set_xticks(axis.get_xticks(), labels)
    axis.set_xlabel("step of the agent")
    axis.set_title(f"agents with tools (n = {steps['id'].nunique()}, 95 % intervals)")
    legend(axis)
