"""What both kinds of votes share: how they are told, and the weights that bring on:off to 2:1.

Report section 4.1. A voted row is a query with `mode` and its ballot: `replies`, `verdicts` (True,
False, None), `forced` (the mode each was written in), `passed` (pass rates by who or which mode).

Deviation: on:off ~ 2:1 is reached by weighting difficulties (the report's stratified sampling),
never by dropping votes of one side; where the votes cannot give it, the corpus is shorter.

    print(tell(voted[0])); weights = stratify(voted, 2 / 3)
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from katlab import UserError

# What either kind of vote adds besides the mode and, of one's own votes, the shortest samples.
BALLOT = ("replies", "verdicts", "forced", "passed", "voter", "votes_off", "votes")
MOST_TILT = 1.0  # a difficulty at most 2.7 times as frequent as the next, beyond its own number
OTHERS = {
    "own": "answers of the student and both teachers would vote, and the mode's teacher would "
    "write the response (the report's majority): {fork} -o cold_start.votes=teachers",
    "teachers": "the student's own pass rates in both modes would decide, and its shortest right "
    "sample would be the response (HiPO's rule): {fork} -o cold_start.votes=own",
}


def some(voted: list[dict], asked: int) -> list[dict]:
    """`voted`, or UserError if there is none."""
    if not voted:
        raise UserError(
            f"None of the {asked} queries could be scored; `katlab doctor` says which verifier "
            "is missing here."
        )
    return voted


def pass_rate(verdicts: Sequence[bool | None]) -> float | None:
    """Share of right ones among those that could be scored; None where none could."""
    scored = [verdict for verdict in verdicts if verdict is not None]
    return sum(scored) / len(scored) if scored else None


def tell(row: dict) -> str:
    """How a voted row's mode follows from its votes, in one sentence."""
    if "votes_off" in row:
        found = f"{row['votes_off']} of {row['votes']} votes say think-off"
    else:
        off, on = (row["passed"][mode] for mode in ("off", "on"))
        found = f"{off:.0%} right with thinking off and {on:.0%} with thinking on"
    return f"{found}: the mode is {row['mode']}"


def other(setting: str, run: str) -> str:
    """What the other setting of `cold_start.votes` does, and how to try it, in one sentence."""
    return f"With the other votes {OTHERS[setting].format(fork=f'katlab fork {run} NEW')}"


def spelled(name: str) -> str:
    """A key of `passed` as it is shown: a mode, or a voter's name as it is."""
    return f"think-{name}" if name in ("off", "on") else name


def by_difficulty(voted: pd.DataFrame) -> pd.DataFrame:
    """Queries, their share of think-on votes, and the pass rates that these follow from."""
    columns = {"think-on votes": voted["mode"].eq("on").astype(float)}
    for name in voted["passed"].iloc[0]:
        rates = voted["passed"].map(lambda passed, name=name: passed[name]).astype(float)
        columns[f"right, {spelled(name)}"] = rates
    level = voted["difficulty"]
    return pd.DataFrame({"queries": level.value_counts().sort_index()}).join(
        pd.DataFrame(columns).groupby(level).mean()
    )


def stratify(rows: list[dict], share_on: float) -> dict[int, float]:
    """Weights of the difficulties, w_d ~ n_d exp(-t d), at which a share `share_on` votes think-on.

    n_d is the number of rows, so that no row is lost at t = 0. Weighting difficulties leaves the
    votes of a query as they are. Where no tilt within +-MOST_TILT reaches the share it is 0: at the
    nearest end nine of ten rows would be lost for a share that is missed all the same.
    """
    frame = pd.DataFrame(rows)
    levels = frame["mode"].eq("on").groupby(frame["difficulty"]).agg(["mean", "size"])

    def weights(tilt: float) -> pd.Series:
        raw = levels["size"] * np.exp(-tilt * levels.index.to_series())
        return raw / raw.sum()

    def excess(tilt: float) -> float:
        return float(weights(tilt) @ levels["mean"]) - share_on

    ends = -MOST_TILT, MOST_TILT
    reached = excess(ends[0]) * excess(ends[1]) < 0
    return weights(brentq(excess, *ends) if reached else 0.0).to_dict()


def counts(rows: list[dict], weights: dict[int, float], most: int) -> dict[int, int]:
    """How many rows of each difficulty make up to `most` by these weights, none of them twice."""
    sizes = pd.Series([row["difficulty"] for row in rows]).value_counts()
    total = min(most, *(sizes[level] / w for level, w in weights.items() if w > 0.01))
    return {level: min(int(sizes[level]), round(total * w)) for level, w in weights.items()}


def short_of(chosen: int, on: float, most: int, share_on: float) -> str:
    """How many rows were chosen and their mix; where either falls short, one sentence says so."""
    told = f"{chosen} of {most} rows were chosen, {on:.0%} of them think-on"
    if chosen > 0.98 * most and abs(on - share_on) < 0.02:  # but for rounding
        return f"{told}."
    return f"The votes leave too few queries of a mode: {told} where {share_on:.0%} are wanted."
