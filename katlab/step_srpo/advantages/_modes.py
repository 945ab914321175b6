"""A group split by the mode that each completion chose: what estimators with two parts share."""

from dataclasses import dataclass

import torch
from torch import Tensor

from katlab.step_srpo.advantages import Rollouts


@dataclass(frozen=True)
class Modes:
    """Rewards (groups, G), 0 where unscorable, the masks of who counts, and means (groups, 1)."""

    r: Tensor
    known: Tensor
    on: Tensor
    off: Tensor
    mean_on: Tensor
    mean_off: Tensor
    mean_all: Tensor

    @classmethod
    def of(cls, rollouts: Rollouts) -> "Modes":
        r = rollouts.rewards.view(-1, rollouts.group_size)
        modes, known = rollouts.think_on.view_as(r), ~r.isnan()
        on, off = (modes == 1) & known, (modes == 0) & known
        r = r.nan_to_num()
        return cls(r, known, on, off, _mean(r, on), _mean(r, off), _mean(r, known))

    def over_others(self, value_on: Tensor, value_off: Tensor) -> Tensor:
        """What a completion's mode is worth over its group's mean worth (groups, G).

        0 in a group that tried one mode only. No decision is a third mode, worth its own rewards.
        """
        none = _mean(self.r, self.known & ~self.on & ~self.off)
        value = torch.where(self.on, value_on, torch.where(self.off, value_off, none))
        return (value - _mean(value, self.known)) * self.known

    def spread_of_all(self) -> Tensor:
        """Standard deviation of a group's rewards (groups, 1)."""
        return _std(self.r, self.known, self.mean_all)

    def answers(self, baseline: str) -> Tensor:
        """An answer's reward, standardised within its mode or, baseline "group", its group.

        0 where the rewards agree, and for completions without a decision (groups, G).
        """
        within, deviation = self.mean_all, self.spread_of_all()
        if baseline == "mode":
            within = torch.where(self.on, self.mean_on, self.mean_off)
            by_mode = (_std(self.r, self.on, self.mean_on), _std(self.r, self.off, self.mean_off))
            deviation = torch.where(self.on, *by_mode)
        held = torch.where(deviation > 0, (self.r - within) / deviation.clamp(min=1e-6), 0.0)
        return held * (self.on | self.off)


def _mean(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)


def _std(x: Tensor, mask: Tensor, mean: Tensor) -> Tensor:
    return _mean((x - mean) ** 2, mask).sqrt()
