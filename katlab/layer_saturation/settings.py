"""Profile section [layer_saturation] (stage 01)."""

from typing import Literal

from pydantic import Field, model_validator

from katlab.lab.settings import Section

NEEDS: tuple[str, ...] = ()
MODELS = ("student",)  # loaded by its name in [model]


class Settings(Section):
    """What layers are measured on, which are added, and how long a child is trained to recover."""

    text: str
    queries: int = Field(gt=0)
    tokens: int = Field(gt=0)
    length: int = Field(gt=0)
    sequences_at_once: int = Field(gt=0)
    """Calibration: nano, a text file or "" for the shipped texts; sizes in queries and tokens."""

    add: int = Field(ge=0)
    choice: Literal["similarity", "skip-damage", "repeat-damage", "run", "evenly", "list"]
    layers: list[int]
    order: Literal["interleaved", "stacked"]
    start: Literal["copy", "zero", "half-step", "alpha"]
    alpha: float = Field(ge=0, le=1)
    """The plan: how many layers (0: a quarter), which, in which order, how the copies start."""

    recovery_queries: int = Field(gt=0)
    recovery_steps: int = Field(ge=0)
    recovery_scheme: Literal["all", "new", "layer-wise"]
    recovery_rate: float = Field(gt=0)
    """Continued training of the student's children, one curve each; 0 steps leave it out."""

    real_tokens: int = Field(ge=0)
    real_recovery_steps: int = Field(ge=0)
    real_recovery_rate: float = Field(gt=0)
    """The same for SmolLM2-135M, a real pretrained model; 0 tokens leave it out."""

    @model_validator(mode="after")
    def _listed(self) -> "Settings":
        if (self.choice == "list") != bool(self.layers):
            raise ValueError("layer_saturation.layers and choice = 'list' go together; set both.")
        return self
