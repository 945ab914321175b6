"""Profile section [case_studies] (stage 07)."""

from pydantic import Field

from katlab.lab.settings import Count, Section

NEEDS = ("step_srpo",)
MODELS = ("teacher_on",)  # loaded by its name in [model]


class Settings(Section):
    """How many prompts and agents, where an agent works (a folder like data_samples/repository, or
    "": nano's house), what it remembers, and how replies are sampled."""

    prompts: Count
    agents: int = Field(gt=0)
    repository: str
    memory: int = Field(ge=0)
    temperature: float = Field(ge=0)
    max_new_tokens: int = Field(gt=0)
