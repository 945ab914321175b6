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
from katlab.step_srpo.advantages import Rollouts, estimate, spread
from katlab.step_srpo.reward import combine

QUESTION, RIGHT = "Compute 13+14-5.", "22"
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
    "judge_weight": 80.0,
    "format_mode": "gate",
}


def table(tokenizer: PreTrainedTokenizerBase, **changed: object) -> pd.DataFrame:
    """Mode, answer, reward, judge's and answer's advantage of each rollout; `changed` settings."""
    ids, parsed, rollouts, settings = _four(tokenizer, changed)
    found = estimate(rollouts, settings)
    judge, answer = found.T.tolist() if found.dim() == 2 else [found.tolist()] * 2
    rows = {
        "mode": [one.mode for one in parsed],
        "answer": answers(tokenizer, ids),
        "reward": rollouts.rewards.tolist(),
        "judge's advantage": judge,
        "answer's advantage": answer,
    }
    return pd.DataFrame(rows, index=pd.RangeIndex(1, 5, name="rollout")).round(3)


def tokens(
    tokenizer: PreTrainedTokenizerBase, rollout: int, **changed: object
) -> tuple[list[str], list[float]]:
    """The tokens of a rollout (1 to 4) as text, and the advantage that each of them carries."""
    ids, parsed, rollouts, settings = _four(tokenizer, changed)
    length = max(map(len, ids))
    wide: Tensor = spread(estimate(rollouts, settings), parsed, length, settings.judge_weight)
    own = ids[rollout - 1]
    return [tokenizer.decode([i]) for i in own], wide[rollout - 1, : len(own)].tolist()


def _four(tokenizer: PreTrainedTokenizerBase, changed: dict):
    """Ids, parsed spans, what an estimator sees, and the settings."""
    settings = SimpleNamespace(**SETTINGS | changed)
    tags = template.Tags.of(tokenizer)
    ids = [tokenizer(text + template.END)["input_ids"] for text in ROLLOUTS]
    parsed = [template.parse(one, tags) for one in ids]
    right = torch.tensor([float(answer == RIGHT) for answer in answers(tokenizer, ids)])
    formed = torch.tensor([float(one.problem is None) for one in parsed])
    think_on = torch.tensor([float(one.mode == "on") for one in parsed])
    rewards = combine(right, formed, settings.format_mode)
    return ids, parsed, Rollouts(rewards, think_on, torch.zeros(4, dtype=torch.bool), 4), settings
