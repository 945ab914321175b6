"""Profile section [cold_start] (stage 04)."""

from typing import Any, Literal

from pydantic import Field

from katlab.lab.settings import Count, Section

NEEDS = ("dual_regime_data", "mtp_distillation")
MODELS = ("teacher_off", "teacher_on")  # loaded by their names in [model]


class Settings(Section):
    """Votes, the corpus they make, training on it, and the check on held-out queries."""

    queries: Count
    rows: int = Field(gt=0)
    votes: Literal["own", "teachers"]
    """Queries, rows chosen from them, and whose votes: the student's own or several models'."""

    vote_samples: int = Field(gt=0)
    vote_tokens: int = Field(gt=0)
    vote_margin: float = Field(ge=0, le=1)
    """Samples per query and mode (teachers' votes: and model), tokens of the student's direct ones,
    and of own votes the gain in pass rate that think-on must bring."""

    think_on_share: float = Field(ge=0, le=1)
    random_share: float = Field(ge=0, le=1)
    directive_share: float = Field(ge=0, le=1)
    replay_share: float = Field(ge=0, le=1)
    replay_modes: list[Literal["off", "on"]]
    """The corpus: think-on, random modes, wishes in words, and beside it Stage 1 rows of these
    modes."""

    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    max_length: int = Field(gt=0)
    """Training: rows per optimizer step over all ranks and accumulations, tokens of a row."""

    eval_prompts: Count
    max_new_tokens: int = Field(gt=0)
    """Held-out queries, and tokens of any reply."""

    trainer: dict[str, Any]
    """Arguments of TRL's SFTConfig, under its own names."""
