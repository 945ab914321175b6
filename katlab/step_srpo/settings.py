"""Profile section [step_srpo] (stage 05)."""

from typing import Any, Literal

from pydantic import Field

from katlab.lab.settings import Section

NEEDS = ("cold_start",)


class Settings(Section):
    """Queries and rollouts, training, the advantages, and the check on held-out queries."""

    candidates: int = Field(gt=0)
    prompts_per_step: int = Field(gt=0)
    num_generations: int = Field(ge=2)
    hard_share: float = Field(ge=0, le=1)
    max_completion_length: int = Field(gt=0)
    temperature: float = Field(gt=0)
    use_vllm: bool
    """Queries tried, queries per step, rollouts per query, the share that the model misses."""

    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    warmup: int = Field(ge=0)
    adam_beta2: float = Field(ge=0, lt=1)
    beta: float = Field(ge=0)
    epsilon: float = Field(gt=0)
    loss_type: Literal["dapo", "grpo", "dr_grpo", "bnpo", "cispo", "sapo"]
    save_steps: int = Field(gt=0)
    """Training; beta weighs the KL term, epsilon is the clip range, the losses sum over tokens."""

    omega: float = Field(ge=0)
    gamma: float = Field(ge=0)
    std_floor: float = Field(ge=0)
    judge_weight: float = Field(ge=0)
    format_mode: Literal["gate", "additive", "off"]
    """Advantages (`step_srpo.advantages`): HiPO's boost and share, the floor of the normaliser."""

    eval_prompts: int = Field(gt=0)
    """Held-out queries, before and after."""

    trainer: dict[str, Any]
    """Further arguments of the trainer, under TRL's own names."""
