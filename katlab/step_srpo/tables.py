"""Tables of stage 05: what was sampled, and what the candidates were."""

from pathlib import Path

import pandas as pd

from katlab import shown
from katlab.lab import StageRun, read_jsonl


def load(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The candidates, the rollouts and the held-out samples that `stage.run` left in a folder."""
    names = ("candidates", "rollouts", "evaluation")
    return tuple(pd.DataFrame(read_jsonl(folder / f"{name}.jsonl")) for name in names)


def missed(candidates: pd.DataFrame) -> pd.DataFrame:
    """Candidates by difficulty: how many, how many unscorable, the share missed of the rest."""
    scored = candidates["correct"].astype(float)
    by = scored.groupby(candidates["difficulty"])
    return pd.DataFrame(
        {"candidates": by.size(), "unscorable": by.size() - by.count(), "missed": 1 - by.mean()}
    ).round(3)


def browse(stage: StageRun) -> None:
    """Give every rollout to the run's browser."""
    told = {"system": "in training", "arm": "auto"}
    fragment = "system=in+training"
    shown.show(stage, "rollouts.jsonl", "candidates.jsonl", constants=told, fragment=fragment)


def forced(folder: Path) -> pd.DataFrame:
    """The held-out samples of both students with either mode forced (forced.jsonl)."""
    return pd.DataFrame(read_jsonl(folder / "forced.jsonl"))


def forced_accuracy(samples: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of `forced` by difficulty: arm and student x difficulty, with the mean of all."""
    scored = samples.astype({"correct": float})
    table = scored.pivot_table("correct", ["arm", "student"], "difficulty", sort=False)
    table["all"] = scored.groupby(["arm", "student"])["correct"].mean()
    table.index = [
        f"forced {arm}, {'cold start' if student == 'before' else 'final'}"
        for arm, student in table.index
    ]
    return table.sort_index()
