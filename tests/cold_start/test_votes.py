"""Votes: which earlier student casts them, and the weights that bring on:off to 2:1."""

import math

import pytest

from katlab.cold_start import votes
from katlab.lab.runs import StageRun
from katlab.tasks.nano import world

ROWS = world.queries(100, seed=2, split="train")


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


def test_a_share_out_of_reach_takes_the_nearest_tilt():
    weights = votes.stratify(voted({1: 0.9, 2: 1.0}), share_on=2 / 3)
    odds = math.exp(votes.MOST_TILT)  # all it may: level 1, which votes think-off at times
    assert weights[1] == pytest.approx(odds / (1 + odds))


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
