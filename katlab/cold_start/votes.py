"""Which mode a query needs, by majority vote (report section 4.1.1): the setting votes = "early".

A student answers every query several times without thinking; each answer that the verifier accepts
votes think-off, each other one think-on, and the majority sets the mode.

Deviations: (1) the report names no voters; here one votes who is an earlier checkpoint of the
student (section 4.1.2 uses such for its dialogues), of several the one that thinks in a set share
of a probe: a later one is right at once on whatever a small model can learn; (2) on:off ~ 2:1 is
reached by weighting difficulties (its stratified sampling), never by dropping votes of one side.

    voted = vote(stage, queries, model, tokenizer); weights = stratify(voted, 2 / 3)
"""

from bisect import bisect_left
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from transformers import PreTrainedTokenizerBase

from katlab import UserError, arms, models
from katlab.lab import StageRun

# What either kind of vote adds besides the mode and, of one's own votes, the shortest samples.
BALLOT = ("replies", "verdicts", "votes_off", "voters", "forced", "passed")
MOST_TILT = 1.5  # a difficulty at most 4.5 times as frequent as the next


def vote(
    stage: StageRun,
    rows: list[dict],
    model,
    tokenizer: PreTrainedTokenizerBase,
    title: str = "votes",
) -> list[dict]:
    """Add `votes_off` (how many samples were right without thinking), `voters` and `mode`.

    `replies` and `verdicts` (True, False, None) are what was voted on. A tie goes to think-on: at
    the cold start an answer lost costs more than tokens spent. What cannot be scored votes for
    nothing; a query without a vote is left out, and UserError says if that leaves none.
    """
    s = stage.settings
    frame = arms.run_arm(
        stage,
        model,
        tokenizer,
        rows,
        "off",
        style="trigger",
        max_new_tokens=s.vote_tokens,
        samples=s.voters,
        temperature=1.0,  # voters must differ
        top_p=1.0,
        title=title,
    )
    voted = []
    for i, row in enumerate(rows):
        cast = frame[i * s.voters : (i + 1) * s.voters]
        verdicts = cast["correct"].tolist()  # True, False, None
        right, voters = verdicts.count(True), s.voters - verdicts.count(None)
        if voters:
            ballot = {"replies": cast["completion"].tolist(), "verdicts": verdicts}
            ballot |= {"votes_off": right, "voters": voters}
            voted.append(row | ballot | {"mode": "off" if 2 * right > voters else "on"})
    return some(voted, len(rows))


def some(voted: list[dict], asked: int) -> list[dict]:
    """`voted`, or UserError if there is none."""
    if not voted:
        raise UserError(
            f"None of the {asked} queries could be scored; `katlab doctor` says which verifier "
            "is missing here."
        )
    return voted


def tell(row: dict) -> str:
    """How a voted row's mode follows from its votes, in one sentence."""
    if "passed" in row:
        off, on = (row["passed"][mode] for mode in ("off", "on"))
        found = f"{off:.0%} right with thinking off and {on:.0%} with thinking on"
    else:
        found = f"{row['votes_off']} of {row['voters']} votes say think-off"
    return f"{found}: the mode is {row['mode']}"


def by_difficulty(voted: pd.DataFrame) -> pd.DataFrame:
    """Queries and their share of think-on votes; of own votes also both modes' pass rates."""
    columns = {"think-on votes": voted["mode"].eq("on").astype(float)}
    for mode in ("off", "on") if "passed" in voted else ():
        columns[f"right, think-{mode}"] = voted["passed"].map(lambda rates, mode=mode: rates[mode])
    level = voted["difficulty"]
    return pd.DataFrame({"queries": level.value_counts().sort_index()}).join(
        pd.DataFrame(columns).groupby(level).mean()
    )


def choose_voter(stage: StageRun, probe: list[dict]) -> Path:
    """The earlier student whose votes on `probe` come nearest to `voter_on_share` of think-on.

    How soon a student answers well without thinking differs from seed to seed, within a few steps;
    it thinks the less the later it is, so a bisection finds the place.
    """
    folder = stage.upstream("03_mtp_distillation") / "checkpoints" / "voters"
    students = sorted(folder.glob("[0-9]*"), key=lambda f: int(f.name))
    if not students:
        raise UserError("Stage 03 kept no earlier student; set mtp_distillation.voter_steps.")

    @cache
    def on_share(i: int) -> float:
        model, tokenizer = models.load_from(students[i], stage.config.model)
        votes = vote(stage, probe, model, tokenizer, f"student of step {students[i].name}")
        share = sum(row["mode"] == "on" for row in votes) / len(votes)
        stage.log(phase="voter", voter=int(students[i].name), think_on=share)
        return share

    target = stage.settings.voter_on_share
    below = bisect_left(range(len(students)), -target, key=lambda i: -on_share(i))
    near = range(max(0, below - 1), min(below + 1, len(students)))
    chosen = min(near, key=lambda i: abs(on_share(i) - target))
    stage.record(voter_step=int(students[chosen].name), probe_think_on=on_share(chosen))
    return students[chosen]


def stratify(rows: list[dict], share_on: float) -> dict[int, float]:
    """Weights of the difficulties, w_d ~ exp(-t d), at which a share `share_on` votes think-on.

    Weighting difficulties leaves the votes of a query as they are. Where no tilt within
    +-MOST_TILT reaches the share, the nearest of its ends and 0 is taken: the notebook's verdict
    then shows the ratio as not held.
    """
    frame = pd.DataFrame(rows)
    rate = frame["mode"].eq("on").groupby(frame["difficulty"]).mean()

    def weights(tilt: float) -> pd.Series:
        raw = np.exp(-tilt * rate.index.to_series())
        return raw / raw.sum()

    def excess(tilt: float) -> float:
        return float(weights(tilt) @ rate) - share_on

    ends = -MOST_TILT, MOST_TILT
    if excess(ends[0]) * excess(ends[1]) < 0:
        return weights(brentq(excess, *ends)).to_dict()
    return weights(min((0.0, *ends), key=lambda tilt: round(abs(excess(tilt)), 9))).to_dict()
