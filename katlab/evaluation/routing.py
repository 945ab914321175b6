"""What the three arms say about the gate: intervals, routers, regret, leakage, alarms.

Report section 4.3.2 gives think-on rates and token counts as points; the rest here is ours, in the
terms of the adaptive-thinking papers named at each function. A frame is `arms.run_arm`'s: one row
per sample, in arm auto (the model decides), on or off (forced). p_on, p_off are the pass rates of
the forced arms; m*, the better mode, is decided for each cell of category x difficulty.

An unscorable sample (correct is None) counts in no accuracy; `summarize` gives their share.

    figures = summarize(arms, "final", names_mode="think (on|off)")
"""

import re

import pandas as pd

from katlab import UserError, rewards, template
from katlab.arms import ARMS
from katlab.evaluation import scores
from katlab.evaluation.controls import MEASURES, per_prompt
from katlab.intervals import bootstrap, paired_difference
from katlab.samples import judge_agrees

CELL = ["category", "difficulty"]
NAMED = 0.95  # below this share the judge does not explain the decision
LEAK_TOKENS, LEAK_SHARE = 5.0, 0.02  # above either, forced-off answers are said to leak
MARKERS = re.compile(r"(?i)\b(?:wait|hmm|let me|check|alternatively|actually|on second thought)\b")


def pass_rates(frame: pd.DataFrame) -> pd.Series:
    """Share of correct samples of each prompt; a prompt with no scorable sample is left out."""
    scored = frame[frame["correct"].notna()]
    return scored["correct"].astype(float).groupby(scored["id"]).mean()


def better_mode(
    on: pd.DataFrame, off: pd.DataFrame, delta: float = 0.0, per: list[str] = CELL
) -> pd.Series:
    """m* of each prompt: "on" if p_on > p_off + delta, else "off" (a tie is off, as in HiPO).

    The pass rates are pooled over the prompts that share `per`: two samples of one prompt decide
    too little. With enough samples, ["id"] decides each prompt by itself.
    """
    rates = pd.DataFrame({"on": pass_rates(on), "off": pass_rates(off)}).dropna()
    labels = on.drop_duplicates("id").set_index("id", drop=False).loc[rates.index, per]
    pooled = rates.groupby([labels[name].rename(None) for name in per]).transform("mean")
    return (pooled["on"] > pooled["off"] + delta).map({True: "on", False: "off"})


def decisions(auto: pd.DataFrame, best: pd.Series) -> dict[str, float]:
    """The auto arm's modes against m*.

    hybrid_accuracy = share of samples with mode m* (after LHRM, arXiv 2505.14631); decision_f1 =
    F1 of "on" against m* (AdaCoT, arXiv 2505.11896), 0 where no sample is on in both. A sample
    without a decision agrees with nothing.
    """
    auto = auto[auto["id"].isin(best.index)]
    thinks, should = auto["mode"].eq("on"), auto["id"].map(best).eq("on")
    both = int((thinks & should).sum())
    return {
        "hybrid_accuracy": float(auto["mode"].eq(auto["id"].map(best)).mean()),
        "decision_f1": 2 * both / max(1, int(thinks.sum() + should.sum())),
        "should_think": float(should.mean()),
    }


def random_router(on: pd.DataFrame, off: pd.DataFrame, rate: float) -> pd.DataFrame:
    """What a coin that thinks with probability `rate` would reach: one expected row per prompt.

    correct = rate p_on + (1 - rate) p_off, and likewise tokens. A gate that does not beat it has
    learned how often to think, not when.
    """
    sides = per_prompt(on), per_prompt(off)
    mixed = sides[0][MEASURES] * rate + sides[1][MEASURES] * (1 - rate)
    labels = sides[0].drop(columns=MEASURES).assign(thinks=rate)
    return labels.join(mixed, how="inner").reset_index()


def oracle_router(
    on: pd.DataFrame, off: pd.DataFrame, delta: float = 0.0, per: list[str] = CELL
) -> pd.DataFrame:
    """What choosing m* for each prompt would reach: two rows per prompt, one for each half.

    m* is chosen on one half of the samples and scored on the other, then the other way round:
    max(p_on, p_off) over the same few samples would be biased upwards.
    """
    if min(on["sample"].max(), off["sample"].max()) < 1:
        raise UserError(
            "An oracle needs two samples per prompt; set evaluation.forced_samples to 2."
        )
    scored = []
    for half in (0, 1):
        sides = {"on": on[on["sample"] % 2 != half], "off": off[off["sample"] % 2 != half]}
        chosen_on, chosen_off = (side[side["sample"] % 2 == half] for side in (on, off))
        best = better_mode(chosen_on, chosen_off, delta, per)
        for mode, side in sides.items():
            chosen = per_prompt(side[side["id"].map(best).eq(mode)])
            scored.append(chosen.reset_index().assign(mode=mode))
    return pd.concat(scored, ignore_index=True)


