"""Step-SRPO's advantages: one for the decision and one for the answer (report section 4.2).

The report names two rewards and leaves the formulas to its companion paper HiPO (arXiv
2509.23967); `advantages` is our reading of both. Pure functions of tensors: no model, no trainer.

Deviations: (1) a completion without a decision counts as a third mode, which no group prefers: by
its reward alone it would be cheaper than the dearer mode, and the decision would dissolve; (2) the
normaliser has a floor, so that a group in which every answer is right still prefers the cheaper
mode, gently; (3) accuracy is gated by the format (`format_mode = "gate"`), HiPO adds 0.2 x format
(`"additive"`): under group normalisation the bonus rewards well-formed wrong answers; (4) SRPO's
advantage of 0 for truncated responses follows from the gate: they cannot be right; (5) the judge's
part has the same weight in every completion, however long it is.
"""

import torch

from katlab import template

FORMAT_MODES = ("gate", "additive", "off")


def combine(accuracy: torch.Tensor, form: torch.Tensor, format_mode: str) -> torch.Tensor:
    """One reward per completion from accuracy and format, both (N,) in {0, 1}; NaN stays NaN."""
    if format_mode not in FORMAT_MODES:
        raise ValueError(f"format_mode is {format_mode!r}, not one of {FORMAT_MODES}")
    if format_mode == "additive":
        return accuracy + 0.2 * form
    return accuracy * form if format_mode == "gate" else accuracy


def advantages(
    rewards: torch.Tensor,
    think_on: torch.Tensor,
    group_size: int,
    omega: float,
    gamma: float,
    std_floor: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Judge and answer advantages, both (N,), of N = groups x `group_size` completions.

    `rewards` is NaN where a completion is unscorable (both advantages 0, left out of all means),
    `think_on` is 1, 0, or NaN where no mode was chosen. With m_on, m_off the mean rewards of the
    modes in a group, b = omega m_on and m'_off = m_off + b if 0 <= m_on - m_off <= b:

        A_judge(i)  = (m'_M(i) - mean m' + gamma (r_i - mean r)) / max(std r, std_floor)
        A_answer(i) = (r_i - m_M(i)) / std(r | M(i))         (0 where the mode's rewards agree)

    (HiPO, our reading.) The first difference is 0 in a group that tried one mode only.
    """
    r = rewards.view(-1, group_size)  # (groups, G)
    known = ~r.isnan()
    on = (think_on.view(-1, group_size) == 1) & known
    off = (think_on.view(-1, group_size) == 0) & known
    r = r.nan_to_num()
    mean_on, mean_off, mean_all = _mean(r, on), _mean(r, off), _mean(r, known)  # (groups, 1)
    boost = omega * mean_on
    behind = mean_on - mean_off
    raised = torch.where((behind >= 0) & (behind <= boost), mean_off + boost, mean_off)
    none = known & ~on & ~off
    value = torch.where(on, mean_on, torch.where(off, raised, _mean(r, none)))
    value = value - _mean(value, known)  # 0 where the group tried one mode only
    spread = _std(r, known, mean_all).clamp(min=std_floor)
    judge = (value + gamma * (r - mean_all)) / spread * known
    within = torch.where(on, mean_on, torch.where(off, mean_off, mean_all))
    deviation = torch.where(on, _std(r, on, mean_on), _std(r, off, mean_off))
    answer = torch.where(deviation > 0, (r - within) / deviation.clamp(min=1e-6), 0.0) * (on | off)
    return judge.flatten(), answer.flatten()


def _mean(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (x * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)


def _std(x: torch.Tensor, mask: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    return _mean((x - mean) ** 2, mask).sqrt()


def spread(
    judge: torch.Tensor,
    answer: torch.Tensor,
    parsed: list[template.Parsed],
    length: int,
    judge_weight: float,
) -> torch.Tensor:
    """Token advantages (B, T): the judge's through the decision token, the answer's after it.

    The judge's part weighs as much as `judge_weight` tokens of an answer, spread over its own:
    the default loss divides by all tokens of the batch, and a decision has few of them. A
    completion without a decision is all judge.
    """
    out = answer.unsqueeze(1).repeat(1, length)  # (B, T)
    for i, one in enumerate(parsed):
        end = one.judge[1]
        out[i, :end] = judge_weight / max(1, end) * judge[i]
    return out
