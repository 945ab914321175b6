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


def advantages(rollouts: Rollouts, settings) -> Tensor:
    """Judge and answer advantages (N, 2); `settings`: omega, gamma, std_floor, answer_baseline.

    Unscorable completions get 0 and are left out of all means.
    """
    r = rollouts.rewards.view(-1, rollouts.group_size)  # (groups, G)
    modes = rollouts.think_on.view_as(r)
    known = ~r.isnan()
    on, off = (modes == 1) & known, (modes == 0) & known
    r = r.nan_to_num()
    mean_on, mean_off, mean_all = _mean(r, on), _mean(r, off), _mean(r, known)  # (groups, 1)
    boost = settings.omega * mean_on
    behind = mean_on - mean_off
    raised = torch.where((behind >= 0) & (behind <= boost), mean_off + boost, mean_off)
    none = known & ~on & ~off
    value = torch.where(on, mean_on, torch.where(off, raised, _mean(r, none)))
    value = value - _mean(value, known)  # 0 where the group tried one mode only
    std_all = _std(r, known, mean_all)
    floored = std_all.clamp(min=settings.std_floor)
    judge = (value + settings.gamma * (r - mean_all)) / floored * known
    within = torch.where(on, mean_on, torch.where(off, mean_off, mean_all))
    deviation = torch.where(on, _std(r, on, mean_on), _std(r, off, mean_off))
    if settings.answer_baseline == "group":
        within, deviation = mean_all, std_all
    answer = torch.where(deviation > 0, (r - within) / deviation.clamp(min=1e-6), 0.0) * (on | off)
    return torch.stack([judge.flatten(), answer.flatten()], dim=1)


def _mean(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)


def _std(x: Tensor, mask: Tensor, mean: Tensor) -> Tensor:
    return _mean((x - mean) ** 2, mask).sqrt()
