"""What a completion earns: accuracy and format as one trained reward (report section 4.2.2).

Deviation: accuracy is gated by the format (`format_mode = "gate"`), HiPO (arXiv 2509.23967) adds
0.2 x format ("additive"): under group normalisation the bonus rewards well-formed wrong answers.
With `judge_consistency = "format"`, which is ours, a judge that names another mode than it takes
counts as a fault of the format here, and nowhere else.
"""

import json

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from katlab import arms, template
from katlab.samples import judge_agrees

FORMAT_MODES = ("gate", "additive", "off")
CONSISTENCIES = ("none", "format", "reward")
PARTS = ("accuracy", "well_formed", "think_on", "judge_agrees", "ended")
WEIGHTS = (1.0, *(0.0 for _ in PARTS))  # of the reward and its PARTS


def combine(accuracy: Tensor, form: Tensor, format_mode: str) -> Tensor:
    """One reward per completion from accuracy and format, both (N,) in {0, 1}; NaN stays NaN."""
    if format_mode == "additive":
        return accuracy + 0.2 * form
    return accuracy * form if format_mode == "gate" else accuracy


def formed(well_formed: Tensor, agrees: Tensor, judge_consistency: str) -> Tensor:
    """What counts as the format, (N,): with "format" the judge has to name the mode it takes."""
    return well_formed * (agrees == 1) if judge_consistency == "format" else well_formed


def reward_functions(
    tokenizer: PreTrainedTokenizerBase, settings, names_mode: str, reasons: list[str]
) -> list:
    """TRL's reward functions: what is trained (weight 1), then its parts (weight 0).

    `settings` has format_mode and judge_consistency. The parts are no rewards: as columns they are
    gathered over ranks and logged beside it. Accuracy is 1, 0 or None (unscorable); an answer that
    is absent or never closed is wrong, as in evaluation. `think_on` and `judge_agrees`
    (`samples.judge_agrees`, by the pattern `names_mode`) are None where no mode was chosen, `ended`
    is 0 where the end token is missing. TRL calls the functions in order, so the first one makes
    what the others read, and fills `reasons` with why each verdict of the batch fell.
    """
    tags = template.Tags.of(tokenizer)
    parts: dict[str, list] = {}

    def reward(completion_ids, verifier, reference, difficulty, log_metric, **_):
        parsed = [template.parse(ids, tags) for ids in completion_ids]
        rows = [
            {"verifier": kind, "reference": json.loads(text)}
            for kind, text in zip(verifier, reference, strict=True)
        ]
        verdicts = arms.verdicts(rows, arms.answers(tokenizer, completion_ids))
        reasons[:] = [one.reason for one in verdicts]
        texts = tokenizer.batch_decode(completion_ids)
        said = pd.DataFrame({"mode": [one.mode for one in parsed], "completion": texts})
        named = [None if x is None else float(x) for x in judge_agrees(said, names_mode)]
        parts.update(
            accuracy=[None if one.correct is None else float(one.correct) for one in verdicts],
            well_formed=[float(one.problem is None) for one in parsed],
            think_on=[None if one.mode is None else float(one.mode == "on") for one in parsed],
            judge_agrees=named,
            ended=[float(not tags.eos.isdisjoint(ids)) for ids in completion_ids],
        )
        for level in dict.fromkeys(difficulty):
            here = [one for one, d in zip(parsed, difficulty, strict=True) if d == level]
            log_metric(f"think_on/level_{level}", sum(p.mode == "on" for p in here) / len(here))
        accuracy, well_formed, agrees = (
            torch.tensor([torch.nan if x is None else x for x in parts[name]])
            for name in ("accuracy", "well_formed", "judge_agrees")
        )
        form = formed(well_formed, agrees, settings.judge_consistency)
        return combine(accuracy, form, settings.format_mode).tolist()

    def part(name: str):
        def read(**_):
            return parts[name]

        read.__name__ = name  # TRL logs rewards/<name>/mean
        return read

    return [reward, *map(part, PARTS)]
