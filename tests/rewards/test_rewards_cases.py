"""Tables of cases, one file per kind of fault: one row per case, graded as one batch.

A row of `cases/*.jsonl` is {"why", "want": correct, wrong or unscorable, "kind", "answer",
"reference"}; a further case is a further line, a further kind a further file.
"""

import json
from functools import lru_cache

import pytest
from conftest import CHECKOUT

from katlab.rewards import grade, math
from katlab.rewards.sandbox import isolation

TABLES = sorted((CHECKOUT / "tests" / "rewards" / "cases").glob("*.jsonl"))
ROWS = {file: [json.loads(line) for line in file.open(encoding="utf-8")] for file in TABLES}


@lru_cache
def verdicts(file):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(math, "DEADLINE", 20.0)  # a sane comparison keeps it on the busiest machine
        return grade([(row["kind"], row["answer"], row["reference"]) for row in ROWS[file]])


@pytest.mark.parametrize(
    ("file", "i"),
    [
        pytest.param(file, i, id=f"{file.stem}: {row['why']}")
        for file, rows in ROWS.items()
        for i, row in enumerate(rows)
    ],
)
def test_case(file, i):
    row = ROWS[file][i]
    if row["kind"] == "code" and isolation.choose().name == "none":
        pytest.skip(f"isolation unavailable: {isolation.choose().why}")
    assert verdicts(file)[i].label == row["want"], (verdicts(file)[i].reason, row)


@pytest.mark.parametrize("file", TABLES, ids=lambda file: file.stem)
def test_a_table_has_cases_on_both_sides(file):
    rows = ROWS[file]
    assert len(rows) >= 6 and len({row["why"] for row in rows}) == len(rows)
    assert len({row["want"] for row in rows}) >= 2  # else a verifier that always agrees passes
