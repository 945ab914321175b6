"""Which mode a query needs, by majority vote (report section 4.1.1).

A student answers every query several times without thinking; each answer that the verifier accepts
votes think-off, each other one think-on, and the majority sets the mode.

Deviations: (1) the report names no voters; here one votes who is an earlier checkpoint of the
student (section 4.1.2 uses such for its dialogues), of several the one that thinks in a set share
of a probe: a later one is right at once on whatever a small model can learn; (2) on:off ~ 2:1 is
reached by weighting difficulties (its stratified sampling), never by dropping votes of one side.

    voted = vote(stage, queries, model, tokenizer); weights = stratify(voted, 2 / 3)
"""

import math
from bisect import bisect_left
from functools import cache
from pathlib import Path

import pandas as pd
from transformers import PreTrainedTokenizerBase

from katlab import arms, models
from katlab.lab import StageRun

MOST_TILT = 1.5  # a difficulty at most 4.5 times as frequent as the next


def vote(
    stage: StageRun,
    rows: list[dict],
    model,
    tokenizer: PreTrainedTokenizerBase,
    title: str = "votes",
) -> list[dict]:
    """Add `votes_off` (how many samples were right without thinking), `voters` and `mode`.

    A tie goes to think-on: at the cold start an answer lost costs more than tokens spent. What
    cannot be scored votes for nothing; a query without a vote is left out.
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
    right, scored = (
        flags.to_numpy().reshape(-1, s.voters).sum(1).tolist()  # (rows,)
        for flags in (frame["correct"].eq(True), frame["correct"].notna())
    )
    return [
        row | {"votes_off": off, "voters": voters, "mode": "off" if 2 * off > voters else "on"}
        for row, off, voters in zip(rows, right, scored, strict=True)
        if voters
    ]


def choose_voter(stage: StageRun, probe: list[dict]) -> Path:
    """The earlier student whose votes on `probe` come nearest to `voter_on_share` of think-on.

    How soon a student answers well without thinking differs from seed to seed, within a few steps;
    it thinks the less the later it is, so a bisection finds the place.
    """
    folder = stage.upstream("03_mtp_distillation") / "checkpoints" / "voters"
    students = sorted(folder.glob("[0-9]*"), key=lambda f: int(f.name))

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
    +-MOST_TILT reaches the share, the nearest one is taken: the notebook's verdict then shows the
    ratio as not held.
    """
    frame = pd.DataFrame(rows)
    rate = frame.assign(on=frame["mode"] == "on").groupby("difficulty")["on"].mean()

    def weights(tilt: float) -> pd.Series:
        raw = pd.Series({d: math.exp(-tilt * d) for d in rate.index})
        return raw / raw.sum()

    low, high = -MOST_TILT, MOST_TILT
    share = [float((weights(t) * rate).sum()) for t in (low, high)]
    rising = share[1] > share[0]
    for _ in range(60):
        middle = (low + high) / 2
        above = float((weights(middle) * rate).sum()) > share_on
        low, high = (low, middle) if above == rising else (middle, high)
    return weights((low + high) / 2).to_dict()
