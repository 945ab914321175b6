"""Queries of the nano world: six categories, five difficulties, an oracle for each answer.

Every query is a short walk of integer steps in the clothes of one of the report's six Stage-2
categories (section 4.1.2), so a model of a million parameters can learn all of them, and *when to
think* is worth learning: one step is answered at a glance, four are not. The sums of the math
category come from reasoning-gym's `chain_sum`; its sentence is shortened to keep prompts small.

    from katlab.tasks.nano import world
    rows = world.queries(256, seed=0, split="train")
"""

import itertools
import json
import random
import re
import zlib
from collections.abc import Collection
from itertools import accumulate

import reasoning_gym

CATEGORIES = ("code", "math", "science", "general", "multi_turn", "tool_use")
DIFFICULTIES = (1, 2, 3, 4, 5)
STEPS = {1: 1, 2: 1, 3: 1, 4: 2, 5: 4}  # steps of the walk by difficulty
SIZES = {1: range(1, 5), 2: range(5, 10), 3: range(11, 20)}  # how large a step is, else 1..9
HIGHEST = 39  # every running value stays within 0..HIGHEST
TRIES = 300  # draws from a cell before it is taken to have no other problem
PARTS = ("eval", *["stage_1"] * 4, *["stage_2"] * 2, "rl")  # of eight query texts
# What a reasoning teacher cannot help saying, however easy the question.
OPENING = "Okay, let me see. First I read the question again. Then I go step by step."
CLOSING = "Check:"


def queries(
    n: int,
    seed: int,
    split: str,
    difficulties: tuple[int, ...] = DIFFICULTIES,
    without: Collection[str] = (),
) -> list[dict]:
    """Return `n` query rows, balanced over category x difficulty, in an order set by `seed`.

    `split` is "eval" or one of "stage_1", "stage_2" and "rl", which together are "train"; a text
    belongs to one of them by its hash, so they never meet. No row is one of the problems `without`
    (`kin`); a cell that has no other is left out.
    """
    name = f"{split}-other" if without else split
    rng = random.Random(f"{name}-{seed}")
    cells = [(c, d) for d in difficulties for c in CATEGORIES]
    rows: list[dict] = []
    while len(rows) < n and cells:
        index = len(rows)
        category, difficulty = cells[index % len(cells)]
        for _ in itertools.repeat(None, TRIES) if without else itertools.count():
            row = {"category": category} | MAKERS[category](rng, difficulty)
            if split in splits_of(row) and not (without and kin(row) in without):
                break
        else:
            cells.remove((category, difficulty))
            continue
        label = {"id": f"{category}-{difficulty}-{name}-{seed}-{index:06d}"}
        rows.append(label | {"category": category, "difficulty": difficulty} | row)
    rng.shuffle(rows)
    return rows


def splits_of(row: dict) -> tuple[str, ...]:
    """The splits that a query's text belongs to: ("eval",), or one stage's and "train"."""
    text = json.dumps([row["messages"], row["tools"]])
    part = PARTS[zlib.crc32(text.encode()) % len(PARTS)]
    return (part,) if part == "eval" else (part, "train")


def kin(row: dict) -> str:
    """Operation and operands: what queries that differ in names and phrases have in common."""
    asked = " ".join(m["content"] for m in row["messages"] if m["role"] == "user")
    return " ".join([row["category"], *re.findall(r"[-+*]?\d+", asked)])


def rationale(row: dict, mode: str) -> str:
    """The oracle's judge analysis: domain, difficulty, what to do, and the mode it leads to."""
    plan = "work it out" if mode == "on" else "answer directly"
    return f"{row['category']}, level {row['difficulty']}: {plan}, think {mode}."


def tags(row: dict) -> str:
    """The oracle's answer to a tagging request: domain and difficulty."""
    return f"{row['category']}, level {row['difficulty']}"


def _sizes(difficulty: int) -> range:
    return SIZES.get(difficulty, range(1, 10))


def _walk(rng: random.Random, start: int, difficulty: int) -> list[int]:
    """The signed changes of a difficulty's walk, each as large as SIZES says, always in range."""
    value, changes = start, []
    for _ in range(STEPS[difficulty]):
        options = [k for n in _sizes(difficulty) for k in (-n, n) if 0 <= value + k <= HIGHEST]
        changes.append(rng.choice(options))
        value += changes[-1]
    return changes


def _worked_sum(start: int, changes: list[int]) -> str:
    """The worked thought of a running sum, one equation a line, and the habitual last check."""
    lines, value = [], start
    for change in changes:
        lines.append(f"{value}{change:+d}={value + change}")
        value += change
    return "\n".join([OPENING, *lines, f"{CLOSING} {lines[-1]}, yes."])


def _signed(changes: list[int]) -> str:
    return "".join(f"{change:+d}" for change in changes)


def _query(content: str | list[dict], verifier: str, reference, direct: str, thought: str) -> dict:
    messages = [{"role": "user", "content": content}] if isinstance(content, str) else content
    return {
        "messages": messages,
        "tools": None,
        "verifier": verifier,
        "reference": reference,
        "direct": direct,
        "thought": thought,
    }


