"""Where a run's queries come from, and the splits that keep its stages apart.

The nano world makes queries without end; a JSONL file has those of the user. Either way a problem
belongs to one split by the hash of its text, so no stage meets what another has trained on, and
nothing that is evaluated was trained on. What stage 06 reports on ("test") and what stage 05 looks
at ("validation") are both of "eval" and share no problem, whatever names stand in it.

    rows = queries.load(stage.config, 300, seed=0, split="test")
"""

import hashlib
import random
from collections import Counter
from pathlib import Path

from katlab import UserError
from katlab.lab import settings
from katlab.lab.stages import root
from katlab.tasks import files
from katlab.tasks.files import problem

COUNTS = {  # the settings that say how many rows of a split are taken
    "stage_1": ("dual_regime_data.queries",),
    "stage_2": ("cold_start.queries",),
    "rl": ("step_srpo.candidates",),
    "eval": (
        *("mtp_distillation.eval_prompts", "cold_start.eval_prompts", "case_studies.prompts"),
    ),
    "validation": ("step_srpo.eval_prompts",),
    "test": ("evaluation.prompts",),
}
SHARES = {"stage_1": 4, "stage_2": 2, "rl": 1, "eval": 1}  # in eighths of the problems
OF_EVAL = {"validation": 1 / 3, "test": 2 / 3}  # of a file's eval problems


def load(config, n: int | float | str, seed: int, split: str) -> list[dict]:
    """`n` query rows of a split: from the nano world, or from the profile's file (`queries`).

    Splits: "stage_1" (02 and 03), "stage_2" (04), "rl" (05), "eval" and its two parts. A file's
    row may say `"split": "train"` (any of the first three) or "eval"; without one it may fall into
    each.
    `n` is a `settings.Count`: a number, a share of the split's rows, or "all".
    A verifier's name that stands under the profile's [rewards] becomes the path written there; a
    path counts from the project folder, since kernels start in notebooks/.
    Raises UserError when the file is missing or too small, or names its first bad line.
    """
    if config.model.queries == "nano":
        from katlab.tasks.nano import world  # takes a second that files of queries need not

        asked = number(config, n, split)
        if split not in OF_EVAL:
            return world.queries(asked, seed, split)
        test = world.queries(number(config, config.evaluation.prompts, "test"), seed, "eval")
        if split == "validation":
            return world.queries(asked, seed, "eval", without={world.kin(row) for row in test})
        return test if asked == len(test) else world.queries(asked, seed, "eval")
    rows = of(config)[split]
    asked = settings.count(n, len(rows))
    if not rows or len(rows) < asked:
        raise UserError(
            f"{config.model.queries} has {len(rows)} rows for {split} and {n} are asked for; lower "
            f"{' or '.join(COUNTS[split])} or give more rows."
        )
    return random.Random(seed).sample(rows, asked)


def number(config, n: int | float | str, split: str) -> int:
    """How many rows `load` gives for `n`; UserError for a share of the endless nano world."""
    if config.model.queries != "nano":
        return n if isinstance(n, int) else settings.count(n, len(of(config)[split]))
    if not isinstance(n, int):
        raise UserError(
            f"The nano world has no end of queries to take {n} of; give a whole number for "
            f"{' or '.join(COUNTS[split])}."
        )
    return n


def of(config) -> dict[str, list[dict]]:
    """The rows of the profile's query file by split; UserError for no file or a bad line."""
    path = root() / config.model.queries  # an absolute path stays what it is
    if not path.is_file():
        raise UserError(f"the query file {path} does not exist; set model.queries to a JSONL file")
    own = getattr(config.rewards, "model_extra", {})  # its names are the user's own
    found: dict[str, list[dict]] = {split: [] for split in SHARES}
    for row, split in assigned(files.read(path, own)):
        verifier = _placed(own.get(row["verifier"], row["verifier"]))
        found[split].append(row | {"verifier": verifier})
    seen = set(sorted({problem(row) for row in found["eval"]}, key=_hash)[1::3])
    found["validation"] = [row for row in found["eval"] if problem(row) in seen]
    found["test"] = [row for row in found["eval"] if problem(row) not in seen]
    return found


def kin(config, row: dict) -> str:
    """What makes two queries one problem: in the nano world operation and operands, names aside."""
    if config.model.queries != "nano":
        return _hash(problem(row)).hex()[:12]
    from katlab.tasks.nano import world

    return world.kin(row)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _placed(kind: str) -> str:
    return str(root() / kind) if kind.endswith(".py") and not Path(kind).is_file() else kind


def assigned(rows: list[dict]) -> list[tuple[dict, str]]:
    """Each row with its split; rows with the same problem share one, shares are those of `SHARES`.

    Problems are taken in the order of their hashes, each to the split that lacks most.
    """
    problems = {problem(row): row.get("split") for row in rows}
    given: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for text in sorted(problems, key=_hash):
        said = problems[text]
        open_to = ["eval"] if said == "eval" else [s for s in SHARES if s != "eval" or not said]
        given[text] = min(open_to, key=lambda name: (counts[name] + 1) / SHARES[name])
        counts[given[text]] += 1
    return [(row, given[problem(row)]) for row in rows]


def with_wish(row: dict, wish: str) -> dict:
    """The query with the user's wish for a mode in words (report section 6.4)."""
    *history, last = row["messages"]
    return row | {"messages": [*history, last | {"content": f"{last['content']} {wish}"}]}
