"""AdaptThink's price of a thought (arXiv 2505.13417), on the decision alone.

AdaptThink adds a constant delta to the reward of every completion that does not think, so thinking
has to gain delta to be chosen; HiPO's boost is felt only where think-off is just behind, and a
query that neither mode can answer, or that both can, leaves its decision alone. With m_on, m_off
the mean rewards of a group's modes and `price` for delta, a name that TRL's clipping has taken:

    v_on = m_on,  v_off = m_off + price
    A_judge(i) = (v_M(i) - mean v) / max(std r, std_floor)
    A_answer(i) as HiPO's

Deviations: (1) AdaptThink holds a reward against the initial model's mean on the query and gives
one advantage to the whole completion; here it is held against the group, and delta reaches the
decision's tokens alone, so that no answer is reinforced for being short; (2) it draws half of its
samples in either mode, here the policy draws both; (3) a completion without a decision is a third
mode, and the normaliser has a floor, as in `hipo`.
"""

import torch
from torch import Tensor

from katlab.step_srpo.advantages import Rollouts
from katlab.step_srpo.advantages._modes import Modes


def advantages(rollouts: Rollouts, settings) -> Tensor:
    """Judge and answer advantages (N, 2); `settings`: price, std_floor, answer_baseline.

    Unscorable completions get 0 and are left out of all means.
    """
    group = Modes.of(rollouts)
    value = group.over_others(group.mean_on, group.mean_off + settings.price)
    judge = value / group.spread_of_all().clamp(min=settings.std_floor)
    answer = group.answers(settings.answer_baseline)
    return torch.stack([judge.flatten(), answer.flatten()], dim=1)
