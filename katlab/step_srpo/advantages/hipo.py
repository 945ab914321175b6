"""HiPO (arXiv 2509.23967): one advantage for the decision, one for the answer (report section 4.2).

The report names two rewards and leaves the formulas to its companion paper; this is our reading of
both. With m_on, m_off the mean rewards of a group's modes, b = omega m_on, and m'_off = m_off + b
if 0 <= m_on - m_off <= b:

    A_judge(i)  = (m'_M(i) - mean m' + gamma (r_i - mean r)) / max(std r, std_floor)
    A_answer(i) = (r_i - m_M(i)) / std(r | M(i))         (0 where the mode's rewards agree)

The first difference is 0 in a group that tried one mode only. With `answer_baseline = "group"`,
which is ours, the answer is held against all of its group,

    A_answer(i) = (r_i - mean r) / std r                (0 where all rewards agree)

so a right direct answer is reinforced also where every direct answer was right, if a thought of the
group went wrong.

Deviations: (1) a completion without a decision counts as a third mode, which no group prefers: by
its reward alone it would be cheaper than the dearer mode, and the decision would dissolve; (2) the
normaliser has a floor, so that a group in which every answer is right still prefers the cheaper
mode, gently.
"""

import torch
from torch import Tensor

from katlab.step_srpo.advantages import Rollouts
from katlab.step_srpo.advantages._modes import Modes


def advantages(rollouts: Rollouts, settings) -> Tensor:
    """Judge and answer advantages (N, 2); `settings`: omega, gamma, std_floor, answer_baseline.

    Unscorable completions get 0 and are left out of all means.
    """
    group = Modes.of(rollouts)
    boost = settings.omega * group.mean_on
    behind = group.mean_on - group.mean_off
    near = (behind >= 0) & (behind <= boost)
    value = group.over_others(group.mean_on, group.mean_off + boost * near)
    floored = group.spread_of_all().clamp(min=settings.std_floor)
    judge = (value + settings.gamma * (group.r - group.mean_all)) / floored * group.known
    answer = group.answers(settings.answer_baseline)
    return torch.stack([judge.flatten(), answer.flatten()], dim=1)