def _math(rng: random.Random, difficulty: int) -> dict:
    digits = {"min_digits": 1, "max_digits": len(str(max(_sizes(difficulty))))}
    terms = dict.fromkeys(("min_terms", "max_terms"), STEPS[difficulty] + 1)
    while True:  # starts and totals are as small as in the other categories
        chain = reasoning_gym.create_dataset(
            "chain_sum", size=1, seed=rng.randrange(2**31), **digits, **terms
        )
        item = chain[0]
        expression = item["metadata"]["expression"].replace(" ", "")
        start, *changes = map(int, re.findall(r"[+-]?\d+", expression))
        fits = all(abs(change) in _sizes(difficulty) for change in changes)
        inside = all(0 <= total <= HIGHEST for total in accumulate([start, *changes]))
        if 0 < start <= 20 and fits and inside:
            break
    return _query(
        f"{rng.choice(['Compute', 'Find', 'Add up'])} {expression}.",
        "math",
        item["answer"],
        item["answer"],
        _worked_sum(start, changes),
    )


def _code(rng: random.Random, difficulty: int) -> dict:
    """Compose single operations on x into one expression; graded by running unit tests."""
    name = rng.choice("xyzn")
    a, b, multiplied, ops, lines = 1, 0, 0, [], []
    for _ in range(STEPS[difficulty]):
        k = rng.choice([2, 3])
        if difficulty > 3 and multiplied < 2 and -9 <= b * k <= 30 and rng.random() < 0.3:
            a, b, multiplied = a * k, b * k, multiplied + 1
            ops.append(f"*{k}")
        else:
            k = rng.choice([k for n in _sizes(difficulty) for k in (-n, n) if -9 <= b + k <= 30])
            b += k
            ops.append(f"{k:+d}")
        lines.append(f"{ops[-1]}: {_affine(a, b, name)}")
    thought = "\n".join([OPENING, *lines, f"{CLOSING} {_affine(a, b, name)}, yes."])
    tests = [{"args": [x], "expected": a * x + b} for x in (0, 1, 2, 7, -3)]
    return _query(
        f"Write f: {name} {' '.join(ops)}.",
        "code",
        {"entry": "f", "tests": tests},
        f"lambda {name}: {_affine(a, b, name)}",
        thought,
    )


def _affine(a: int, b: int, name: str) -> str:
    head = name if a == 1 else f"{a}*{name}"
    return head if b == 0 else f"{head}{b:+d}"


def _science(rng: random.Random, difficulty: int) -> dict:
    """Which quarter a moon is in after some days, seven to a quarter; graded by the letter."""
    moon = rng.choice(["Luna", "Io", "Titan", "Rhea"])
    start = rng.randint(2, 20)
    changes = _walk(rng, start, difficulty)
    value = start + sum(changes)
    letter = "ABCD"[min(value // 7, 3)]
    content = f"{moon} day {start}, then {_signed(changes)}. A new B half C full D last"
    thought = _worked_sum(start, changes) + f"\n{value}={letter}"
    return _query(content, "choice", {"answer": letter, "options": list("ABCD")}, letter, thought)


def _general(rng: random.Random, difficulty: int) -> dict:
    """How many things somebody has in the end; graded by the keywords that say so."""
    who, what = rng.choice(["Ann", "Bob", "Eve"]), rng.choice(["apples", "coins", "books"])
    start = rng.randint(2, 20)
    changes = _walk(rng, start, difficulty)
    total = start + sum(changes)
    content = f"{who} has {start} {what}, then {_signed(changes)}. How many?"
    answer = f"{total} {what}"
    return _query(content, "keywords", {"all": [answer]}, answer, _worked_sum(start, changes))


def _multi_turn(rng: random.Random, difficulty: int) -> dict:
    """A running total over turns; the last question is graded given the history."""
    value = rng.randint(2, 20)
    messages = [
        {"role": "user", "content": f"Keep a total: {value}."},
        {"role": "assistant", "content": str(value)},
    ]
    if rng.random() < 0.5:
        (change,) = _walk(rng, value, 1)
        value += change
        messages += [
            {"role": "user", "content": f"Then {change:+d}."},
            {"role": "assistant", "content": str(value)},
        ]
    changes = _walk(rng, value, difficulty)
    messages.append({"role": "user", "content": f"Then {_signed(changes)}."})
    total = str(value + sum(changes))
    return _query(messages, "math", total, total, _worked_sum(value, changes))


def _tool_use(rng: random.Random, difficulty: int) -> dict:
    device = rng.choice(["heat", "light", "fan"])
    start = rng.randint(2, 20)
    changes = _walk(rng, start, difficulty)
    tool = {
        "name": f"set_{device}",
        "parameters": {
            "type": "object",
            "properties": {"level": {"type": "integer"}},
        },
    }
    call = {"name": tool["name"], "arguments": {"level": start + sum(changes)}}
    row = _query(
        f"The {device} is at {start}. Set it to {start}{_signed(changes)}.",
        "tool_call",
        call | {"tools": [tool]},
        f"<tool_call>\n{json.dumps(call)}\n</tool_call>",
        _worked_sum(start, changes),
    )
    return row | {"tools": [tool]}


MAKERS = {
    "code": _code,
    "math": _math,
    "science": _science,
    "general": _general,
    "multi_turn": _multi_turn,
    "tool_use": _tool_use,
}
