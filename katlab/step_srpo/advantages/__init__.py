"""Advantage estimators, one file each, chosen by the file's name: `step_srpo.advantages = "hipo"`.

An estimator is a module of this package with one pure function

    advantages(rollouts: Rollouts, settings) -> Tensor

of shape (N,), one advantage for the whole completion, or (N, 2), the judge's and the answer's.
`settings` is a `StepSRPOConfig` or anything that has the fields it reads. A new file here is a new
estimator; nothing else names them.

    found = estimate(rollouts, settings)                  # truncated and unscorable ones get 0
    tokens = spread(found, parsed, length, settings.judge_weight)
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
    truncated: Tensor  # (N,) bool: cut off at the length limit, without an end token
    group_size: int


def names() -> list[str]:
    """The estimators there are: the files of this folder."""
    return sorted(module.name for module in iter_modules(__path__))


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
    idle = rollouts.truncated | rollouts.rewards.isnan()
    return found.masked_fill(idle if found.dim() == 1 else idle.unsqueeze(1), 0.0)


def spread(
    found: Tensor, parsed: list[template.Parsed], length: int, judge_weight: float
) -> Tensor:
    """Token advantages (B, T) of B completions padded to `length`, from (B,) or (B, 2).

    (B,): the same for all tokens. (B, 2): the judge's through the decision token, the answer's
    after it. Deviation: the judge's part weighs as much as `judge_weight` tokens of an answer,
    spread over its own, however long it is; the default loss divides by all tokens of the batch,
    and a decision has few of them. A completion without a decision is all judge.
    """
    if found.dim() == 1:
        return found.unsqueeze(1).repeat(1, length)
    judge, answer = found.unbind(1)
    out = answer.unsqueeze(1).repeat(1, length)
    for i, one in enumerate(parsed):
        end = one.judge[1]
        out[i, :end] = judge_weight / max(1, end) * judge[i]
    return out
