"""Advantages by hand: HiPO's formulas, GRPO, truncated and unscorable rollouts, token spans."""

import math
from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trl import GRPOConfig

from katlab import UserError, template
from katlab.step_srpo import advantages
from katlab.step_srpo.advantages import Rollouts, estimate, fine, spread
from katlab.step_srpo.config import StepSRPOConfig

NAN = float("nan")


def rollouts(rewards, modes, size=4, truncated=None, agrees=None) -> Rollouts:
    cut = torch.tensor(truncated or [False] * len(rewards))
    named = torch.tensor(agrees or [1.0] * len(rewards))
    return Rollouts(torch.tensor(rewards), torch.tensor(modes), named, cut, size)


def compute(
    rewards, modes, size=4, omega=0.1, gamma=0.5, floor=0.1, truncated=None, baseline="mode"
):
    settings = SimpleNamespace(
        advantages="hipo", omega=omega, gamma=gamma, std_floor=floor, answer_baseline=baseline
    )
    return estimate(rollouts(rewards, modes, size, truncated), settings).T.tolist()


def grpo(rewards, size=4, truncated=None):
    given = rollouts(rewards, [1.0] * len(rewards), size, truncated)
    return estimate(given, SimpleNamespace(advantages="grpo")).tolist()


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


def test_a_right_direct_answer_is_reinforced_next_to_a_thought_that_went_wrong():
    # on: 0, 1; off: 1, 1. By mode the direct ones agree; in the group the mean is .75, std .4330
    rewards, modes = [0.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]
    judge, answer = compute(rewards, modes)
    assert answer == pytest.approx([-1.0, 1.0, 0.0, 0.0])
    same, grouped = compute(rewards, modes, baseline="group")
    assert same == judge  # the decision is told the same
    assert grouped == pytest.approx([-1.73205, 0.57735, 0.57735, 0.57735], abs=1e-4)


def test_an_answer_held_against_its_group_learns_nothing_where_all_agree():
    _, answer = compute([1.0] * 4, [1.0, 1.0, 0.0, 0.0], baseline="group")
    assert answer == [0.0] * 4
    # unscorable and undecided get nothing; the mean is that of the scorable (1, 1, 0), 2/3
    _, answer = compute([1.0, NAN, 1.0, 0.0], [1.0, 1.0, 0.0, NAN], baseline="group")
    assert answer == pytest.approx([0.70711, 0.0, 0.70711, 0.0], abs=1e-4)


def test_a_judge_that_names_another_mode_loses_a_fixed_amount():
    """Agrees, another mode, none taken, another but cut off, another but unscorable."""
    given = rollouts(
        [1.0, 1.0, 0.0, 0.0, NAN],
        [1.0, 0.0, NAN, 0.0, 0.0],
        size=5,
        truncated=[False, False, False, True, False],
        agrees=[1.0, 0.0, NAN, 0.0, 0.0],
    )
    for option, lost in {"reward": [0.0, 0.5, 0.5, 0.0, 0.0], "format": [0.0] * 5}.items():
        settings = SimpleNamespace(judge_consistency=option, judge_penalty=0.5)
        assert fine(given, settings).tolist() == lost
    assert fine(given, SimpleNamespace(judge_consistency="none", judge_penalty=0.5)).sum() == 0


def priced(rewards, modes, price=0.1, floor=0.25):
    settings = SimpleNamespace(
        advantages="adaptthink", price=price, std_floor=floor, answer_baseline="mode"
    )
    return estimate(rollouts(rewards, modes, len(rewards)), settings).T.tolist()


def test_a_constant_price_decides_where_the_modes_are_equal():
    for reward in (0.0, 1.0):  # neither mode can, both can: v .1 apart, std 0 -> floor .25
        judge, answer = priced([reward] * 4, [1.0, 1.0, 0.0, 0.0])
        assert judge == pytest.approx([-0.2, -0.2, 0.2, 0.2], abs=1e-5)
        assert answer == [0.0] * 4
    neither, _ = compute([0.0] * 4, [1.0, 1.0, 0.0, 0.0])
    assert neither == [0.0] * 4  # HiPO's boost is a share of what thinking earns


def test_a_thought_that_gains_more_than_its_price_is_preferred():
    # v_on 1, v_off .5 + .1, mean .8; std of (1, 1, 0, 1) is sqrt(.1875)
    judge, answer = priced([1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0])
    high = 0.2 / math.sqrt(0.1875)
    assert judge == pytest.approx([high, high, -high, -high])
    assert answer == pytest.approx([0.0, 0.0, -1.0, 1.0])
    dearer, _ = priced([1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0], price=0.6)
    assert dearer[0] < 0 < dearer[2]


