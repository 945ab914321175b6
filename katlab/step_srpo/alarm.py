"""An alarm while Step-SRPO trains: the judge says one mode and the model takes the other.

What holds the two together is `step_srpo.judge_consistency`; this tells where it does not.
"""

from collections.abc import Sequence

from transformers import TrainerCallback

NAMED = 0.95  # below this share of agreement the judge does not explain the decision
LOGGED = "judge_agreement"


class JudgeAlarm(TrainerCallback):
    """Prints one line at the first step whose agreement is below `NAMED`."""

    def __init__(self) -> None:
        self.rang = False

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        share = (logs or {}).get(LOGGED)
        if share is not None and share < NAMED and not self.rang and state.is_world_process_zero:
            self.rang = True
            print(
                f"Alarm at step {state.global_step}: the judge names the mode it takes in only "
                f"{share:.0%} of the rollouts.",
                flush=True,
            )


def told(metrics: Sequence[dict]) -> str:
    """One sentence on the agreement over all logged steps, whether or not the alarm rang."""
    logged = {row["step"]: row[LOGGED] for row in metrics if LOGGED in row}
    if not logged:
        return "No rollout took a decision, so there is no agreement of judge and decision."
    low = [step for step, share in logged.items() if share < NAMED]
    worst = min(logged, key=lambda step: logged[step])
    first, last = logged[min(logged)], logged[max(logged)]
    return (
        f"The judge names the mode it takes in {first:.0%} of the rollouts at first and {last:.0%} "
        f"at last, least at step {worst} ({logged[worst]:.0%}); below {NAMED:.0%} in {len(low)} of "
        f"{len(logged)} steps."
    )
