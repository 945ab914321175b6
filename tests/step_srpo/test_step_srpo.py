"""Step-SRPO: hand-computed advantages, token spans, and the trainer on two ranks."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from katlab import template
from katlab.step_srpo import queries
from katlab.step_srpo.advantages import hipo

NAN = float("nan")


def compute(rewards, modes, size=4, omega=0.1, gamma=0.5, floor=0.1):
    judge, answer = hipo.advantages(
        torch.tensor(rewards), torch.tensor(modes), size, omega, gamma, floor
    )
    return judge.tolist(), answer.tolist()


def test_thinking_that_pays_is_preferred():
    # on: 1, 1; off: 0, 1 -> m_on 1, m_off .5, behind by .5 > b = .1, so no boost
    judge, answer = compute([1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0])
    std = math.sqrt(0.1875)  # of (1, 1, 0, 1)
    assert judge == pytest.approx(
        [
            (0.25 + 0.5 * 0.25) / std,
            (0.25 + 0.5 * 0.25) / std,
            (-0.25 - 0.5 * 0.75) / std,
            (-0.25 + 0.5 * 0.25) / std,
        ]
    )
    assert answer == pytest.approx([0.0, 0.0, -1.0, 1.0])  # on agrees; off has mean .5, std .5


def test_a_tie_goes_to_think_off():
    # all right: m_on = m_off = 1, raised m_off = 1.1, mean 1.05, std 0 -> floor .1
    judge, answer = compute([1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0])
    assert judge == pytest.approx([-0.5, -0.5, 0.5, 0.5], abs=1e-5)
    assert answer == [0.0] * 4


def test_the_boost_reaches_as_far_as_omega():
    rewards = [1.0] * 10 + [1.0] * 9 + [0.0]  # m_on 1, m_off .9: behind by .1
    modes = [1.0] * 10 + [0.0] * 10
    near, _ = compute(rewards, modes, size=20, omega=0.11, gamma=0.0)
    far, _ = compute(rewards, modes, size=20, omega=0.09, gamma=0.0)
    assert near[0] < 0 < near[10]
    assert far[0] > 0 > far[10]


def test_think_off_that_is_better_needs_no_boost():
    judge, _ = compute([0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0], gamma=0.0)
    assert judge == pytest.approx([-1.0, -1.0, 1.0, 1.0])  # (m - .5) / std .5


def test_one_mode_alone_is_not_compared():
    judge, answer = compute([1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0])
    assert judge == pytest.approx([0.5, -0.5, 0.5, -0.5])  # gamma (r - .5) / .5
    assert answer == pytest.approx([1.0, -1.0, 1.0, -1.0])


def test_unscorable_rows_are_left_out_and_get_nothing():
    with_gap, answer = compute([1.0, NAN, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0])
    assert with_gap[1] == answer[1] == 0.0
    alone, _ = compute([1.0, 0.0, 1.0], [1.0, 0.0, 0.0], size=3)
    assert [with_gap[i] for i in (0, 2, 3)] == pytest.approx(alone)


def test_no_decision_is_a_mode_that_no_group_prefers():
    # m_on 1, m_off 1 raised to 1.1, undecided 0: mean (1 + 1.1 + 0 + 0) / 4; std of (1, 1, 0, 0) .5
    judge, answer = compute([1.0, 1.0, 0.0, 0.0], [1.0, 0.0, NAN, NAN], gamma=0.5)
    assert judge == pytest.approx(
        [(v - 0.525 + 0.5 * (r - 0.5)) / 0.5 for v, r in ((1, 1), (1.1, 1), (0, 0), (0, 0))]
    )
    assert answer[2] == answer[3] == 0.0


def test_undecided_is_worse_than_the_dearer_mode():
    rewards, modes = [1.0] * 15 + [0.0], [1.0] * 7 + [0.0] * 8 + [NAN]
    judge, _ = compute(rewards, modes, size=16, omega=0.4, gamma=0.3, floor=0.5)
    assert judge[15] < judge[0] < 0 < judge[7]


def test_format_modes():
    accuracy, form = torch.tensor([1.0, 1.0, 0.0, NAN]), torch.tensor([1.0, 0.0, 1.0, 1.0])
    assert hipo.combine(accuracy, form, "gate")[:3].tolist() == [1.0, 0.0, 0.0]
    additive = hipo.combine(accuracy, form, "additive")
    assert additive[:3].tolist() == pytest.approx([1.2, 1.0, 0.2])
    assert hipo.combine(accuracy, form, "off")[:3].tolist() == [1.0, 1.0, 0.0]
    assert hipo.combine(accuracy, form, "gate")[3].isnan()
    with pytest.raises(ValueError):
        hipo.combine(accuracy, form, "bonus")


def test_spread_puts_each_advantage_on_its_tokens():
    parsed = [
        template.Parsed("on", None, (0, 2), 1, (3, 4), (5, 6), 6),
        template.Parsed(None, "missing decision", (0, 4), None, None, None, 4),
    ]
    tokens = hipo.spread(torch.tensor([1.0, -1.0]), torch.tensor([5.0, 7.0]), parsed, 6, 8.0)
    assert tokens[0].tolist() == [4.0, 4.0, 5.0, 5.0, 5.0, 5.0]  # 8 tokens' worth over 2
    assert tokens[1].tolist() == [-2.0, -2.0, -2.0, -2.0, 7.0, 7.0]  # the tail is padding


def test_every_step_has_the_same_share_of_missed_queries():
    missed, known = ([{"id": f"{kind}{i}"} for i in range(6)] for kind in "mk")
    rows = queries.lay_out(missed, known, 0.375, steps=4, size=8, seed=0)
    steps = [[row["id"] for row in rows[i : i + 8]] for i in range(0, 32, 8)]
    assert [sum(name[0] == "m" for name in step) for step in steps] == [3, 3, 3, 3]
    assert len(set(steps[0][:3] + steps[1][:3])) == 6  # no missed one again before all have come
    assert rows == queries.lay_out(missed, known, 0.375, 4, 8, seed=0)


@pytest.mark.parametrize(("missed", "known"), [(0, 3), (3, 0)])
def test_one_kind_alone_fills_the_steps(missed, known):
    kinds = [{"id": "m"}] * missed, [{"id": "k"}] * known
    assert len(queries.lay_out(*kinds, 0.5, steps=2, size=4, seed=0)) == 8


groups = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0, NAN]), st.sampled_from([0.0, 1.0, NAN])),
    min_size=8,
    max_size=8,
)


@given(groups, groups)
def test_groups_do_not_touch_each_other_and_order_does_not_matter(first, second):
    def run(rows, size=8):
        return compute([r for r, _ in rows], [m for _, m in rows], size=size)

    judge, answer = run(first + second)

    def near(values):
        return pytest.approx(values, abs=1e-5)

    assert judge[:8] == near(run(first)[0]) and answer[8:] == near(run(second)[1])
    assert run(first[::-1])[0] == near(run(first)[0][::-1])
    assert all(math.isfinite(x) for x in judge + answer)
