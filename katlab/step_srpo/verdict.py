"""The claims of stage 05: what training did to its own rollouts (report section 4.3.1).

What the final student is worth beside the cold start is claimed in stage 06, on other queries.

    stage.verdict(verdict.rows(rollouts, stage.config.prompts.rationale_pattern))
"""

import pandas as pd

from katlab import arms, samples
from katlab.intervals import bootstrap, difference, no_worse, percent, points
from katlab.lab import Claim

FORMED, ACCURACY = 0.9, 0.2  # below either, what training did to behaviour means nothing
MARGIN = 0.02  # accuracy that a forced mode may lose


def rows(rollouts: pd.DataFrame, forced: pd.DataFrame, names_mode: str) -> list[Claim]:
    """`rollouts` and `forced` (forced.jsonl) as `stage.run` left them.

    The last sixth of the rollouts' steps is held against the first. `names_mode` is as in
    `samples.judge_agrees`. Where fewer than `FORMED` of the last rollouts are well formed or fewer
    than `ACCURACY` right, only the claim about the format applies.
    """
    marked = arms.with_flags(rollouts)
    marked = marked.assign(agrees=samples.judge_agrees(marked, names_mode))
    sixth = max(1, (int(marked["step"].max()) + 1) // 6)
    first = marked[marked["step"] < sixth]
    last = marked[marked["step"] > marked["step"].max() - sixth]
    thinks, shorter = difference(last, first, "thinks"), difference(last, first, "tokens", True)
    formed = bootstrap(last, "well_formed")
    named = bootstrap(last, "agrees") if last["agrees"].notna().any() else (0.0, 0.0, 0.0)
    behaviour = [
        Claim(
            "The share of think-on rollouts falls (Figure 5)",
            "falls, then settles",
            points(thinks),
            thinks[2] < 0,
            "report",
        ),
        Claim(
            "Rollouts grow shorter (Figure 6)",
            "declines steadily",
            percent(shorter, "+.1%"),
            shorter[2] < 0,
            "report",
        ),
        Claim(
            "In the last rollouts the judge names the mode it takes",
            "≥ 95 % (ours)",
            percent(named),
            named[0] >= 0.95,
            "target",
        ),
    ]
    behaviour += [_no_loss(forced, arm) for arm in ("off", "on")]
    right = last["correct"].astype(float).mean()
    if not (formed[0] >= FORMED and right >= ACCURACY):
        behaviour = [claim.withheld() for claim in behaviour]
    claim, bar = "The last rollouts are well formed", "≥ 98 % (ours)"
    return [*behaviour, Claim(claim, bar, percent(formed), formed[0] >= 0.98, "target")]


def _no_loss(forced: pd.DataFrame, arm: str) -> Claim:
    """A self-check on this stage's own queries; stage 06 makes it a claim, on others."""
    samples = forced[forced["arm"] == arm]
    before, after = (samples[samples["student"] == name] for name in ("before", "after"))
    kept = no_worse(after, before, "correct", MARGIN)
    claim = f"Training costs no accuracy with think-{arm} forced, within 2 points"
    return Claim(claim, "not reported", str(kept), kept.held, "check")
