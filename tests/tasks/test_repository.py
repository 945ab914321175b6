"""A repository that agents work on: its tasks hold, actions are executed, faults are told."""

import shutil
from pathlib import Path

import pytest
from conftest import CHECKOUT

from katlab import UserError
from katlab.rewards import grade
from katlab.tasks import repository

FOLDER = CHECKOUT / "data_samples" / "repository"
FILES, TASKS = repository.load(FOLDER)


def errand(function: str = "total") -> repository.Errand:
    return next(e for e in repository.errands(FOLDER, 60, seed=0) if e.bug.function == function)


def block(source: str) -> str:
    return f"```python\n{source}\n```"


def passes(source: str, row: repository.Bug | repository.Addition) -> bool | None:
    (verdict,) = grade([("code", block(source), {"entry": row.function, "tests": row.tests})])
    return verdict.correct


# ---- the shipped tasks


@pytest.mark.parametrize("bug", TASKS.bug, ids=lambda bug: bug.function)
def test_a_bug_fails_its_tests_and_the_file_as_it_is_passes(bug):
    right = FILES[bug.file]
    assert passes(right, bug) is True
    assert passes(right.replace(bug.right, bug.wrong), bug) is False


def test_every_function_can_break_and_no_addition_is_there():
    assert [bug.function for bug in TASKS.bug] == [
        name for source in FILES.values() for name in repository.defined(source)
    ]
    for row in TASKS.addition:
        assert row.function not in repository.defined(FILES[row.file])
        assert row.does.startswith(f"{row.function}(") and passes(FILES[row.file], row) is False


# ---- an agent's four steps


def test_a_perfect_agent_does_what_it_is_asked():
    one, right = errand(), FILES["money.py"]
    asked, tools = one.task(0)
    assert "- money.py: total, discounted, change\n" in asked and tools == []
    assert "A test fails: total([5, 10, 20]) has to be 35; test 1 of 3: gave 30." in asked
    broken = right.replace("in prices:", "in prices[1:]:")
    assert one.execute(0, "`read money.py`") == ({"money.py": broken}, True)
    assert f"```python\n{broken}```" in one.task(1)[0]
    mended = "def total(prices):\n    return sum(prices)"
    assert one.execute(1, f"Here it is.\n{block(mended)}") == (
        {"edited": "total", "passed": 1, "failed": []},
        True,
    )
    assert one.files["money.py"].count("def total") == 1 and mended in one.files["money.py"]
    assert one.task(2)[0].startswith("The function total of money.py was edited.")
    assert one.execute(2, "test money.py") == (
        {"file": "money.py", "passed": 3, "failed": []},
        True,
    )
    assert one.addition.does in one.task(3)[0] and mended in one.task(3)[0]
    name = one.addition.function
    added = {
        "cheapest": "def cheapest(prices):\n    return min(prices, default=0)",
        "affordable": "def affordable(prices, most):\n    return [p for p in prices if p <= most]",
    }[name]
    assert one.execute(3, block(added)) == ({"edited": name, "passed": 1, "failed": []}, True)
    assert one.execute(2, "test money.py")[0]["passed"] == 4


def test_what_an_agent_leaves_wrong_stays_wrong():
    one = errand()
    result, reached = one.execute(1, block("def total(prices):\n    return 0"))
    assert (result["failed"], reached) == (["total: test 1 of 3: gave 0"], False)
    result, reached = one.execute(2, "test money.py")
    assert (result["passed"], result["failed"], reached) == (
        2,
        ["total: test 1 of 3: gave 0"],
        True,
    )


@pytest.mark.parametrize(
    ("step", "answer", "told"),
    [
        (0, "read text.py", None),  # another file
        (0, "test money.py", None),  # another command
        (2, "read money.py", None),
        (0, "read ../secrets.py", "there is no file ../secrets.py; there are money.py, text.py,"),
        (0, "I would read the file money.py.", "the answer is no command"),
        (0, "", "the answer is no command"),
        (2, block("def total(prices):\n    return sum(prices)"), "the answer is no command"),
        (1, "sum the prices", "the answer has no function total"),
        (1, block("def total(prices:"), "the answer has no function total"),
        (1, "read money.py", None),
        (3, block("def total(prices):\n    return sum(prices)"), "the answer has no function"),
    ],
)
def test_what_was_not_asked_for_is_not_reached(step, answer, told):
    one = errand()
    before = dict(one.files)
    result, reached = one.execute(step, answer)
    assert not reached and one.files == before
    assert (told is None) == ("error" not in result) and (told or "") in result.get("error", "")


@pytest.mark.parametrize(
    "answer",
    [
        "read money.py",
        "`read money.py`",
        "$ read money.py",
        "```\nread money.py\n```",
        "read money.py.",
    ],
)
def test_a_command_may_stand_in_quotes_and_fences(answer):
    assert errand().execute(0, answer)[1]


def test_code_of_an_answer_runs_in_the_sandbox_and_not_here(tmp_path):
    mark = tmp_path / "mark"
    source = f"open({str(mark)!r}, 'w')\ndef total(prices):\n    return sum(prices)"
    result, reached = errand().execute(1, block(source))
    assert not reached and result["passed"] == 0 and not mark.exists()


def test_agents_of_a_seed_are_the_same_and_differ_from_each_other():
    first, again = (repository.errands(FOLDER, 12, seed=3) for _ in range(2))
    assert first == again and len({one.bug.function for one in first}) > 4
    assert all(one.bug.file == one.addition.file for one in first)
    first[0].files.clear()
    assert first[1].files.keys() == FILES.keys()


# ---- sources


def test_a_function_goes_with_its_decorators_and_leaves_the_rest():
    source = "import os\n\n\n@cache\ndef f():\n    pass\n\n\ndef g():\n    pass\n"
    assert repository.without(source, "f") == "import os\n\n\n\n\ndef g():\n    pass"
    assert repository.without(source, "h") == source.rstrip()
    assert repository.without("def f(:", "f") == "def f(:" and repository.defined("def f(:") == []


# ---- a folder of one's own


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[[bug]]", "[bug]]", "tasks.toml is no TOML"),
        ('right = "for price in prices:"', 'right = "for x"', "does not have 'for x' once"),
        (
            'file = "money.py"\nfunction = "total"',
            'file = "a.py"\nfunction = "total"',
            "total is of a",
        ),
        ('wrong = "while left > coin:"', 'worng = "x"', "bug 3 wrong: field required"),
        (
            'file = "times.py"\nfunction = "later"',
            'file = "no.py"\nfunction = "later"',
            "later is of",
        ),
    ],
)
def test_a_fault_in_a_folder_is_one_sentence(tmp_path, old, new, words):
    mine = shutil.copytree(FOLDER, tmp_path / "mine")
    path = mine / repository.TASKS
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError) as told:
        repository.load(mine)
    assert words in str(told.value) and "\n" not in str(told.value)


def test_a_folder_without_tasks_names_one_that_has_them():
    with pytest.raises(UserError, match="has no tasks.toml; give a folder like data_samples"):
        repository.load(Path("notebooks"))
