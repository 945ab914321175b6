"""Exercises without end: right answers by our verifiers, a dial, splits by operands."""

import math
import random
import re

import pytest
from sympy import Eq, Symbol, solve, sympify

from katlab import UserError, rewards
from katlab.tasks import files, procedural

SPLITS = ("stage_1", "stage_2", "rl", "validation", "test")
CELLS = [(name, level) for name in procedural.TASKS for level in procedural.DIFFICULTIES]


def asked(row: dict) -> str:
    return row["messages"][0]["content"]


def drawn(name: str, level: int, n: int = 20) -> list[dict]:
    rng = random.Random(f"{name}{level}")
    return [procedural.draw(rng, name, level) for _ in range(n)]


def by_hand(row: dict) -> str | None:
    """The answer worked out from the question alone."""
    text, numbers = asked(row), [int(n) for n in re.findall(r"\d+", asked(row))]
    match row["task"]:
        case "chain_sum" | "products":
            return str(eval(re.search(r"\d[\d +*-]*", text)[0]))
        case "gcd":
            return str(math.gcd(*numbers))
        case "lcm":
            return str(math.lcm(*numbers))
        case "letter_counting":
            letter, words = re.findall(r'"([^"]+)"', text)
            return str(words.count(letter))
        case "simple_equations":
            left, right = re.search(r"(\S+(?: [-+*] \S+)* = -?\d+)", text)[1].split(" = ")
            letter = re.search("[a-z]", left)[0]
            plain = sympify(left.replace(letter, "x"))
            return str(solve(Eq(plain, int(right)), Symbol("x"))[0])
        case "spell_backward":
            return re.search('"(.+)"', text)[1][::-1]
    return None  # how many legs an animal has is reasoning-gym's to know


@pytest.mark.parametrize("name, level", CELLS)
def test_the_answer_is_that_of_the_question_and_our_verifier_agrees(name, level):
    rows = drawn(name, level)
    answers = [
        r["reference"] if r["verifier"] == "math" else r["reference"]["all"][0] for r in rows
    ]
    for row, answer in zip(rows, answers, strict=True):
        files.Query.model_validate({"id": "1", **row})
        assert row["difficulty"] == level and by_hand(row) in (None, answer), asked(row)
    said = [
        (row["verifier"], answer, row["reference"])
        for row, answer in zip(rows, answers, strict=True)
    ]
    assert all(verdict.correct for verdict in rewards.grade(said))
    wrong = [(kind, f"{answer}1", reference) for kind, answer, reference in said]
    assert not any(verdict.correct for verdict in rewards.grade(wrong))


def test_legs_are_counted():
    legs = {"dog": 4, "cat": 4, "cow": 4, "elephant": 4, "duck": 2, "bird": 2, "snake": 0}
    found = [
        (row, re.findall(r"([a-z ]+) \((\d)\)", asked(row)))
        for row in drawn("leg_counting", 1, 200)
    ]
    known = [(row, each[0]) for row, each in found if each[0][0].strip() in legs]
    assert len(known) > 20
    for row, (animal, n) in known:
        assert row["reference"] == str(legs[animal.strip()] * int(n))


def test_the_dial_turns_the_number_of_terms_and_digits():
    for level, terms in {1: {1, 2}, 2: {2}, 3: {3}, 4: {4}, 5: {5, 6}}.items():
        found = [re.findall(r"\d+", asked(row)) for row in drawn("chain_sum", level, 60)]
        assert {len(numbers) for numbers in found} == terms
        digits = {len(n) for numbers in found for n in numbers}
        assert digits == {1: {1}, 2: {2}}.get(level, {1, 2})
    words = [[len(r["problem"].split()) - 2 for r in drawn("letter_counting", n)] for n in (1, 5)]
    assert max(words[0]) <= 3 and min(words[1]) >= 12


def test_rows_are_balanced_and_the_same_for_the_same_seed():
    rows = procedural.queries(80, 3, "rl")
    assert rows == procedural.queries(80, 3, "rl") != procedural.queries(80, 4, "rl")
    cells = [(row["task"], row["difficulty"]) for row in rows]
    assert all(cells.count(cell) == 2 for cell in CELLS)
    assert len({row["id"] for row in rows}) == 80
    assert {r["task"] for r in procedural.queries(9, 0, "rl", ("gcd", "lcm"))} == {"gcd", "lcm"}


def test_splits_share_no_problem_and_every_cell_has_some_in_each():
    problems = {s: {r["problem"] for r in procedural.queries(400, 1, s)} for s in SPLITS}
    assert sum(map(len, problems.values())) == len(set().union(*problems.values()))
    assert {procedural.split_of(problem) for problem in problems["test"]} == {"test"}
    eval_rows = procedural.queries(40, 1, "eval")
    assert {procedural.split_of(row["problem"]) for row in eval_rows} == {"validation"}


def test_a_problem_is_its_operands_and_not_its_wording():
    rows = [row for name, level in CELLS for row in drawn(name, level, 40)]
    texts: dict[str, set[str]] = {}
    for row in rows:
        texts.setdefault(row["problem"], set()).add(asked(row))
    assert {"What is 7?", "Calculate 7."} & texts["chain_sum 7"]
    several = [found for found in texts.values() if len(found) > 1]
    assert any(
        len({"".join(sorted(re.findall(r"\d", t))) for t in found}) == 1 for found in several
    )
    key = procedural.TASKS["chain_sum"].operands
    assert key({"expression": "3 - 4 + 5"}) == key({"expression": "5 + 3 - 4"}) == [-4, 3, 5]
    key = procedural.TASKS["simple_equations"].operands
    assert key({"equation": "3*a + 2 = 5"}) == key({"equation": "3*k + 2 = 5"}) == ["3*x+2=5"]


def test_a_problem_comes_again_only_where_there_is_hardly_another():
    rows = procedural.queries(150, 0, "stage_1", ("products",), (1, 4))
    easy = [row["problem"] for row in rows if row["difficulty"] == 1]
    hard = [row["problem"] for row in rows if row["difficulty"] == 4]
    assert len(set(hard)) == 75 > len(set(easy)) > 12  # 55 products of two digits, 3 of 8 are here


def test_another_task_is_one_sentence():
    assert procedural.named("gcd, lcm") == ("gcd", "lcm")
    with pytest.raises(
        UserError, match="no procedural task 'chain_sums'; did you mean 'chain_sum'"
    ):
        procedural.named("chain_sums")
