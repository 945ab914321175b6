"""Advantage estimators, one file each, chosen by the file's name: `step_srpo.advantages = "hipo"`.

An estimator is a module of this package with one pure function

    advantages(rollouts: Rollouts, settings) -> Tensor

of shape (N,), one advantage for the whole completion, or (N, 2), the judge's and the answer's.
`settings` is a `StepSRPOConfig` or anything that has the fields it reads. A new file here is a new
estimator; nothing else names them.

    found = estimate(rollouts, settings)                  # truncated and unscorable ones get 0
    lost = fine(rollouts, settings)                       # of judges that name another mode
    tokens = spread(found, lost, parsed, length, settings.judge_weight)
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules

from torch import Tensor

from katlab import UserError, template
from katlab.lab.profiles import did_you_mean


@dataclass(frozen=True)
class Rollouts:
    """What an estimator sees of N = groups x `group_size` completions, group after group."""

    rewards: Tensor  # (N,) what is trained; NaN where no verifier could say
    think_on: Tensor  # (N,) 1 or 0, NaN where no mode was chosen
    judge_agrees: Tensor  # (N,) 1 where the judge names the mode chosen, else 0; NaN without one
    truncated: Tensor  # (N,) bool: cut off at the length limit, without an end token
    group_size: int


def names() -> list[str]:
    """The estimators there are: the files of this folder but those that begin with `_`."""
    found = (module.name for module in iter_modules(__path__))
    return sorted(name for name in found if not name.startswith("_"))


def estimator(name: str) -> Callable[[Rollouts, object], Tensor]:
    """The function `advantages` of an estimator; UserError for an unknown name."""
    if name not in names():
        raise UserError(f"There is no advantage estimator '{name}'; {did_you_mean(name, names())}")
    return import_module(f"{__name__}.{name}").advantages


def estimate(rollouts: Rollouts, settings) -> Tensor:
    """Advantages by the estimator that `settings.advantages` names, (N,) or (N, 2).

    An unscorable completion gets 0. So does a truncated one, judge and answer (SRPO, arXiv
    2504.14286); its reward stays in the means of its group, since SRPO zeroes the advantage alone.
    TRL's `mask_truncated_completions` takes its tokens out of the loss's normaliser as well.
    """
    found = estimator(settings.advantages)(rollouts, settings).nan_to_num()
    idle = _idle(rollouts)
    return found.masked_fill(idle if found.dim() == 1 else idle.unsqueeze(1), 0.0)


def fine(rollouts: Rollouts, settings) -> Tensor:
    """What the judge's advantage loses where it names another mode than it takes, or none, (N,).

    `judge_penalty` with `judge_consistency = "reward"`, else 0. Without a decision it is lost too,
    or not to decide would be cheaper. Truncated and unscorable completions lose nothing. Ours.
    """
    charged = (rollouts.judge_agrees != 1) & ~_idle(rollouts)
    return charged * (settings.judge_penalty if settings.judge_consistency == "reward" else 0.0)


def _idle(rollouts: Rollouts) -> Tensor:
    return rollouts.truncated | rollouts.rewards.isnan()


def spread(
    found: Tensor, lost: Tensor, parsed: list[template.Parsed], length: int, judge_weight: float
) -> Tensor:
    """Token advantages (B, T) of B completions padded to `length`, from (B,) or (B, 2).

    (B,): the same for all tokens. (B, 2): the judge's through the decision token, the answer's
    after it. Judged tokens alone pay `lost` (B,). Deviation: the judge's part of (B, 2) weighs as
    much as `judge_weight` tokens of an answer, spread over its own, however long it is; the default
    loss divides by all tokens of the batch, and a decision has few of them. A completion without a
    decision is all judge.
    """
    judge, answer = found.unbind(1) if found.dim() == 2 else (found, found)
    out = answer.unsqueeze(1).repeat(1, length)
    for i, one in enumerate(parsed):
        end = one.judge[1]
        weight = judge_weight / max(1, end) if found.dim() == 2 else 1.0
        out[i, :end] = weight * (judge[i] - lost[i])
    return out
