"""Four rollouts of one query, written by hand: what each earns and what its tokens are told.

example.table(tokenizer, advantages="hipo", omega=0.35)
example.tokens(tokenizer, 2, advantages="grpo")
"""

from types import SimpleNamespace

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from katlab import template
from katlab.arms import answers
from katlab.samples import judge_agrees
from katlab.step_srpo.advantages import Rollouts, estimate, fine, spread
from katlab.step_srpo.reward import combine, formed

QUESTION, RIGHT, NAMES_MODE = "Compute 13+14-5.", "22", "think (on|off)"
ROLLOUTS = (
    template.judged("on", "two steps, think on.") + template.body("on", "22", "13+14=27; 27-5=22"),
    template.judged("on", "work it out, think on.") + template.body("on", "22", "14-5=9; 13+9=22"),
    template.judged("off", "answer directly, think off.") + template.body("off", "22"),
    template.judged("off", "a small sum, think off.") + template.body("off", "32"),
)
SETTINGS = {  # the worked numbers of the notebook belong to these
    "advantages": "hipo",
    "omega": 0.35,
    "gamma": 0.3,
    "std_floor": 0.25,
    "answer_baseline": "mode",
    "judge_weight": 80.0,
    "judge_consistency": "format",
    "judge_penalty": 0.5,
    "format_mode": "gate",
}


def table(tokenizer: PreTrainedTokenizerBase, **changed: object) -> pd.DataFrame:
    """Mode, answer, reward, judge's and answer's advantage of each rollout; `changed` settings."""
    ids, parsed, rollouts, settings = _four(tokenizer, changed)
    found = estimate(rollouts, settings)
    judge, answer = found.unbind(1) if found.dim() == 2 else (found, found)
    rows = {
        "mode": [one.mode for one in parsed],
        "answer": answers(tokenizer, ids),
        "reward": rollouts.rewards.tolist(),
        "judge's advantage": (judge - fine(rollouts, settings)).tolist(),
        "answer's advantage": answer.tolist(),
    }
    return pd.DataFrame(rows, index=pd.RangeIndex(1, 5, name="rollout")).round(3)


def tokens(
    tokenizer: PreTrainedTokenizerBase, rollout: int, **changed: object
) -> tuple[list[str], list[float]]:
    """The tokens of a rollout (1 to 4) as text, and the advantage that each of them carries."""
    ids, parsed, rollouts, settings = _four(tokenizer, changed)
    length = max(map(len, ids))
    found, lost = estimate(rollouts, settings), fine(rollouts, settings)
    wide: Tensor = spread(found, lost, parsed, length, settings.judge_weight)
    own = ids[rollout - 1]
    return [tokenizer.decode([i]) for i in own], wide[rollout - 1, : len(own)].tolist()


def _four(tokenizer: PreTrainedTokenizerBase, changed: dict):
    """Ids, parsed spans, what an estimator sees, and the settings."""
    settings = SimpleNamespace(**SETTINGS | changed)
    tags = template.Tags.of(tokenizer)
    ids = [tokenizer(text + template.END)["input_ids"] for text in ROLLOUTS]
    parsed = [template.parse(one, tags) for one in ids]
    right = torch.tensor([float(answer == RIGHT) for answer in answers(tokenizer, ids)])
    said = pd.DataFrame({"mode": [one.mode for one in parsed], "completion": ROLLOUTS})
    agrees = torch.tensor(judge_agrees(said, NAMES_MODE).astype(float).tolist())
    well_formed = torch.tensor([float(one.problem is None) for one in parsed])
    think_on = torch.tensor([float(one.mode == "on") for one in parsed])
    form = formed(well_formed, agrees, settings.judge_consistency)
    rewards = combine(right, form, settings.format_mode)
    uncut = torch.zeros(4, dtype=torch.bool)
    return ids, parsed, Rollouts(rewards, think_on, agrees, uncut, 4), settings
