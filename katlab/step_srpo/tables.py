"""Tables of stage 05: what the candidates were, and the verdict on the held-out samples."""

from pathlib import Path

import pandas as pd

from katlab.intervals import paired_difference
from katlab.lab import read_jsonl
from katlab.step_srpo.stage import changes, students

FORMED = 0.9  # below this share of well-formed outputs no claim means anything


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


def verdict(evaluation: pd.DataFrame) -> list[tuple]:
    """(claim, reported, measured, held): the report's claims first, then our own targets.

    No claim is judged (held None) for a student that writes too few well-formed outputs.
    """
    before, after = students(evaluation)
    now = changes(evaluation)
    rate, saved = before["thinks"].mean(), now["tokens_saved"]
    change, low, high = paired_difference(after, before, "correct")
    hardest, easiest = now["think_on_hardest"], now["think_on_easiest"]
    rows = [
        (
            "think-on rate",
            "90 → 66 %",
            f"{rate:.0%} → {now['think_on_rate']:.0%}",
            now["think_on_rate"] < rate,
        ),
        ("mean tokens", "−19 %", f"{-saved:+.1%}", saved >= 0.19),
        ("accuracy no lower", "yes", f"{change:+.1%} [{low:+.1%}, {high:+.1%}]", high >= 0),
        ("hardest: think-on", "> 80 %; ≥ 90 % (ours)", f"{hardest:.0%}", hardest >= 0.9),
        ("easiest: think-on", "falls; ≤ 20 % (ours)", f"{easiest:.0%}", easiest <= 0.2),
    ]
    judged = now["well_formed"] >= FORMED
    return [(*row, bool(held) if judged else None) for *row, held in rows]
