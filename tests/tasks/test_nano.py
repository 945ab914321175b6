"""The nano world: oracles that agree with the verifiers, disjoint splits, mixed batches."""

import re
from collections import Counter

import pytest

from katlab import batching
from katlab.rewards import grade
from katlab.tasks.nano import world

ROWS = world.queries(300, seed=0, split="train")


def test_balanced_over_categories_and_difficulties():
    cells = Counter((row["category"], row["difficulty"]) for row in ROWS)
    assert set(cells) == {(c, d) for c in world.CATEGORIES for d in world.DIFFICULTIES}
    assert set(cells.values()) == {10}


def test_same_seed_same_rows_and_other_seed_other_rows():
    assert world.queries(60, 3, "train") == world.queries(60, 3, "train")
    assert world.queries(60, 3, "train") != world.queries(60, 4, "train")


def test_splits_never_share_a_text():
    texts = {
        split: {str(row["messages"]) for row in world.queries(600, 1, split)}
        for split in ("train", "eval")
    }
    assert texts["train"].isdisjoint(texts["eval"])


def test_oracle_answers_are_right_by_the_real_verifiers():
    verdicts = grade([(row["verifier"], row["direct"], row["reference"]) for row in ROWS])
    assert [v.correct for v in verdicts] == [True] * len(ROWS)


def test_another_rows_answer_is_mostly_wrong():
    shifted = [*ROWS[30:], *ROWS[:30]]
    rows = [
        (a["verifier"], b["direct"], a["reference"]) for a, b in zip(ROWS, shifted, strict=True)
    ]
    assert sum(v.correct is True for v in grade(rows)) < 0.3 * len(rows)


def test_every_equation_of_a_thought_holds_and_steps_grow_with_difficulty():
    for row in ROWS:
        lines = row["thought"].splitlines()
        assert lines[0] == world.OPENING and any(world.CLOSING in line for line in lines)
        for left, change, total in re.findall(r"(-?\d+)([+-]\d+)=(-?\d+)", row["thought"]):
            assert int(left) + int(change) == int(total)
        extra = 4 if row["category"] == "science" else 3
        assert len(lines) == world.STEPS[row["difficulty"]] + extra - 1


def test_directive_goes_to_the_last_turn_only():
    row = next(row for row in ROWS if row["category"] == "multi_turn")
    wished = world.with_directive(row, "off")
    assert wished["messages"][:-1] == row["messages"][:-1]
    assert wished["messages"][-1]["content"].endswith(" Do not think.")


def test_rationale_names_its_mode():
    assert world.rationale(ROWS[0], "on").endswith("think on.")
    assert "work it out" not in world.rationale(ROWS[0], "off")


def test_batching_sorts_inside_a_step_and_visits_every_row_before_repeating_one():
    rows = [{"input_ids": [0] * n} for n in (5, 1, 4, 2, 3, 6, 8, 7)]
    ordered = batching.by_length(rows, steps=4, batch_size=4, seed=0)
    lengths = [len(row["input_ids"]) for row in ordered]
    for start in range(0, 16, 4):
        assert lengths[start : start + 4] == sorted(lengths[start : start + 4])
    assert sorted(lengths[:8]) == sorted(lengths[8:]) == list(range(1, 9))


@pytest.mark.parametrize("batch_size", [3, 5])
def test_batching_gives_exactly_what_the_steps_need(batch_size):
    rows = [{"input_ids": [0] * n} for n in range(1, 8)]
    assert len(batching.by_length(rows, 6, batch_size, 1)) == 6 * batch_size
