"""Profile section [evaluation] (stage 06)."""

from pydantic import Field

from katlab.lab.settings import Count, Section

NEEDS = ("mtp_distillation", "cold_start", "step_srpo")
MODELS = ("teacher_off", "teacher_on")  # loaded by their names in [model]


class Settings(Section):
    """How many prompts, how they are sampled, and when thinking counts as worth it."""

    prompts: Count
    samples: int = Field(gt=0)
    forced_samples: int = Field(gt=0)
    """Prompts and samples per prompt: of the auto arms, of the forced arms."""

    temperature: float = Field(ge=0)
    max_new_tokens: int = Field(gt=0)
    delta: float = Field(ge=0, le=1)
    """Sampling; the accuracy that a cell must gain by thinking."""
