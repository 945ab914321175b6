"""The nano world: oracles that agree with the verifiers."""

import re
from collections import Counter

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


def test_rationale_names_its_mode():
    assert world.rationale(ROWS[0], "on").endswith("think on.")
    assert "work it out" not in world.rationale(ROWS[0], "off")
