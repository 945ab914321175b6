"""The settings of Step-SRPO beside TRL's own: `StepSRPOConfig(output_dir="rl", omega=0.35)`."""

from dataclasses import dataclass, field, fields

from trl import GRPOConfig

from katlab import UserError
from katlab.step_srpo.advantages import estimator
from katlab.step_srpo.reward import CONSISTENCIES, FORMAT_MODES, WEIGHTS

BASELINES = ("mode", "group")


@dataclass
class StepSRPOConfig(GRPOConfig):
    """TRL's `GRPOConfig` and what the advantages take; the profile's [step_srpo] has the sources.

    Raises UserError for an unknown estimator, format mode, consistency or baseline.
    """

    advantages: str = field(
        default="hipo",
        metadata={"help": "The estimator: a file of katlab/step_srpo/advantages, by its name."},
    )
    omega: float = field(
        default=0.35,
        metadata={
            "help": "hipo: how far think-off may be behind, as a share of think-on's mean reward, "
            "and still be preferred. HiPO publishes no value."
        },
    )
    price: float = field(
        default=0.05,
        metadata={"help": "adaptthink: mean reward that thinking has to gain to be worth it."},
    )
    hold: float = field(
        default=0.4,
        metadata={
            "help": "relative: what a thought costs in mean reward for each share of rollouts that "
            "think beyond `think_share`; 0 lets the share go where it goes."
        },
    )
    think_share: float = field(
        default=0.5, metadata={"help": "relative: the share of thoughts that `hold` holds."}
    )
    gamma: float = field(
        default=0.3,
        metadata={"help": "hipo: weight of a rollout's own reward in its judge's advantage."},
    )
    std_floor: float = field(
        default=0.25,
        metadata={
            "help": "hipo, adaptthink, relative: least standard deviation that the judge's part is "
            "divided by."
        },
    )
    answer_baseline: str = field(
        default="mode",
        metadata={
            "help": "All but grpo: an answer is held against its 'mode' or its whole 'group'."
        },
    )
    judge_weight: float = field(
        default=80.0,
        metadata={"help": "Tokens of an answer that a decision weighs as much as (`spread`)."},
    )
    judge_consistency: str = field(
        default="format",
        metadata={
            "help": "What holds the judge's words and the decision together: 'none', 'format' (a "
            "judge that names another mode than it takes, or none, is ill-formed in the reward) or "
            "'reward' (it loses `judge_penalty` on its own tokens)."
        },
    )
    judge_penalty: float = field(
        default=0.5,
        metadata={"help": "With judge_consistency 'reward': taken from the judge's advantage."},
    )
    format_mode: str = field(
        default="gate",
        metadata={"help": "How the format joins the accuracy: 'gate', 'additive' or 'off'."},
    )
    reward_weights: list[float] | None = field(
        default_factory=lambda: list(WEIGHTS),
        metadata={"help": "Of `reward_functions`: what is trained counts, its parts are logged."},
    )

    def __post_init__(self):
        super().__post_init__()
        estimator(self.advantages)
        choices = {
            "format_mode": FORMAT_MODES,
            "judge_consistency": CONSISTENCIES,
            "answer_baseline": BASELINES,
        }
        for name, known in choices.items():
            if (value := getattr(self, name)) not in known:
                raise UserError(f"step_srpo.{name} is '{value}'; use {', '.join(known)}.")


OWN = {one.name for one in fields(StepSRPOConfig)} - {one.name for one in fields(GRPOConfig)}
