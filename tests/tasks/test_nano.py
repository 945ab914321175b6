"""The nano world: oracles as the verifiers have it, splits without twins, no telling feature."""

import re
from collections import Counter

import pytest

from katlab.rewards import grade
from katlab.tasks.nano import arithmetic, build, world
from katlab.tasks.nano.wording import is_nanos

ROWS = world.queries(600, seed=0, split="train")


def test_balanced_over_categories_and_difficulties():
    cells = Counter((row["category"], row["difficulty"]) for row in ROWS)
    assert set(cells) == {(c, d) for c in world.CATEGORIES for d in world.DIFFICULTIES}
    assert set(cells.values()) == {20}


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
    assert sum(v.correct is True for v in grade(rows)) < 0.15 * len(rows)


@pytest.mark.parametrize(
    ("value", "change", "line"),
    [
        (43, 5, "43+5: 8 48"),
        (46, 38, "46+38: 14 84"),  # 6 + 8 = 14 carries a ten
        (46, -12, "46-12: 4 34"),
        (46, -38, "46-38: -8 8"),  # 16 - 8 = 8 takes a ten
        (95, -95, "95-95: 0 0"),
    ],
)
def test_a_column_shows_the_ones_then_the_total(value, change, line):
    assert arithmetic.column(value, change) == line


def test_a_product_shows_the_ones_the_tens_and_both():
    assert arithmetic.times(46, 9) == "46*9: 54 36 414"


def test_decoys_take_no_work():
    lines = arithmetic.steps(43, [0, 12, -12, 5, 0])
    assert lines == ["+12-12=0", "43+5: 8 48"]


def test_every_line_of_a_worked_sum_holds():
    seen = 0
    for row in ROWS:
        for a, b, shown, total in re.findall(r"(\d+)([+-]\d+): (-?\d+) (\d+)", row["thought"]):
            assert int(a) + int(b) == int(total)
            ones = int(a) % 10 + (1 if int(b) > 0 else -1) * (abs(int(b)) % 10)
            assert shown == (str(ones) if ones >= 0 else f"-{ones + 10}")
            seen += 1
        for a, b, *parts in re.findall(r"(\d+)\*(\d+): (\d+) (\d+) (\d+)", row["thought"]):
            ones, tens, total = map(int, parts)
            assert total == int(a) * int(b) == 10 * tens + ones
            seen += 1
    assert seen > 300


def length(row: dict) -> int:
    return sum(len(m["content"]) for m in row["messages"] if m["role"] == "user")


def test_work_grows_with_difficulty_and_length_alone_does_not_tell_it():
    work = {d: [] for d in world.DIFFICULTIES}
    lengths = []
    for row in ROWS:
        work[row["difficulty"]].append(len(row["thought"]))
        lengths.append((length(row), row["category"], row["difficulty"] >= 4))
    means = [sum(work[d]) / len(work[d]) for d in world.DIFFICULTIES]
    assert means == sorted(means) and means[-1] > 3 * means[0]
    split = [
        max(
            sum((asked > limit) == hard for asked, _, hard in of) / len(of)
            for limit in range(min(of)[0] - 1, max(of)[0] + 1)
        )
        for of in ([one for one in lengths if one[1] == c] for c in world.CATEGORIES)
    ]
    assert sum(split) / len(split) < 0.85  # the best length in each category; 0.6 says nothing


def test_each_skill_has_long_easy_and_short_hard_queries():
    for category in world.CATEGORIES:
        of = [row for row in ROWS if row["category"] == category]
        asked = {
            hard: [length(r) for r in of if (r["difficulty"] >= 4) is hard]
            for hard in (False, True)
        }
        assert max(asked[False]) > sorted(asked[True])[len(asked[True]) // 4]


def test_a_problem_is_of_one_split():
    found = {
        split: {row["problem"] for row in world.queries(3000, seed, split)}
        for seed, split in enumerate(world.SHARES)
    }
    names = list(found)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert not found[one] & found[other]


def test_no_problem_that_is_evaluated_was_read_by_base_or_teachers():
    read = {row["problem"] for row in build.read(steps=100, seed=0)}
    for seed in range(5):
        assert not read & {row["problem"] for row in world.queries(400, seed, "eval")}


def test_names_wording_and_decoys_are_no_part_of_a_problem():
    forms = {}
    for row in world.queries(12000, 1, "train", difficulties=(2,)):
        if row["category"] in ("tool_use", "multi_turn"):
            forms.setdefault(row["problem"], set()).add(str(row["messages"]))
    assert max(map(len, forms.values())) > 3


def test_the_wording_is_its_own():
    for row in ROWS:
        assert is_nanos(row)
    other = {"messages": [{"role": "user", "content": "0 pears?"}]}
    assert not is_nanos(other)


def test_rationale_names_its_mode():
    assert world.rationale(ROWS[0], "on").endswith("think on.")
    assert "work it out" not in world.rationale(ROWS[0], "off")
