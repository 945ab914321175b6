"""The recipe of own_data.jsonl: 120 query rows, of three kinds, as one's own data might be written.

They are in nano's wording, because nano's models read no other; with a profile of a real model
write what you like. Only the form of a row matters (data_samples/README.md).

    python data_samples/own_data.py > data_samples/own_data.jsonl
"""

import json
import random
from itertools import accumulate

EACH = 8  # rows per kind and difficulty
STEPS = {  # how many changes a query has, and how large they are
    1: (1, range(1, 5)),
    2: (1, range(5, 10)),
    3: (1, range(11, 20)),
    4: (2, range(1, 10)),
    5: (4, range(1, 10)),
}


def walk(rng: random.Random, difficulty: int) -> tuple[int, list[int]]:
    """A start and its changes; every total on the way is within 0..39."""
    count, sizes = STEPS[difficulty]
    while True:
        start = rng.randint(2, 20)
        changes = [rng.choice((-1, 1)) * rng.choice(sizes) for _ in range(count)]
        if all(0 <= total <= 39 for total in accumulate([start, *changes])):
            return start, changes


def signed(changes: list[int], between: str = "") -> str:
    return between.join(f"{change:+d}" for change in changes)


def math(rng: random.Random, difficulty: int) -> tuple[str, str, object]:
    """Query, verifier and reference: here the number itself."""
    start, changes = walk(rng, difficulty)
    return f"Compute {start}{signed(changes)}.", "math", str(start + sum(changes))


def general(rng: random.Random, difficulty: int) -> tuple[str, str, object]:
    """The words that a right answer has to hold."""
    start, changes = walk(rng, difficulty)
    who, what = rng.choice(["Ann", "Bob", "Eve"]), rng.choice(["apples", "coins", "books"])
    query = f"{who} has {start} {what}, then {signed(changes)}. How many?"
    return query, "keywords", {"all": [f"{start + sum(changes)} {what}"]}


def code(rng: random.Random, difficulty: int) -> tuple[str, str, object]:
    """Calls of the function that is asked for, and what they return."""
    _, changes = walk(rng, difficulty)
    tests = [{"args": [x], "expected": x + sum(changes)} for x in (0, 1, 2, 7, -3)]
    query = f"Write f: {rng.choice('xyzn')} {signed(changes, ' ')}."
    return query, "code", {"entry": "f", "tests": tests}


def rows() -> list[dict]:
    """Every kind at every difficulty, no query twice; the order does not matter."""
    rng, made, seen = random.Random(0), [], set()
    for kind in (math, general, code):
        for difficulty in STEPS:
            for number in range(EACH):
                query = None
                while query is None or query in seen:
                    query, verifier, reference = kind(rng, difficulty)
                seen.add(query)
                made.append(
                    {
                        "id": f"{kind.__name__}-{difficulty}-{number}",
                        "category": kind.__name__,
                        "difficulty": difficulty,
                        "messages": [{"role": "user", "content": query}],
                        "verifier": verifier,
                        "reference": reference,
                    }
                )
    return made


if __name__ == "__main__":
    for row in rows():
        print(json.dumps(row))
