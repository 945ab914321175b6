"""A thought has to gain more than it gains on the step's other queries. Ours.

A constant price (`adaptthink`) leaves the gate without a hold: where the mean gain of a thought
differs from the price, every decision is pushed one way, and where it does not, the few queries of
a step still push them all by chance, until one mode is drawn no more. Here the price of a step is
what leaves that common push at 0. With m_on, m_off the mean rewards of a query's modes, n_on, n_off
how many of its n completions took them, and s = max(std r, std_floor),

    gain = m_on - m_off,   w = n_on n_off / (n^2 s),   c = sum w gain / sum w over the queries
    v_on = m_on,           v_off = m_off + c
    A_judge(i) = (v_M(i) - mean v) / s
    A_answer(i) as HiPO's

w (gain - c) is what a query's completions push a logit that all decisions share by, so c takes the
push out to first order; what is learned is where a thought gains more than elsewhere. A gate can
drift all the same, by what answers, format and the optimiser do to it. `hold` pulls it back:

    c + hold (share - think_share),   share of the step's decisions to think

so that a thought is dearer the more there are. `price` is not read. Unheld, a step of one query, or
whose queries tried one mode each, teaches no decision. All ranks' queries count.
"""

import torch
from torch import Tensor

from katlab.step_srpo.advantages import Rollouts
from katlab.step_srpo.advantages._modes import Modes


def advantages(rollouts: Rollouts, settings) -> Tensor:
    """Judge and answer advantages (N, 2); `settings`: hold, think_share, std_floor,
    answer_baseline.

    Unscorable completions get 0 and are left out of all means.
    """
    group = Modes.of(rollouts)
    deviation = group.spread_of_all().clamp(min=settings.std_floor)
    on, off, known = (mask.sum(1, keepdim=True) for mask in (group.on, group.off, group.known))
    weight = on * off / known.clamp(min=1) ** 2 / deviation
    gain = group.mean_on - group.mean_off
    price = (weight * gain).sum() / weight.sum().clamp(min=1e-9)
    share = on.sum() / (on + off).sum().clamp(min=1)
    price = price + settings.hold * (share - settings.think_share)
    judge = group.over_others(group.mean_on, group.mean_off + price) / deviation
    answer = group.answers(settings.answer_baseline)
    return torch.stack([judge.flatten(), answer.flatten()], dim=1)