def test_a_price_is_paid_by_no_group_of_one_mode():
    assert priced([1.0, 0.0, 1.0, 0.0], [1.0] * 4)[0] == [0.0] * 4


def relative(rewards, modes, size, hold=0.0, share=0.5):
    settings = SimpleNamespace(
        advantages="relative", std_floor=0.25, answer_baseline="mode", hold=hold, think_share=share
    )
    return estimate(rollouts(rewards, modes, size), settings).T.tolist()


def test_a_thought_has_to_gain_more_than_on_the_other_queries():
    # query 1: gain .5, std sqrt(.1875), w .25 / .4330; query 2, all right: gain 0, w .25 / .25
    # c = .2887 / 1.5774 = .1830: v .3170 apart there, -.1830 here
    rewards, modes = [1.0, 1.0, 0.0, 1.0] + [1.0] * 4, [1.0, 1.0, 0.0, 0.0] * 2
    judge, answer = relative(rewards, modes, size=4)
    high = 0.366025
    assert judge == pytest.approx([high, high, -high, -high, -high, -high, high, high], abs=1e-5)
    assert answer == pytest.approx([0.0, 0.0, -1.0, 1.0] + [0.0] * 4)


def test_the_same_gain_on_every_query_moves_no_decision():
    rewards, modes = [1.0, 1.0, 0.0, 1.0] * 3, [1.0, 1.0, 0.0, 0.0] * 3
    assert relative(rewards, modes, size=4)[0] == pytest.approx([0.0] * 12, abs=1e-6)
    dearer = priced([1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0])[0]
    assert dearer[0] > 0  # a constant price pushes all of them to think


def test_all_decisions_together_are_pushed_nowhere():
    random = torch.Generator().manual_seed(0)
    groups, size = 16, 8
    rewards = torch.randint(0, 2, (groups, size), generator=random).float()
    on = (
        torch.rand(groups, size, generator=random)
        .lt(torch.rand(groups, 1, generator=random))
        .float()
    )
    rewards[0, 0], on[1] = NAN, 1.0  # one that nobody could score; a query that tried one mode
    judge = torch.tensor(relative(rewards.flatten().tolist(), on.flatten().tolist(), size)[0])
    known = ~rewards.isnan()
    share = (on * known).sum(1, keepdim=True) / known.sum(1, keepdim=True)
    push = judge.view(groups, size) * (on - share)  # d log p / d logit of a decision
    each = (push * known).sum(1) / known.sum(1)
    assert each.sum().abs() < 1e-5 and each.abs().max() > 0.01 and each[1] == 0


def test_a_thought_is_dearer_where_more_think_than_is_held():
    # three of four think and all are right: gain 0, c 0; held at .5 by .4 the price is .1, at 1 -.1
    rewards, modes = [1.0] * 4, [1.0, 1.0, 1.0, 0.0]
    assert relative(rewards, modes, 4, hold=0.4)[0] == pytest.approx([-0.1] * 3 + [0.3])
    assert relative(rewards, modes, 4, hold=0.4, share=1.0)[0] == pytest.approx([0.1] * 3 + [-0.3])
    assert relative(rewards, modes, 4, hold=0.4, share=0.75)[0] == pytest.approx([0.0] * 4)
    undecided = relative([1.0] * 4 + [0.0], [*modes, NAN], 5, hold=0.4, share=0.75)[0]
    assert undecided == pytest.approx([0.5] * 4 + [-2.0])  # no part of the share


def test_a_step_that_has_nothing_to_compare_teaches_no_decision():
    assert relative([1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0], size=4)[0] == pytest.approx(
        [0.0] * 4, abs=1e-6
    )
    assert relative([1.0, 0.0] * 4, [1.0] * 4 + [0.0] * 4, size=4)[0] == [0.0] * 8


