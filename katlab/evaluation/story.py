"""The result of a run in three sentences, made from what stage 06 measured.

stage.story(*story.sentences(arms, summary, systems))
"""

import pandas as pd

from katlab.evaluation.routing import pick
from katlab.evaluation.systems import AFTER, BEFORE
from katlab.evaluation.tables import difference
from katlab.evaluation.verdict import FORMED
from katlab.intervals import percent, points


def sentences(arms: pd.DataFrame, summary: dict, table: pd.DataFrame) -> list[str]:
    """What is gained, whether the model knows when to think, and what it costs.

    `summary` is `routing.summarize`'s by system, `table` is `systems.table`. Of a model that
    rarely writes the format nothing is told but that.
    """
    before, after = summary[BEFORE], summary[AFTER]
    if after["well_formed"][0] < FORMED:
        formed = percent(after["well_formed"])
        return [f"Only {formed} of the outputs are well formed: nothing is said of when it thinks."]
    rates = pick(arms, AFTER, "auto").groupby("difficulty")["thinks"].mean()
    tokens = percent(difference(arms, "tokens", relative=True), "+.1%")
    always, cheap = table.loc["final, always on"], table.loc["final, it decides"]
    return [
        f"After Step-SRPO the model answers {after['prompts']} held-out queries with "
        f"{cheap['tokens']:.0f} tokens each instead of {before['auto_tokens'][0]:.0f} ({tokens}) "
        f"and is right in {percent(after['auto_accuracy'])}; the change in accuracy is "
        f"{points(difference(arms, 'correct'))}.",
        f"It thinks on {rates.iloc[0]:.0%} of the easiest and {rates.iloc[-1]:.0%} of the hardest "
        f"queries and has {points(after['gain_over_random'])} over a coin that thinks as often.",
        f"What it costs: always thinking is right in {always['accuracy']:.1%} with "
        f"{always['tokens']:.0f} tokens, the oracle is {points(after['regret_accuracy'])} ahead "
        f"({points(before['regret_accuracy'])} before Step-SRPO), and the judge names the mode "
        f"that is taken in {after['judge_agreement']:.1%} of the decisions "
        f"({before['judge_agreement']:.1%} before).",
    ]
