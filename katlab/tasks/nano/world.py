"""Queries of the nano world: six categories, six skills, five difficulties, an oracle for each.

Each skill comes in the clothes of one of the report's six Stage-2 categories (section 4.1.2;
`makers`). The difficulty of a query is how much work its answer takes, and no single feature of the
text tells it: some long queries are easy (changes that cancel, what stands before a *0, one letter
of a long word), some short ones hard (a product of two digits and one, a sum of four sums).

A *problem* is what is asked, names, wording and zeros aside. It belongs to one split by its hash,
so no problem of one split stands in another, nor in what the models of `data_samples/nano` read.

    from katlab.tasks.nano import world
    rows = world.queries(256, seed=0, split="train")
"""

import random
import zlib

from katlab.tasks.nano.makers import MAKERS

CATEGORIES = tuple(MAKERS)
DIFFICULTIES = (1, 2, 3, 4, 5)
SHARES = {"stage_1": 12, "stage_2": 6, "rl": 3, "validation": 1, "test": 2}  # of 24 problems
PARTS = tuple(name for name, share in SHARES.items() for _ in range(share))


def queries(
    n: int,
    seed: int,
    split: str,
    difficulties: tuple[int, ...] = DIFFICULTIES,
) -> list[dict]:
    """Return `n` query rows, balanced over category x difficulty, in an order set by `seed`.

    `split` is one of `SHARES`, "train" (the first three together) or "eval" (the last two); a
    problem belongs to one of them by its hash, so they never meet.
    """
    rng = random.Random(f"{split}-{seed}")
    cells = [(c, d) for d in difficulties for c in CATEGORIES]
    rows = []
    for index in range(n):
        category, difficulty = cells[index % len(cells)]
        while True:
            row = MAKERS[category](rng, difficulty)
            if split in splits_of(row["problem"]):
                break
        label = {"id": f"{category}-{difficulty}-{split}-{seed}-{index:06d}"}
        rows.append(label | {"category": category, "difficulty": difficulty} | row)
    rng.shuffle(rows)
    return rows


def splits_of(problem: str) -> tuple[str, str]:
    """The splits that a problem belongs to: one of `SHARES`, and "train" or "eval"."""
    part = PARTS[zlib.crc32(problem.encode()) % len(PARTS)]
    return part, "eval" if part in ("validation", "test") else "train"


def rationale(row: dict, mode: str) -> str:
    """The oracle's judge analysis: domain, difficulty, what to do, and the mode it leads to."""
    plan = "work it out" if mode == "on" else "answer directly"
    return f"{row['category']}, level {row['difficulty']}: {plan}, think {mode}."


def tags(row: dict) -> str:
    """The oracle's answer to a tagging request: domain and difficulty."""
    return f"{row['category']}, level {row['difficulty']}"
