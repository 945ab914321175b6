"""Profile section [step_srpo] (stage 05)."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from katlab.lab.settings import Count, Section, did_you_mean

NEEDS = ("cold_start",)


class Trainer(Section, extra="allow"):
    """[step_srpo.trainer]: arguments of TRL's GRPOConfig under their own names; others may join."""

    num_generations: int = Field(ge=2)
    max_completion_length: int = Field(gt=0)
    temperature: float = Field(gt=0)
    use_vllm: bool
    """Rollouts per query; how they are sampled."""

    learning_rate: float = Field(gt=0)
    lr_scheduler_type: str
    warmup_steps: int = Field(ge=0)
    adam_beta2: float = Field(ge=0, lt=1)
    beta: float = Field(ge=0)
    epsilon: float = Field(gt=0)
    loss_type: Literal["dapo", "grpo", "dr_grpo", "bnpo", "cispo", "sapo"]
    save_steps: int = Field(gt=0)
    """Training; beta weighs the KL term, epsilon is the clip range, the losses sum over tokens."""


class Settings(Section):
    """Queries, the advantages, training, and the check on held-out queries."""

    candidates: Count
    prompts_per_step: int = Field(gt=0)
    hard_share: float = Field(ge=0, lt=1)
    steps: int = Field(gt=0)
    seed_offset: int = Field(ge=0)
    """Queries tried, queries per step, the share of them that the model misses (one at least is
    one that it knows), steps; what is added to the run's seed for the queries tried, their order
    and the rollouts, to train a cold start again."""

    advantages: str
    omega: float = Field(ge=0)
    price: float = Field(ge=0)
    hold: float = Field(ge=0)
    think_share: float = Field(ge=0, le=1)
    gamma: float = Field(ge=0)
    std_floor: float = Field(ge=0)
    answer_baseline: Literal["mode", "group"]
    judge_weight: float = Field(ge=0)
    judge_consistency: Literal["none", "format", "reward"]
    judge_penalty: float = Field(ge=0)
    format_mode: Literal["gate", "additive", "off"]
    """The estimator, its numbers, a decision's weight, what holds it to the judge's words, the
    reward: see `StepSRPOConfig`."""

    @model_validator(mode="after")
    def _format_counts(self) -> "Settings":
        if self.judge_consistency == "format" and self.format_mode == "off":
            raise ValueError(
                "step_srpo.judge_consistency 'format' does nothing while format_mode is 'off'; "
                "set it to 'reward' or 'none'."
            )
        return self

    @field_validator("advantages")
    @classmethod
    def _is_there(cls, name: str) -> str:
        folder = Path(__file__).with_name("advantages")  # importing the package takes seconds
        names = sorted(path.stem for path in folder.glob("[!_]*.py"))
        if name not in names:
            raise ValueError(f"there is no estimator '{name}'; {did_you_mean(name, names)}")
        return name

    trainer: Trainer

    eval_prompts: Count
    """Held-out queries, before and after."""
