"""The recipe of own_data.jsonl: 120 query rows, of three kinds, as one's own data might be written.

They are in nano's wording, because nano's models read no other; with a profile of a real model
write what you like. Only the form of a row matters (data_samples/README.md).

    python data_samples/own_data.py > data_samples/own_data.jsonl
"""

import json
import random

EACH = 8  # rows per kind and difficulty
CHANGES = {1: 1, 2: 1, 3: 1, 4: 2, 5: 3}  # how many changes a query has
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
WORDS = {  # what is asked of a word of letters, and its answer
    "reverse": lambda word: word[::-1],
    "sort": lambda word: "".join(sorted(word)),
    "drop first": lambda word: word[1:],
    "drop last": lambda word: word[:-1],
}


def walk(rng: random.Random, difficulty: int) -> tuple[int, list[int]]:
    """A start and its changes, of one digit, then of two; every total is within 0..99."""
    while True:
        total = start = rng.randint(11, 88)
        changes = []
        for _ in range(CHANGES[difficulty]):
            change = rng.choice((-1, 1)) * rng.randint(*((1, 9) if difficulty < 3 else (11, 88)))
            changes.append(change)
            total += change
            if not 0 <= total <= 99:
                break
        else:
            return start, changes


def signed(changes: list[int], between: str = "") -> str:
    return between.join(f"{change:+d}" for change in changes)


def math(rng: random.Random, difficulty: int) -> tuple[str, str, object]:
    """Query, verifier and reference: here the number itself."""
    start, changes = walk(rng, difficulty)
    return f"Compute {start}{signed(changes)}.", "math", str(start + sum(changes))


def general(rng: random.Random, difficulty: int) -> tuple[str, str, object]:
    """The words that a right answer has to hold."""
    shown = word = "".join(rng.sample(LETTERS, 4 + (difficulty > 3)))
    asked = [rng.choice(list(WORDS)) for _ in range(CHANGES[difficulty])]
    for what in asked:
        word = WORDS[what](word)
    return f"{shown}: {', '.join(asked)}.", "keywords", {"all": [word]}


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
        for difficulty in CHANGES:
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
