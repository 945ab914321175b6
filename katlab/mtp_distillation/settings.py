"""Profile section [mtp_distillation] (stage 03)."""

from typing import Any

from pydantic import Field

from katlab.lab.settings import Count, Section

NEEDS = ("layer_saturation", "dual_regime_data")
MODELS = ("teacher_off", "teacher_on")  # loaded by their names in [model]


class Settings(Section):
    """Rows, training, the two distances to the teachers, MTP, and the comparison at the end."""

    max_rows: int = Field(gt=0)
    held_out: Count
    max_length: int = Field(gt=0)
    """Corpus rows trained on, rows kept for draft acceptance, tokens of the longest row."""

    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    """Training; batch_size counts rows per optimizer step over all ranks and accumulations."""

    kl_weight: float = Field(ge=0)
    """KL(teacher, student) on all logits where both share the tokenizer; 0: ULD there as well."""

    uld_weight: float = Field(ge=0)
    chunk_weight: float = Field(ge=0)
    uld_top_k: int = Field(gt=0)
    temperature: float = Field(gt=0)
    head_chunk: int = Field(gt=0)
    capture_batch_size: int = Field(gt=0)
    """ULD (arXiv 2402.12030): weights, probabilities kept per token, temperature; rows of logits
    and rows of the corpus in memory at once."""

    mtp_depth: int = Field(ge=1)
    mtp_weight_start: float = Field(ge=0)
    mtp_weight_end: float = Field(ge=0)
    """Multi-token prediction (DeepSeek-V3): modules and the weight of their loss."""

    ce_control: bool
    """Whether an arm with cross-entropy alone is trained too."""

    eval_prompts: Count
    eval_temperature: float = Field(ge=0)
    max_new_tokens: int = Field(gt=0)
    """Forced think-on and think-off on held-out queries."""

    trainer: dict[str, Any]
    """Arguments of the trainer, under TRL's own names."""
