"""The sections of a profile that belong to no stage; every stage may read them."""

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from katlab.lab.settings import Section


class Model(Section):
    """[model]: who plays which part, and how models are loaded and sampled from."""

    student: str
    gguf_file: str
    weights: str
    teacher_off: str
    teacher_on: str
    queries: str
    """Folders, Hub names or package:NAME; a GGUF inside the student's; a remark on its weights for
    every figure; a teacher "parent" is the student before any stage. Queries: "nano", a JSONL file
    or a sum (`katlab.tasks.mixture`)."""

    dtype: Literal["float32", "bfloat16", "float16"]
    quantize: Literal["none", "4bit", "8bit"]
    teacher_quantize: Literal["none", "4bit", "8bit"]
    device_map: str
    bf16: bool
    gradient_checkpointing: bool
    sample_batch: int = Field(gt=0)
    """Weights as loaded and where ("": one device); bfloat16 training; prompts answered at once."""

    engine: Literal["transformers", "vllm"]
    engine_memory: float = Field(gt=0, lt=1)
    """Who draws replies; the share of a GPU's memory that vLLM takes while it does."""

    architecture: dict[str, Any]
    """Keys of a config.json, for planning without weights; empty: read the student's own."""


class Lora(Section):
    """[lora]: adapters instead of full training (arXiv 2106.09685)."""

    enabled: bool
    r: int = Field(gt=0)
    alpha: int = Field(gt=0)
    dropout: float = Field(ge=0, lt=1)
    target_modules: list[str] = Field(min_length=1)


class Rewards(Section, extra="allow"):
    """[rewards]: verifiers of your own, name = "path/to/file.py" (in `model_extra`)."""

    __pydantic_extra__: dict[str, str] = Field(init=False)


class Prompts(Section):
    """[prompts]: the words in which models are asked, and how their replies are read."""

    tag: str
    tag_pattern: str
    rationale: str
    rationale_pattern: str
    """Requests for a query's tags (where "", its own labels serve) and for the reason of a {mode},
    and patterns of the replies."""

    solve: str
    think: str
    reply_patterns: list[str]
    """Requests for a direct answer and for a thought, put behind a query; "" leaves it alone. How a
    thought without tags and its answer are found in a reply, by the first pattern that finds both;
    none for teachers that write tags."""

    directive_on: list[str] = Field(min_length=1)
    directive_off: list[str] = Field(min_length=1)
    forced_on: str
    forced_off: str
    """A user's wishes for a mode, some trained on and others tested (`katlab.tasks.wishes`); the
    judge's words where a mode is forced."""

    @field_validator("tag_pattern", "rationale_pattern", "reply_patterns")
    @classmethod
    def _compiles(cls, given: str | list[str]) -> str | list[str]:
        for pattern in [given] if isinstance(given, str) else given:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"'{pattern}' is no regular expression ({error}).") from error
        return given

    @model_validator(mode="after")
    def _groups(self) -> "Prompts":
        if not {"domain", "level"} <= set(re.compile(self.tag_pattern).groupindex):
            raise ValueError("prompts.tag_pattern needs the groups (?P<domain>…) and (?P<level>…).")
        if re.compile(self.rationale_pattern).groups != 1:
            raise ValueError("prompts.rationale_pattern needs one group, the mode: (on|off).")
        for pattern in self.reply_patterns:
            if not {"thought", "answer"} <= set(re.compile(pattern).groupindex):
                raise ValueError(
                    "prompts.reply_patterns need the groups (?P<thought>…) and (?P<answer>…)."
                )
        if "{mode}" not in self.rationale:
            raise ValueError("prompts.rationale needs {mode} where the mode is named.")
        return self


class Seeds(Section):
    """[seeds]: those that settings were chosen on, and those whose runs are reported."""

    tuning: list[int] = []
    reported: list[int] = []

    @model_validator(mode="after")
    def _apart(self) -> "Seeds":
        if both := sorted({*self.tuning} & {*self.reported}):
            raise ValueError(
                f"seeds.tuning and seeds.reported share {', '.join(map(str, both))}; "
                "report runs of seeds that no setting was chosen on."
            )
        return self


class Shared(Section):
    """What every profile has besides the sections of the stages."""

    description: str
    model: Model
    lora: Lora
    rewards: Rewards
    prompts: Prompts
    seeds: Seeds = Seeds()
