"""The scores by which adaptive thinkers are compared in print, exactly as their papers give them.

OptimalThinkingBench (arXiv 2508.13141), OckBench (arXiv 2511.05722) and TNT (arXiv 2601.04805).
Deviations: (1) the papers have two sets of queries, easy and hard; here they are the difficulties
up to and above `EASIEST`; (2) t_max is the profile's max_new_tokens (the paper: 1,000), since
nano's thoughts have tens of tokens; (3) TNT judges open thinking by the length of answers and by
verifying words; ours are at `works_in_the_open`.

    scores.of(auto, t_max=128)
"""

from collections.abc import Mapping
from math import log10

import pandas as pd

from katlab.evaluation.probes import in_the_open
from katlab.intervals import bootstrap

EASIEST = 3  # difficulties up to here are the easy set, the others the hard one
LONGER = 2.0  # an answer without a thought this many times as long as those after one: it thinks


def auc_oaa(frame: pd.DataFrame, t_max: float) -> float:
    """Area under overthinking-adjusted accuracy, in 0..1: the mean of correct x (1 - t / t_max).

    OAA_t is the share of samples that are right with fewer than t thought tokens; over t in
    (0, t_max) its mean is correct x max(0, t_max - thought tokens) / t_max (section 3 there).
    """
    left = (t_max - frame["thought_tokens"]).clip(lower=0) / t_max
    scored = frame["correct"].notna()
    return float((frame.loc[scored, "correct"].astype(float) * left[scored]).mean())


def f1_otb(easy: float, hard: float) -> float:
    """F1 of AUC_OAA on the easy set with accuracy on the hard one; 0 if both are 0."""
    return 2 * easy * hard / (easy + hard) if easy + hard else 0.0


def ock_score(frame: pd.DataFrame) -> float:
    """OckScore: accuracy in per cent - 10 log10(mean tokens / 10,000 + 1); 100 at best.

    The logarithm's base is 10, as the authors' leaderboard computes it (75.5 % and 24,765 tokens
    give 70.09 there).
    """
    accuracy = 100 * frame["correct"].dropna().astype(float).mean()
    return float(accuracy - 10 * log10(frame["tokens"].mean() / 10_000 + 1))


def of(frame: pd.DataFrame, t_max: float) -> dict[str, float | None]:
    """AUC_OAA of all and of the easy set, F1, OckScore; None where a set has nothing scored.

    `frame` has the columns difficulty, correct, tokens and thought_tokens.
    """
    easy = frame[frame["difficulty"] <= EASIEST]
    hard = frame[frame["difficulty"] > EASIEST]
    right = hard["correct"].dropna().astype(float)
    adjusted = auc_oaa(easy, t_max) if easy["correct"].notna().any() else None
    f1 = None if adjusted is None or right.empty else f1_otb(adjusted, float(right.mean()))
    return {
        "auc_oaa": auc_oaa(frame, t_max),
        "auc_oaa_easy": adjusted,
        "f1_otb": f1,
        "ock_score": ock_score(frame),
    }


def works_in_the_open(frame: pd.DataFrame, usual: Mapping[str, float]) -> pd.Series:
    """Whether each sample that was not to think thinks in its answer all the same (TNT's hacking).

    An answer does if it holds an equation or a word of reflection, or if it is over `LONGER` times
    as long as `usual`: the longest answer to the same prompt (by id) that follows a thought.
    """
    answers = frame["answer"].fillna("").astype(str)
    bound = frame["id"].map(usual).fillna(float("inf")) * LONGER
    return answers.map(in_the_open) | (frame["answer_tokens"] > bound)


def hacking(off: pd.DataFrame, on: pd.DataFrame) -> tuple[float, float, float] | None:
    """Share of think-off outputs that `works_in_the_open`, with its interval; None without any.

    `on` are forced-on samples of the same prompts; malformed samples are left out on both sides.
    """
    direct = off[off["mode"].eq("off") & off["problem"].isna()]
    if direct.empty:
        return None
    usual = on[on["problem"].isna()].groupby("id")["answer_tokens"].max()
    return bootstrap(direct.assign(open=works_in_the_open(direct, usual)), "open")
