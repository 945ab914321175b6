"""Profile section [dual_regime_data] (stage 02)."""

from pydantic import Field

from katlab.lab.settings import Count, Section

NEEDS: tuple[str, ...] = ()
MODELS = ("teacher_off", "teacher_on")  # loaded by their names in [model]


class Settings(Section):
    """How many queries are asked, who answers which, and how often."""

    queries: Count
    think_on_share: float = Field(ge=0, le=1)
    think_on_level: int = Field(ge=1, le=6)
    cross_share: float = Field(ge=0, le=1)
    """Routing: the share of think-on, its lowest difficulty (6: none), the share that crosses."""

    samples: int = Field(gt=0)
    rounds: int = Field(gt=0)
    max_new_tokens: int = Field(gt=0)
    """Answers per think-off query, solver-thinker-critic rounds, tokens of a teacher's reply."""
