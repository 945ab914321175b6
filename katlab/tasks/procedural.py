"""Exercises in plain English that reasoning-gym makes without end, each with an exact answer.

Eight kinds (`TASKS`), each with a dial of five difficulties: of a sum the number of terms, of a
text the number of words. The operands and the answer are reasoning-gym's; the wordings are ours.
"math" or "keywords" grades, never reasoning-gym's own scorer. A problem is its operands, whatever
the wording and the order of what may be reordered, and belongs to one split by its hash.

    from katlab.tasks import procedural
    rows = procedural.queries(256, seed=0, split="stage_1")
    rows = procedural.queries(100, seed=0, split="test", tasks=("chain_sum", "gcd"))
"""

import itertools
import random
import re
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from typing import Any

from katlab import UserError
from katlab.lab.settings import did_you_mean

DIFFICULTIES = (1, 2, 3, 4, 5)
SIZE = 2**31
TRIES = 200  # draws from a cell before a problem that was asked already is taken again
# Of eight problems. What 03, 04, 05 and 07 look at ("eval", "validation") is never what 06 reports.
PARTS = (*["stage_1"] * 3, "stage_2", *["rl"] * 2, "validation", "test")


@dataclass(frozen=True)
class Task:
    """One kind of exercise: its dial, what is asked, and which operands make it the problem."""

    dial: tuple[dict[str, Any], ...]
    """reasoning-gym's settings at difficulties 1 to 5."""

    wordings: tuple[str, ...]
    """Templates over the item's metadata."""

    operands: Callable[[dict], list]
    """The metadata without names, and in one order where order does not matter."""

    category: str = "math"
    verifier: str = "math"


def _between(name: str, *ranges: tuple[int, int], **fixed: Any) -> tuple[dict[str, Any], ...]:
    return tuple({f"min_{name}": low, f"max_{name}": high} | fixed for low, high in ranges)


def _digits(*pairs: tuple[int, int, int, int]) -> tuple[dict[str, Any], ...]:
    keys = ("min_terms", "max_terms", "min_digits", "max_digits")
    return tuple(dict(zip(keys, pair, strict=True)) for pair in pairs)


def _signed(item: dict) -> list[int]:
    return sorted(int(n) for n in re.findall(r"[+-]?\d+", item["expression"].replace(" ", "")))


def _equation(item: dict) -> list[str]:
    return [re.sub(r"[a-z]", "x", item["equation"]).replace(" ", "")]


_EQUATIONS = (
    {"max_terms": 2, "max_value": 9, "operators": ("+", "-"), "operators_weights": [0.5, 0.5]},
    {"max_terms": 2, "max_value": 9},
    {"max_terms": 2, "max_value": 50},
    {"min_terms": 3, "max_terms": 3, "max_value": 50},
    {"min_terms": 4, "max_terms": 4, "max_value": 99},
)

TASKS = {
    "chain_sum": Task(
        # one digit; two digits; three terms; four; five and six
        _digits((1, 2, 1, 1), (2, 2, 2, 2), (3, 3, 1, 2), (4, 4, 1, 2), (5, 6, 1, 2)),
        ("What is {expression}?", "Calculate {expression}.", "Find the value of {expression}."),
        _signed,
    ),
    "products": Task(
        _digits((2, 2, 1, 1), (3, 3, 1, 1), (2, 2, 2, 2), (3, 3, 2, 2), (2, 2, 3, 3)),
        ("What is {expression}?", "Calculate {expression}.", "Multiply: {expression}"),
        lambda item: sorted(int(n) for n in re.findall(r"\d+", item["expression"])),
    ),
    "letter_counting": Task(
        _between("words", (2, 3), (4, 5), (6, 8), (9, 11), (12, 15)),
        (
            'How many times does the letter "{target_letter}" occur in "{text}"?',
            'Count the letter "{target_letter}" in this text: "{text}"',
        ),
        lambda item: [item["target_letter"], *map(str.lower, item["span"])],
        category="general",
    ),
    "simple_equations": Task(
        _EQUATIONS,
        ("Solve for {variable}: {equation}", "What is {variable} if {equation}?"),
        _equation,
    ),
    "gcd": Task(
        (*_between("value", (2, 20), (2, 60), (10, 200), (50, 999)),
         {"min_value": 50, "max_value": 999, "min_numbers": 3, "max_numbers": 3}),
        (
            "What is the greatest common divisor of {listed}?",
            "Which is the largest number that divides {listed} without remainder?",
        ),
        lambda item: sorted(item["numbers"]),
    ),
    "lcm": Task(
        (*_between("value", (2, 10), (2, 20), (5, 40), (10, 99)),
         {"min_value": 5, "max_value": 40, "min_numbers": 3, "max_numbers": 3}),
        (
            "What is the least common multiple of {listed}?",
            "Find the smallest positive number that is a multiple of {listed}.",
        ),
        lambda item: sorted(item["numbers"]),
    ),
    "leg_counting": Task(
        tuple(
            {"min_animals": low, "max_animals": high, "min_instances": 1, "max_instances": most}
            for low, high, most in ((1, 1, 5), (2, 2, 5), (3, 3, 9), (4, 5, 12), (6, 8, 15))
        ),
        (
            "How many legs do these animals have together? {animals_listed}",
            "Count the legs of all these animals: {animals_listed}",
        ),
        lambda item: sorted(item["animals"].items()),
        category="general",
    ),
    "spell_backward": Task(
        _between("word_len", (3, 3), (4, 4), (5, 6), (7, 8), (9, 10)),
        ('Spell the word "{word}" backward.', 'Write "{word}" with its letters in reverse order.'),
        lambda item: [item["word"].lower()],
        category="general", verifier="keywords",
    ),
}  # fmt: skip


