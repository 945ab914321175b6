"""Means, differences and margins with their intervals, by hand and by how often they hold."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from katlab import UserError, intervals


def frame(ids: str, **columns) -> pd.DataFrame:
    """One row per letter, which is its id; columns of type object, so that None stays None."""
    made = pd.DataFrame({"id": list(ids)})
    return made.assign(**{name: pd.Series(v, dtype=object) for name, v in columns.items()})


def test_bootstrap_mean_leaves_out_the_unscorable():
    rows = frame("aabb", correct=[True, False, True, None], tokens=[1, 2, 3, 6])
    assert intervals.bootstrap(rows, "correct")[0] == pytest.approx(2 / 3)
    assert intervals.bootstrap(rows, "tokens")[0] == 3


def test_bootstrap_resamples_prompts_not_samples():
    # Two prompts of 0 and 2 tokens: a resample has mean 0, 1 or 2 with probability 1/4, 1/2, 1/4,
    # however many samples each prompt has.
    few, many = frame("ab", tokens=[0, 2]), frame("ab" * 50, tokens=[0, 2] * 50)
    assert intervals.bootstrap(few, "tokens") == intervals.bootstrap(many, "tokens") == (1, 0, 2)


def test_prompts_of_one_problem_stand_and_fall_together():
    apart = frame("abcdefgh", tokens=[0, 2] * 4)
    twins = apart.assign(cluster=["x", "y"] * 4)
    assert intervals.bootstrap(twins, "tokens") == (1, 0, 2)
    _, low, high = intervals.bootstrap(apart, "tokens")
    assert 0 < low < 1 < high < 2


def test_a_share_at_the_edge_has_wilsons_interval():
    # 0 of n: from 0 to z^2 / (n + z^2), z = 1.96
    mean, low, high = intervals.bootstrap(frame("a" * 20).assign(id=range(20), right=0), "right")
    assert (mean, low) == (0, 0) and high == pytest.approx(3.8415 / 23.8415, abs=1e-4)
    mean, low, high = intervals.bootstrap(frame("a" * 20).assign(id=range(20), right=1), "right")
    assert (mean, high) == (1, 1) and low == pytest.approx(20 / 23.8415, abs=1e-4)
    one = pd.DataFrame({"id": range(300), "right": [0] + [1] * 299})
    assert intervals.bootstrap(one, "right")[2] < 1  # a resample without the 0 would say 1


def test_bootstrap_is_a_function_of_its_seed():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"id": np.arange(40), "tokens": rng.normal(size=40)})
    assert intervals.bootstrap(rows, "tokens") == intervals.bootstrap(rows, "tokens")
    assert intervals.bootstrap(rows, "tokens") != intervals.bootstrap(rows, "tokens", seed=1)
    shuffled = rows.sample(frac=1, random_state=1)
    assert intervals.bootstrap(rows, "tokens") == pytest.approx(
        intervals.bootstrap(shuffled, "tokens")
    )


def test_bootstrap_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        rows = pd.DataFrame({"id": np.arange(60), "tokens": rng.exponential(size=60)})
        _, low, high = intervals.bootstrap(rows, "tokens", n=400, seed=trial)
        held += low <= 1 <= high
    assert 0.88 <= held / 200 <= 0.99


def test_paired_difference_cancels_what_prompts_share():
    a, b = frame("abcd", tokens=[11, 21, 31, 41]), frame("abcd", tokens=[10, 20, 30, 40])
    assert intervals.paired_difference(a, b, "tokens") == (1, 1, 1)


def test_paired_difference_uses_shared_prompts_and_may_be_relative():
    a = frame("abz", correct=[True, True, False], tokens=[6, 10, 900])
    b = frame("aabb", correct=[True, False, True, None], tokens=[8, 12, 8, 12])
    assert intervals.paired_difference(a, b, "tokens")[0] == -2
    assert intervals.paired_difference(a, b, "tokens", relative=True)[0] == pytest.approx(-0.2)
    assert intervals.paired_difference(a, b, "correct")[0] == pytest.approx(1 - 2 / 3)


def test_paired_difference_needs_shared_prompts():
    a, b = frame("a", correct=[True]), frame("b", correct=[None])
    with pytest.raises(UserError, match="share no prompt"):
        intervals.paired_difference(a, b, "correct")


def test_a_difference_that_no_prompt_shows_is_not_known_to_be_zero():
    same = pd.DataFrame({"id": range(98), "right": 1})
    mean, low, high = intervals.paired_difference(same, same, "right")
    # Agresti and Min add half a prompt to each side: the error is 1 / (n + 2).
    assert mean == 0 and (low, high) == pytest.approx((-0.0196, 0.0196))


def test_a_margin_wants_prompts_and_tells_its_power():
    few, many = (pd.DataFrame({"id": range(n), "right": 1}) for n in (30, 98))
    assert not intervals.no_worse(few, few, "right", 0.02).held  # least is -1.645 / 32 = -5.1
    kept = intervals.no_worse(many, many, "right", 0.02)
    assert kept.held and kept.low == pytest.approx(-0.01645, abs=1e-5)
    assert kept.power == pytest.approx(0.639, abs=1e-3)  # Phi(2 - 1.645)
    assert "+0.0 points, at least -1.6 (95 %, one-sided); power 64%" in str(kept)


@pytest.mark.parametrize(("loss", "held"), [(0.0, True), (0.04, False), (-0.04, True)])
def test_a_margin_holds_or_not_by_the_loss(loss, held):
    rng = np.random.default_rng(0)
    shared = rng.normal(0.8, 0.05, size=2000)
    after = pd.DataFrame({"id": range(2000), "share": shared - loss + rng.normal(0, 0.1, 2000)})
    before = pd.DataFrame({"id": range(2000), "share": shared})
    assert intervals.no_worse(after, before, "share", 0.02).held == held


def test_a_margin_holds_as_often_as_its_power_says():
    rng = np.random.default_rng(0)
    results = []
    for _ in range(150):
        a, b = (pd.DataFrame({"id": range(100), "x": rng.normal(0, 1, 100)}) for _ in "ab")
        results.append(intervals.no_worse(a, b, "x", 0.3))
    told = np.mean([kept.power for kept in results])
    assert np.mean([kept.held for kept in results]) == pytest.approx(told, abs=0.1)
    assert 0.4 < told < 0.9


def test_a_difference_of_frames_that_share_nothing_has_both_errors():
    rng = np.random.default_rng(0)
    a, b = (pd.DataFrame({"id": range(400), "x": rng.normal(m, 1, 400)}) for m in (1, 0))
    mean, low, high = intervals.difference(a, b, "x")
    assert low < 1 < high and high - low == pytest.approx(2 * 1.96 * (2 / 400) ** 0.5, rel=0.15)
    assert intervals.difference(a + 1, b + 2, "x", relative=True)[0] == pytest.approx(0, abs=0.15)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=2, max_size=30))
def test_interval_holds_the_mean_is_in_range_and_has_a_width(right):
    rows = pd.DataFrame({"id": np.arange(len(right)), "right": right})
    mean, low, high = intervals.bootstrap(rows, "right", n=200)
    assert mean == pytest.approx(np.mean(right))
    assert 0 <= low < high <= 1 and low - 1e-9 <= mean <= high + 1e-9
