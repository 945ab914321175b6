"""Where a run's queries come from, and the splits that keep its stages apart.

The nano world makes queries without end; a JSONL file has those of the user. Either way a problem
belongs to one split by the hash of its text, so no stage meets what another has trained on, and
nothing that is evaluated was trained on.

    rows = queries.load(stage.config, 300, seed=0, split="eval")
"""

import hashlib
import json
import random
from collections import Counter

from katlab import UserError
from katlab.lab.rows import read_jsonl
from katlab.lab.stages import root
from katlab.tasks.nano import world

COUNTS = {"stage_1": "dual_regime_data.queries", "stage_2": "cold_start.queries"}
COUNTS |= {"rl": "step_srpo.candidates", "eval": "the stage's eval_prompts or prompts"}
KEYS = ("id", "category", "difficulty", "messages", "tools", "verifier", "reference")
SHARES = {"stage_1": 4, "stage_2": 2, "rl": 1, "eval": 1}  # in eighths of the problems


def load(config, n: int, seed: int, split: str) -> list[dict]:
    """`n` query rows of a split: from the nano world, or from the profile's file (`queries`).

    Splits: "stage_1" (02 and 03), "stage_2" (04), "rl" (05), "eval". A file's row may say
    `"split": "train"` (any of the first three) or "eval"; without a split it may fall into each.
    A verifier's name that stands under the profile's [rewards] becomes the path written there.
    Raises UserError when the file is missing or too small.
    """
    if config.model.queries == "nano":
        return world.queries(n, seed, split)
    path = root() / config.model.queries  # an absolute path stays what it is
    if not path.is_file():
        raise UserError(f"the query file {path} does not exist; set model.queries to a JSONL file")
    own = config.rewards.model_extra
    read = read_jsonl(path)
    for number, row in enumerate(read, start=1):
        if lacking := [key for key in KEYS if key not in row]:
            raise UserError(f"Row {number} lacks {', '.join(lacking)}; see data_samples/README.md.")
    rows = [
        row | {"verifier": own.get(row["verifier"], row["verifier"])}
        for row, part in assigned(read)
        if part == split
    ]
    if len(rows) < n:
        raise UserError(
            f"{path} has {len(rows)} rows for {split} and {n} are asked for; lower "
            f"{COUNTS[split]} or give more rows."
        )
    return random.Random(seed).sample(rows, n)


def assigned(rows: list[dict]) -> list[tuple[dict, str]]:
    """Each row with its split; rows with the same problem share one, shares are those of `SHARES`.

    Problems are taken in the order of their hashes, each to the split that lacks most. UserError
    when a problem stands in both train and eval, or a split has another name.
    """
    problems: dict[str, str | None] = {}
    for number, row in enumerate(rows, start=1):
        said = row.get("split")
        if said not in (None, "train", "eval"):
            raise UserError(f"Row {number} has split {said!r}; use train, eval or leave it out.")
        if problems.setdefault(problem(row), said) != said:
            raise UserError(f"Row {number} repeats a problem under another split; keep one.")
    given: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for text in sorted(problems, key=lambda text: hashlib.sha256(text.encode()).digest()):
        said = problems[text]
        open_to = ["eval"] if said == "eval" else [s for s in SHARES if s != "eval" or not said]
        given[text] = min(open_to, key=lambda name: (counts[name] + 1) / SHARES[name])
        counts[given[text]] += 1
    return [(row, given[problem(row)]) for row in rows]


def problem(row: dict) -> str:
    """What makes two rows the same problem: their turns and tools."""
    return json.dumps([row["messages"], row.get("tools")], sort_keys=True)


def with_wish(row: dict, wish: str) -> dict:
    """The query with the user's wish for a mode in words (report section 6.4)."""
    *history, last = row["messages"]
    return row | {"messages": [*history, last | {"content": f"{last['content']} {wish}"}]}
