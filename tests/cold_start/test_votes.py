"""What both kinds of votes share: how they are told, the weights towards 2:1, a short corpus."""

import pandas as pd
import pytest

from katlab import lab
from katlab.cold_start import votes


def voted(rate_on, n=100):
    """Rows whose votes say think-on for a share `rate_on[difficulty]` of each difficulty's `n`."""
    rows = []
    for difficulty, rate in rate_on.items():
        size = n if isinstance(n, int) else n[difficulty]
        rows += [
            {"difficulty": difficulty, "mode": "on" if i < rate * size else "off"}
            for i in range(size)
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


def test_a_share_out_of_reach_leaves_the_difficulties_as_they_are():
    rows = voted({1: 0.9, 2: 1.0})
    weights = votes.stratify(rows, share_on=2 / 3)
    assert weights == {1: pytest.approx(0.5), 2: pytest.approx(0.5)}
    assert sum(votes.counts(rows, weights, most=1000).values()) == len(rows)


def test_a_difficulty_with_few_rows_does_not_shorten_the_corpus():
    """By hand: 100 off, 199 on and 1 on are 2:1 as they are, so all 300 rows are taken."""
    rows = voted({1: 0.0, 4: 1.0, 5: 1.0}, n={1: 100, 4: 199, 5: 1})
    weights = votes.stratify(rows, share_on=2 / 3)
    assert votes.counts(rows, weights, most=1000) == {1: 100, 4: 199, 5: 1}
    assert votes.counts(rows, weights, most=30) == {1: 10, 4: 20, 5: 0}


def test_too_few_queries_of_a_mode_make_the_corpus_shorter():
    """By hand: 20 of 100 vote on, so at 2:1 ten of the others go with them: 30 of 120 rows."""
    rows = voted({1: 0.0, 5: 1.0}, n={1: 100, 5: 20})
    counts = votes.counts(rows, votes.stratify(rows, share_on=2 / 3), most=120)
    assert counts == {1: 10, 5: 20}
    assert votes.short_of(30, 2 / 3, 120, 2 / 3) == (
        "The votes leave too few queries of a mode: 30 of 120 rows were chosen, 67% of them "
        "think-on where 67% are wanted."
    )


@pytest.mark.parametrize("mode", ["on", "off"])
def test_votes_of_one_mode_alone_still_make_a_corpus(mode):
    rows = voted(dict.fromkeys((1, 2), float(mode == "on")), n=10)
    weights = votes.stratify(rows, share_on=2 / 3)
    assert votes.counts(rows, weights, most=12) == {1: 6, 2: 6}
    said = votes.short_of(12, float(mode == "on"), 12, 2 / 3)
    assert said.startswith("The votes leave too few queries of a mode: 12 of 12 rows were chosen")


def test_a_whole_corpus_is_told_without_a_complaint():
    assert votes.short_of(1399, 0.66, 1400, 2 / 3) == (
        "1399 of 1400 rows were chosen, 66% of them think-on."
    )


def test_votes_are_told_and_tabled_of_either_kind():
    rows = [
        {"difficulty": d, "mode": mode, "passed": {"off": 0.25, "on": d / 2}}
        for d, mode in ((2, "on"), (1, "off"), (1, "on"))
    ]
    assert votes.tell(rows[0]) == (
        "25% right with thinking off and 100% with thinking on: the mode is on"
    )
    assert votes.by_difficulty(pd.DataFrame(rows)).to_dict() == {
        "queries": {1: 2, 2: 1},
        "think-on votes": {1: 0.5, 2: 1.0},
        "right, think-off": {1: 0.25, 2: 0.25},
        "right, think-on": {1: 0.5, 2: 1.0},
    }
    theirs = [
        row | {"passed": {"student, think-off": rate}, "votes_off": 2, "votes": 3}
        for row, rate in zip(rows, (0.5, None, 1.0), strict=True)
    ]
    assert votes.tell(theirs[1]) == "2 of 3 votes say think-off: the mode is off"
    table = votes.by_difficulty(pd.DataFrame(theirs))
    assert table["right, student, think-off"].to_dict() == {1: 1.0, 2: 0.5}  # what was scored


@pytest.mark.parametrize(("setting", "other"), [("own", "teachers"), ("teachers", "own")])
def test_the_other_setting_is_told_with_its_command(setting, other):
    told = votes.other(setting, "demo")
    assert told.endswith(f"katlab fork demo NEW -o cold_start.votes={other}")


def test_own_votes_are_the_default_of_every_profile_that_trains_enough():
    names = ("nano", "smol-135m", "proxy-1.5b", "target-40b")
    assert {lab.load_profile(name).cold_start.votes for name in names} == {"own"}
    assert lab.load_profile("tiny").cold_start.votes == "teachers"
