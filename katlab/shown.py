"""What the rollout browser shows of a stage's samples: columns, their labels, rows worth finding.

Notebooks call it, since none of this belongs to a stage's work.

show(stage, "arms.jsonl", "queries.jsonl", pair=("cold start", "final"))
"""

import pandas as pd

from katlab.lab import StageRun, browser, read_jsonl
from katlab.samples import PARTS, judge_agrees, thought_missing

COLUMNS = browser.Columns(
    parts=PARTS,
    facets={
        "system": "system",
        "arm": "told",
        "mode": "decision",
        "category": "category",
        "difficulty": "difficulty",
        "problem": "format problem",
    },
    numbers={
        "reward": "reward",
        "advantage_judge": "advantage of the decision",
        "advantage_answer": "advantage of the answer",
    },
    shares={"think on": ("mode", "on")},
)
DISAGREE = "judge and decision disagree"
MISSING = "thought was missing (wrong without, right with)"


def show(stage: StageRun, rows: str, queries: str, **more) -> None:
    """Offer a file of samples and the file of their queries to the browser of the run.

    `more` is what `browser.offer` takes besides: a fragment to open with, the pair of systems to
    set side by side, constants for columns that the rows leave out.
    """
    if not stage.writes:
        return
    constants = more.get("constants", {})
    frame = pd.DataFrame([constants | row for row in read_jsonl(stage.dir / rows)])
    agrees = judge_agrees(frame, stage.config.prompts.rationale_pattern)
    same = ["id", "system", *(["step"] if "step" in frame else [])]
    marked = {
        DISAGREE: frame["arm"].eq("auto") & agrees.eq(False),  # in the other arms it was told
        MISSING: thought_missing(frame, same),
    }
    flags = {name: frame.index[found].tolist() for name, found in marked.items()}
    browser.offer(stage, rows, queries, COLUMNS, flags, **more)