@pytest.mark.parametrize("cut_mode", [1.0, 0.0, NAN])
def test_a_truncated_rollout_gets_nothing_and_stays_in_the_means(cut_mode):
    """SRPO zeroes the advantage alone: the reward of 0 stays in the mean of the group."""
    modes = [1.0, 1.0, 1.0, cut_mode]
    judge, answer = compute([1.0, 1.0, 1.0, 0.0], modes, truncated=[False, False, False, True])
    assert judge[3] == answer[3] == 0.0
    whole = compute([1.0, 1.0, 1.0, 0.0], modes)
    assert judge[:3] == whole[0][:3] and answer[:3] == whole[1][:3]
    if cut_mode == 1.0:  # mean .75, std .4330: gamma .25 / .4330 and .25 / .4330
        assert judge[:3] == pytest.approx([0.28868] * 3, abs=1e-4)
        assert answer[:3] == pytest.approx([0.57735] * 3, abs=1e-4)


def test_grpo_gives_the_whole_completion_one_advantage():
    # mean .75, std .5 (three below the line)
    assert grpo([1.0, 1.0, 1.0, 0.0]) == pytest.approx([0.5, 0.5, 0.5, -1.5], abs=1e-3)
    cut = grpo([1.0, 1.0, 1.0, 0.0], truncated=[False, False, False, True])
    assert cut == pytest.approx([0.5, 0.5, 0.5, 0.0], abs=1e-3)
    # NaN is left out: mean .5 and std .7071 of (1, 0)
    assert grpo([1.0, NAN, 0.0], size=3) == pytest.approx([0.7070, 0.0, -0.7070], abs=1e-3)
    assert grpo([1.0, NAN, NAN], size=3) == [0.0] * 3  # nothing to compare with
    assert grpo([1.0, 1.0, 0.0, 0.0], size=2) == [0.0] * 4  # groups agree in themselves


def test_a_new_file_is_a_new_estimator(tmp_path, monkeypatch):
    code = "def advantages(rollouts, settings):\n    return rollouts.rewards * settings.factor\n"
    (tmp_path / "scaled.py").write_text(code)
    monkeypatch.setattr(advantages, "__path__", [*advantages.__path__, str(tmp_path)])
    assert advantages.names() == ["adaptthink", "grpo", "hipo", "relative", "scaled"]
    settings = SimpleNamespace(advantages="scaled", factor=2.0)
    assert estimate(rollouts([1.0, NAN], [1.0, 1.0], 2), settings).tolist() == [2.0, 0.0]


@pytest.mark.parametrize(
    ("name", "hint"), [("hippo", "mean 'hipo'"), ("xyz", "one of: adaptthink, grpo, hi")]
)
def test_an_unknown_estimator_is_one_sentence(name, hint):
    with pytest.raises(UserError, match=hint):
        advantages.estimator(name)


def test_spread_puts_each_advantage_on_its_tokens():
    parsed = [
        template.Parsed("on", None, (0, 2), 1, (3, 4), (5, 6), 6),
        template.Parsed(None, "missing decision", (0, 4), None, None, None, 4),
    ]
    free = torch.zeros(2)
    tokens = spread(torch.tensor([[1.0, 5.0], [-1.0, 7.0]]), free, parsed, 6, 8.0)
    assert tokens[0].tolist() == [4.0, 4.0, 5.0, 5.0, 5.0, 5.0]  # 8 tokens' worth over 2
    assert tokens[1].tolist() == [-2.0, -2.0, -2.0, -2.0, 7.0, 7.0]  # the tail is padding
    flat = spread(torch.tensor([2.0, -1.0]), free, parsed, 6, 8.0)  # one: the same for all
    assert flat.tolist() == [[2.0] * 6, [-1.0] * 6]


def test_the_judges_tokens_alone_pay_for_it():
    parsed = [template.Parsed("on", None, (0, 2), 1, (3, 4), (5, 6), 6)] * 2
    lost = torch.tensor([0.0, 0.5])
    tokens = spread(torch.tensor([[1.0, 5.0], [1.0, 5.0]]), lost, parsed, 6, 8.0)
    assert tokens.tolist() == [[4.0, 4.0, *[5.0] * 4], [2.0, 2.0, *[5.0] * 4]]
    flat = spread(torch.tensor([2.0, 2.0]), lost, parsed, 6, 8.0)  # also of one for the whole
    assert flat.tolist() == [[2.0] * 6, [1.5, 1.5, *[2.0] * 4]]


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


def test_no_setting_of_ours_has_the_name_of_one_of_trls():
    """`delta`, for one, is where TRL's clipping ends: ours moved it, and training fell apart."""
    ours = StepSRPOConfig.__annotations__.keys() - {"reward_weights"}  # meant: another default
    assert not ours & {one.name for one in fields(GRPOConfig)}
