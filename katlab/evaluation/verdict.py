"""The claims of stage 06: what the report says of the gate, and what it has to beat to mean it.

Report section 4.3.2 and Figures 7-9. Deviation: the thresholds and margins are this workbench's,
since the report gives points at another scale.

    stage.verdict(verdict.rows(arms, summary, stage.settings.delta))
"""

import pandas as pd

from katlab.arms import ARMS
from katlab.evaluation import sets, systems
from katlab.evaluation.routing import NAMED, pick, regret
from katlab.evaluation.systems import AFTER, BEFORE
from katlab.evaluation.tables import difference
from katlab.intervals import bootstrap, no_worse, paired_difference, percent, points
from katlab.lab import Claim

FORMED, ACCURACY = 0.9, 0.2  # below either, nothing is said about behaviour
MARGIN = 0.02  # accuracy that may be lost where a claim says "within 2 points"


def rows(arms: pd.DataFrame, summary: dict, delta: float = 0.0) -> list[Claim]:
    """`summary` is `routing.summarize`'s by system, with the `rule` that `controls.best` named.

    A model that rarely writes the format, or is rarely right, decides nothing: where fewer than
    `FORMED` of the final system's outputs are well formed or fewer than `ACCURACY` right, every
    claim but the one about the format is not applicable.
    """
    after = summary[AFTER]
    behaviour = [*_against_the_start(arms, summary, delta), *_against_controls(arms, after, delta)]
    behaviour += sets.claims(arms) if sets.several(arms) else []
    if after["well_formed"][0] < FORMED or after["auto_accuracy"][0] < ACCURACY:
        behaviour = [claim.withheld() for claim in behaviour]
    formed = min(summary[system]["well_formed"] for system in (BEFORE, AFTER))
    claim = "At least 98 % of the outputs are well formed, before and after"
    found = Claim(claim, "not reported", percent(formed), formed[0] >= 0.98, "target")
    return [*behaviour, found, *_facts(arms, after)]


def _against_the_start(arms: pd.DataFrame, summary: dict, delta: float) -> list[Claim]:
    """What Step-SRPO changed: the report's claims, and what they must not have cost."""
    before, after = (pick(arms, system, "auto") for system in (BEFORE, AFTER))
    kept = no_worse(after, before, "correct", MARGIN)
    fewer = difference(arms, "tokens", relative=True)
    rates = [summary[system]["think_on"] for system in (BEFORE, AFTER)]
    levels = after["difficulty"]
    hardest, easiest = (
        bootstrap(after[levels == level], "thinks") for level in (levels.max(), levels.min())
    )
    teacher = pick(arms, "teacher on", "on")
    less = paired_difference(after, teacher, "tokens", relative=True)
    return [
        Claim(
            "Accuracy is not below the cold start's, within 2 points",
            "improves",
            str(kept),
            kept.held,
            "report",
        ),
        Claim(
            "Generated tokens fall by at least 19 %",
            "9,887 to 8,037 (-19 %)",
            percent(fewer, "+.1%"),
            fewer[0] <= -0.19 and fewer[2] < 0,
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
            "Fewer tokens than the reasoning teacher (Figure 9)",
            "fewer on each benchmark",
            percent(less, "+.1%"),
            less[2] < 0,
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
        *(_no_loss(arms, arm) for arm in ("off", "on")),
        _regret(arms, delta),
    ]


def _no_loss(arms: pd.DataFrame, arm: str) -> Claim:
    kept = no_worse(pick(arms, AFTER, arm), pick(arms, BEFORE, arm), "correct", MARGIN)
    claim = f"Forced {arm}, accuracy is not below the cold start's, within 2 points"
    return Claim(claim, "not reported", str(kept), kept.held, "target")


def _regret(arms: pd.DataFrame, delta: float) -> Claim:
    """Regret is a loss, so the gate's is no worse if its negative is no lower."""
    lost = {system: regret(arms, system, delta) for system in (BEFORE, AFTER)}
    now, then = (lost[system].assign(gained=-lost[system]["lost"]) for system in (AFTER, BEFORE))
    kept = no_worse(now, then, "gained", MARGIN)
    means = [f"{100 * lost[system]['lost'].mean():+.1f}" for system in (BEFORE, AFTER)]
    return Claim(
        "Accuracy lost to the oracle is not above the cold start's, within 2 points",
        "not reported",
        f"{means[0]} to {means[1]} points lost; gained {kept}",
        kept.held,
        "target",
    )


def _against_controls(arms: pd.DataFrame, after: dict, delta: float) -> list[Claim]:
    """The gate against always thinking, and against ways to choose that know less."""
    auto, on, _ = (pick(arms, AFTER, arm) for arm in ARMS)
    ways = systems.ways(arms, after["rule"], delta)
    kept, less = (
        no_worse(auto, on, "correct", MARGIN),
        paired_difference(auto, on, "tokens", relative=True),
    )
    named, leaks = after["judge_named"], after["hacking"]
    gains = {
        "The gate beats a coin with its own think-on rate": systems.COIN,
        "The gate beats the best rule of one feature, at equal tokens": systems.RULE,
        "The gate beats a threshold on the cold start's P(on), at equal tokens": systems.START_P,
    }
    found = {claim: paired_difference(auto, ways[way], "correct") for claim, way in gains.items()}
    return [
        Claim(
            "Accuracy is not below always thinking's, within 2 points",
            "not reported",
            str(kept),
            kept.held,
            "target",
        ),
        Claim(
            "Fewer tokens than always thinking",
            "not reported",
            percent(less, "+.1%"),
            less[2] < 0,
            "target",
        ),
        *(
            Claim(claim, "not reported", points(gain), gain[1] > 0, "target")
            for claim, gain in found.items()
        ),
        Claim(
            "The judge names the mode it takes (at least 95 %)",
            "it explains the decision",
            percent(named),
            named[0] >= NAMED,
            "target",
        ),
        Claim(
            "At most 2 % of the think-off outputs think in the open",
            "not reported",
            "no think-off output" if leaks is None else percent(leaks),
            None if leaks is None else leaks[0] <= 0.02,
            "target",
        ),
    ]


def _facts(arms: pd.DataFrame, after: dict) -> list[Claim]:
    """What the headline does not say; none of it is a claim."""
    shown = {
        "Prompts, and problems that differ in more than names": (
            f"{after['prompts']}, {pick(arms, AFTER, 'auto')['cluster'].nunique()}"
        ),
        "Accuracy of the final model, and of always thinking": (
            f"{percent(after['auto_accuracy'])}, {percent(after['on_accuracy'])}"
        ),
        "The mode chosen is the better one (hybrid accuracy)": f"{after['hybrid_accuracy']:.1%}",
        f"AUC_OAA (limit: {after['t_max']:.0f} thought tokens), F1, OckScore": ", ".join(
            "–" if after[key] is None else format(after[key], form)
            for key, form in (("auc_oaa", ".3f"), ("f1_otb", ".3f"), ("ock_score", ".2f"))
        ),
        "Feature of the best one-feature rule": after["rule"],
        "Unscorable samples": f"{after['unscorable']:.1%}",
    }
    if "base" in set(arms["system"]):
        base = pick(arms, "base", "free")
        right, rate = bootstrap(base, "correct"), bootstrap(base, "thinks")
        shown["Base before any stage: accuracy, tokens, works in the open"] = (
            f"{percent(right)}, {base['tokens'].mean():.1f}, {percent(rate)}"
        )
    return [Claim(name, "–", value, None, "fact") for name, value in shown.items()]