def named(text: str) -> tuple[str, ...]:
    """The tasks of a list such as "chain_sum,gcd", all of them for ""; UserError for another."""
    names = tuple(name.strip() for name in text.split(",")) if text else tuple(TASKS)
    for name in names:
        if name not in TASKS:
            told = did_you_mean(name, TASKS)
            raise UserError(f"There is no procedural task '{name}'; {told}")
    return names


def queries(
    n: int,
    seed: int,
    split: str,
    tasks: Collection[str] = tuple(TASKS),
    difficulties: Collection[int] = DIFFICULTIES,
) -> list[dict]:
    """Return `n` query rows, balanced over task x difficulty, in an order set by `seed`.

    `split` is "stage_1", "stage_2", "rl", "validation" or "eval" (which are one part) or "test". A
    problem comes again only where its cell has hardly another: one-digit sums are few. Each row
    says its `task` and its `problem`, by which intervals and splits are made.
    """
    rng = random.Random(f"procedural-{split}-{seed}")
    part = "validation" if split == "eval" else split
    cells = list(itertools.product(difficulties, tasks))
    rows: list[dict] = []
    asked: set[str] = set()
    spent: set[tuple[int, str]] = set()  # cells of which hardly a problem is new
    while len(rows) < n:
        difficulty, name = cell = cells[len(rows) % len(cells)]
        for tried in itertools.count():
            row = draw(rng, name, difficulty)
            if split_of(row["problem"]) != part:
                continue
            if row["problem"] not in asked or cell in spent:
                break
            if tried >= TRIES:
                spent.add(cell)
        asked.add(row["problem"])
        rows.append({"id": f"{name}-{difficulty}-{split}-{seed}-{len(rows):06d}"} | row)
    rng.shuffle(rows)
    return rows


def split_of(problem: str) -> str:
    """The part that a problem belongs to, by its hash."""
    return PARTS[zlib.crc32(problem.encode()) % len(PARTS)]


def draw(rng: random.Random, name: str, difficulty: int) -> dict:
    """One exercise of any split, as a query row without its id."""
    task = TASKS[name]
    while True:
        chosen = _exercises(name, difficulty)[rng.randrange(SIZE)]
        item, answer = chosen["metadata"], chosen["answer"]
        if item.get("target_letter", "a").isalpha():  # its texts have digits too
            break
    said = item | {
        "text": " ".join(item.get("span", ())).lower(),  # as they are counted
        "listed": _listed(item.get("numbers", ())),
        "animals_listed": ", ".join(f"{k} ({n})" for k, n in item.get("animals", {}).items()),
    }
    return {
        "category": task.category,
        "difficulty": difficulty,
        "task": name,
        "problem": " ".join([name, *map(str, task.operands(item))]),
        "messages": [{"role": "user", "content": rng.choice(task.wordings).format(**said)}],
        "tools": None,
        "verifier": task.verifier,
        "reference": {"all": [answer]} if task.verifier == "keywords" else answer,
    }


@cache
def _exercises(name: str, difficulty: int) -> Any:
    """reasoning-gym's items, each made when it is asked for, from its index alone."""
    import reasoning_gym  # takes a second that files of queries need not

    dial: Any = TASKS[name].dial[difficulty - 1]
    return reasoning_gym.create_dataset(name, size=SIZE, seed=0, **dial)


def _listed(numbers: Collection[int]) -> str:
    *first, last = map(str, numbers or [0])
    return f"{', '.join(first)} and {last}"