def leakage(on: pd.DataFrame, off: pd.DataFrame) -> dict[str, float | None]:
    """Does thinking hide in the answers of forced-off samples? Well-formed samples only.

    answer_tokens_off_minus_on (paired over prompts; None where no prompt has both) and the share
    of answers with a word of reflection (`MARKERS`), by arm.
    """
    on, off = on[on["problem"].isna()], off[off["problem"].isna()]
    shares = {}
    for mode, frame in (("on", on), ("off", off)):
        marked = [bool(MARKERS.search(rewards.answer_span(text))) for text in frame["completion"]]
        shares[f"marked_{mode}"] = sum(marked) / max(1, len(marked))
    both = set(on["id"]) & set(off["id"])
    excess = paired_difference(off, on, "answer_tokens")[0] if both else None
    return {"answer_tokens_off_minus_on": excess, **shares}


def judge_agreement(auto: pd.DataFrame, names_mode: str) -> tuple[float, float, float]:
    """Share of decided samples for which `judge_agrees`, with its interval; 0 without any."""
    agrees = auto.assign(agrees=judge_agrees(auto, names_mode))
    return bootstrap(agrees, "agrees") if agrees["agrees"].notna().any() else (0.0, 0.0, 0.0)


def failures(frame: pd.DataFrame) -> pd.Series:
    """Share of samples with each problem of the format; a problem that never occurs is 0."""
    return frame["problem"].value_counts().reindex(template.PROBLEMS, fill_value=0) / len(frame)


def summarize(
    arms: pd.DataFrame, system: str, delta: float = 0.0, *, names_mode: str, t_max: float
) -> dict:
    """All figures of one system that has the three arms; [mean, low, high] where n allows it.

    `unscorable` is the share of samples of all three arms; `names_mode` as in `judge_agreement`,
    `t_max` as in `scores`.
    """
    auto, on, off = (pick(arms, system, arm) for arm in ARMS)
    coin = random_router(on, off, auto["thinks"].mean())
    oracle = oracle_router(on, off, delta)
    measured = {"auto": auto, "on": on, "off": off, "random": coin, "oracle": oracle}
    figures: dict = {
        f"{name}_{measure}": bootstrap(frame, column)
        for name, frame in measured.items()
        for measure, column in (("accuracy", "correct"), ("tokens", "tokens"))
    }
    figures |= {
        "think_on": bootstrap(auto, "thinks"),
        "well_formed": bootstrap(auto, "well_formed"),
        "gain_over_random": paired_difference(auto, coin, "correct"),
        "regret_accuracy": paired_difference(oracle, auto, "correct"),
        "regret_tokens": paired_difference(auto, oracle, "tokens"),
        "judge_share": auto["judge_tokens"].sum() / auto["tokens"].sum(),
        "judge_agreement": judge_agreement(auto, names_mode)[0],
        "judge_named": judge_agreement(auto, names_mode),
        "unscorable": pd.concat([auto, on, off])["correct"].isna().mean(),
        "prompts": auto["id"].nunique(),
        "samples": len(auto),
        "t_max": t_max,
        "hacking": scores.hacking(auto, on),
    }
    figures |= scores.of(auto, t_max) | decisions(auto, better_mode(on, off, delta))
    return figures | leakage(on, off)


def regret(arms: pd.DataFrame, system: str, delta: float = 0.0) -> pd.DataFrame:
    """Accuracy that the oracle has over the gate, one row per prompt in the column `lost`."""
    auto, on, off = (pick(arms, system, arm) for arm in ARMS)
    means = [
        per_prompt(frame[frame["correct"].notna()])
        for frame in (oracle_router(on, off, delta), auto)
    ]
    lost = (means[0]["correct"] - means[1]["correct"]).dropna().rename("lost")
    return means[1].join(lost, how="inner").reset_index()


def alarms(figures: dict) -> list[str]:
    """Sentences about what would make a system's figures misleading; empty when all is well."""
    rate, formed = figures["think_on"][0], figures["well_formed"][0]
    excess, marked = figures["answer_tokens_off_minus_on"] or 0.0, figures["marked_off"]
    named, unscorable = figures["judge_agreement"], figures["unscorable"]
    found = (
        (
            not 0.02 <= rate <= 0.98,
            f"The gate has collapsed: it thinks on {rate:.1%} of the samples.",
        ),
        (
            figures["gain_over_random"][1] <= 0,
            "The gate does not beat a coin with its own rate: it may know a rate, not when.",
        ),
        (formed < 0.98, f"Well-formed outputs are only {formed:.1%}."),
        (
            excess > LEAK_TOKENS or marked > LEAK_SHARE,
            f"Forced-off answers are {excess:.1f} tokens longer than forced-on ones, or reflect "
            f"({marked:.1%} carry a marker): thinking may leak into them.",
        ),
        (
            named < NAMED,
            f"The judge names the mode that is taken in only {named:.1%} of the decisions.",
        ),
        (unscorable > 0.01, f"{unscorable:.1%} of the samples could not be scored."),
    )
    return [sentence for rings, sentence in found if rings]


def pick(arms: pd.DataFrame, system: str, arm: str) -> pd.DataFrame:
    """The samples of one system in one arm; UserError when it was not sampled."""
    chosen = arms[(arms["system"] == system) & (arms["arm"] == arm)]
    if chosen.empty:
        raise UserError(f"{system!r} was not sampled in arm {arm!r}; run katlab.evaluation.run.")
    return chosen
