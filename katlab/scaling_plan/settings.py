"""Profile section [scaling_plan] (stage 08)."""

from typing import Literal

from pydantic import Field

from katlab.lab.settings import Section

NEEDS: tuple[str, ...] = ()


class Settings(Section):
    """Hardware and the length of a training: what the plan's arithmetic starts from."""

    gpu: Literal["A100-80", "H100-80", "H200-141"]
    gpus: int = Field(gt=0)
    sequence: int = Field(gt=0)
    tokens: float = Field(gt=0)
    mfu: float = Field(gt=0, le=1)
    """GPUs, tokens per sequence, tokens of the training, and the share of the peak reached."""
