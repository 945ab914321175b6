"""GRPO (DeepSeekMath, arXiv 2402.03300): one advantage for the whole completion.

    A(i) = (r_i - mean r) / (std r + 1e-4)

over the scorable completions of a group, with TRL's standard deviation (n - 1 below the line): the
decision and the answer get the same, whichever mode was cheaper.
"""

from torch import Tensor
from trl.trainer.utils import nanstd

from katlab.step_srpo.advantages import Rollouts


def advantages(rollouts: Rollouts, settings) -> Tensor:
    """Advantages (N,); NaN for unscorable completions and where one alone is scorable."""
    r = rollouts.rewards.view(-1, rollouts.group_size)  # (groups, G)
    centred = r - r.nanmean(1, keepdim=True)
    return (centred / (nanstd(r, dim=1, keepdim=True) + 1e-4)).flatten()
