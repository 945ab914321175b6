"""Votes: which earlier student casts them, and the weights that bring on:off to 2:1."""

import math

import pandas as pd
import pytest

from katlab import UserError
from katlab.cold_start import votes
from katlab.lab.runs import StageRun
from katlab.tasks.nano import world

ROWS = world.queries(100, seed=2, split="stage_2")


def voted(rate_on):
    """Rows whose votes say think-on for a share `rate_on[difficulty]` of each difficulty."""
    rows = []
    for difficulty, rate in rate_on.items():
        rows += [
            {"difficulty": difficulty, "mode": "on" if i < rate * 100 else "off"}
            for i in range(100)
        ]
    return rows


def test_stratify_by_hand():
    # two levels with shares 0 and 1: think-on share equals the weight of level 2
    weights = votes.stratify(voted({1: 0.0, 2: 1.0}), share_on=2 / 3)
    assert weights[2] == pytest.approx(2 / 3, abs=1e-6)


def test_stratify_reaches_the_share_with_weights_of_one_tilt():
    rate = {1: 0.5, 2: 0.9, 3: 0.95, 4: 1.0, 5: 1.0}
    weights = votes.stratify(voted(rate), share_on=2 / 3)
    assert sum(weights.values()) == pytest.approx(1)
    assert sum(weights[d] * rate[d] for d in rate) == pytest.approx(2 / 3, abs=1e-6)
    ratios = [weights[d + 1] / weights[d] for d in (1, 2, 3, 4)]
    assert max(ratios) - min(ratios) < 1e-6


def test_where_every_query_votes_alike_no_difficulty_is_favoured():
    weights = votes.stratify(voted({1: 1.0, 2: 1.0, 3: 1.0}), share_on=2 / 3)
    assert weights == {d: pytest.approx(1 / 3) for d in (1, 2, 3)}


def test_a_share_out_of_reach_takes_the_nearest_tilt():
    weights = votes.stratify(voted({1: 0.9, 2: 1.0}), share_on=2 / 3)
    odds = math.exp(votes.MOST_TILT)  # all it may: level 1, which votes think-off at times
    assert weights[1] == pytest.approx(odds / (1 + odds))


def ballots(monkeypatch, *rows: list[bool | None]) -> None:
    """Let the voter's three samples per query have these verdicts."""
    flat = [verdict for row in rows for verdict in row]
    frame = pd.DataFrame({"completion": [f"reply {i}" for i in range(len(flat))]})
    frame["correct"] = pd.Series(flat, dtype=object)
    monkeypatch.setattr(votes.arms, "run_arm", lambda *_, **__: frame)


def test_what_cannot_be_scored_votes_for_nothing(stage, monkeypatch):
    """By hand: one right of one scored; none scored; a tie of two; right 1 of 3; right 2 of 3."""
    cast = [True, None, None], [None] * 3, [None, True, False], [True, False, False], [1, 1, 0]
    ballots(monkeypatch, *[[None if v is None else bool(v) for v in row] for row in cast])
    got = votes.vote(stage, ROWS[:5], None, None)
    assert [row["id"] for row in got] == [ROWS[i]["id"] for i in (0, 2, 3, 4)]
    assert [(row["votes_off"], row["voters"], row["mode"]) for row in got] == [
        (1, 1, "off"), (1, 2, "on"), (1, 3, "on"), (2, 3, "off"),
    ]  # fmt: skip
    assert got[1]["replies"] == ["reply 6", "reply 7", "reply 8"]
    assert got[1]["verdicts"] == [None, True, False]


def test_without_any_vote_there_is_one_sentence(stage, monkeypatch):
    ballots(monkeypatch, [None] * 3, [None] * 3)
    with pytest.raises(UserError, match="None of the 2 queries could be scored; `katlab doctor`"):
        votes.vote(stage, ROWS[:2], None, None)


@pytest.mark.parametrize(
    ("first", "fall", "chosen"),
    [(100, 4, "7"), (100, 10, "3"), (70, 2, "1"), (100, 0, "16"), (88, 24, "2")],
)
def test_the_voter_nearest_to_the_wanted_share_is_taken(tmp_path, monkeypatch, first, fall, chosen):
    """Later students think less: the first in `first` % of the probe, each in `fall` % less."""
    before = StageRun.create(tmp_path, "r", "03_mtp_distillation", profile="tiny")
    for name in (*map(str, range(1, 17)), ".17.part"):
        (before.checkpoints / "voters" / name).mkdir(parents=True)
    before.close("done")
    monkeypatch.setattr(votes.models, "load_from", lambda folder, _: (int(folder.name), None))

    def vote(stage, rows, model, *_):
        on = max(0, first - fall * (model - 1)) / 100 * len(rows)
        return [{"mode": "on" if i < on else "off"} for i in range(len(rows))]

    monkeypatch.setattr(votes, "vote", vote)
    stage = StageRun.create(tmp_path, "r", "04_cold_start", profile="tiny")
    assert votes.choose_voter(stage, ROWS).name == chosen
    asked = [row["voter"] for row in stage.metrics()]
    assert len(asked) == len(set(asked)) <= 6, "a bisection, each student asked once"


def test_without_an_earlier_student_nobody_votes(tmp_path):
    StageRun.create(tmp_path, "r", "03_mtp_distillation", profile="tiny").close("done")
    stage = StageRun.create(tmp_path, "r", "04_cold_start", profile="tiny")
    with pytest.raises(UserError, match="set mtp_distillation.voter_steps"):
        votes.choose_voter(stage, ROWS)
