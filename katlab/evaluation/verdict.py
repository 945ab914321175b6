"""The claims of stage 06: what the report says of the gate, measured, held or not.

Report section 4.3.2 and Figures 7-9. Deviation: the thresholds are this workbench's, since the
report gives points at another scale.

    stage.verdict(verdict.rows(arms, summary))
"""

import pandas as pd

from katlab.evaluation.routing import pick
from katlab.evaluation.tables import AFTER, BEFORE, difference
from katlab.intervals import bootstrap, paired_difference, percent, points
from katlab.lab import Claim

FORMED = 0.5  # below this share of well-formed outputs nothing is said about behaviour


def rows(arms: pd.DataFrame, summary: dict) -> list[Claim]:
    """Claim, reported, measured with its interval, held; `summary` is `routing.summarize`'s.

    A model that rarely writes the format decides nothing: with fewer than half of the final
    system's outputs well formed, every claim but the one about the format is not applicable.
    """
    accuracy = difference(arms, "correct")
    tokens = difference(arms, "tokens", relative=True)
    rates = [summary[system]["think_on"] for system in (BEFORE, AFTER)]
    final = pick(arms, AFTER, "auto")
    hardest, easiest = (
        bootstrap(final[final["difficulty"] == d], "thinks")
        for d in (final["difficulty"].max(), final["difficulty"].min())
    )
    formed = min(summary[system]["well_formed"] for system in (BEFORE, AFTER))
    gain = summary[AFTER]["gain_over_random"]
    less = paired_difference(final, pick(arms, "teacher on", "on"), "tokens", relative=True)
    behaviour = [
        Claim(
            "Accuracy is no lower than the cold start's (paired by prompt; held unless the whole "
            "interval lies below 0)",
            "improves",
            f"{points(accuracy)}, n = {final['id'].nunique()}",
            accuracy[2] >= 0,
            "report",
        ),
        Claim(
            "Generated tokens fall by at least 19 %",
            "9,887 to 8,037 (-19 %)",
            percent(tokens, "+.1%"),
            tokens[0] <= -0.19,
            "report",
        ),
        Claim(
            "The think-on rate falls",
            "90 % to 66 %",
            f"{percent(rates[0])} to {percent(rates[1])}",
            difference(arms, "thinks")[2] < 0,
            "report",
        ),
        Claim(
            "Think-on at the hardest difficulty is at least 90 %",
            "> 80 % on AIME, GPQA, LCB",
            percent(hardest),
            hardest[0] >= 0.90,
            "target",
        ),
        Claim(
            "Think-on at the easiest difficulty is at most 20 %",
            "falls on GSM8K, MBPP, IFEval",
            percent(easiest),
            easiest[0] <= 0.20,
            "target",
        ),
        Claim(
            "The gate beats a coin with its own think-on rate",
            "not reported",
            points(gain),
            gain[1] > 0,
            "target",
        ),
        Claim(
            "Fewer tokens than the reasoning teacher (Figure 9)",
            "fewer on each benchmark",
            percent(less, "+.1%"),
            less[2] < 0,
            "report",
        ),
    ]
    if summary[AFTER]["well_formed"][0] < FORMED:
        behaviour = [claim.withheld() for claim in behaviour]
    claim = "At least 98 % of the outputs are well formed, before and after"
    return [*behaviour, Claim(claim, "not reported", percent(formed), formed[0] >= 0.98, "target")]
