"""Where a run's queries come from, and the splits that keep its stages apart.

The nano world makes queries without end; a JSONL file has those of the user; a sum of sources has
rows of each by its share (`mixture`). Whichever it is, a problem belongs to one split by the hash
of its text or its operands, so no stage meets what another has trained on, and nothing that is
evaluated was trained on. What stage 06 reports on ("test") and what stage 05 looks at
("validation") share no problem, whatever names stand in it. Of nano and a file both are of "eval";
in a sum "eval" is "validation", and what 06 reports on is looked at by no other stage.

    rows = queries.load(stage.config, 300, seed=0, split="test")
"""

import hashlib
import random
from collections import Counter
from pathlib import Path

from katlab import UserError
from katlab.lab import settings
from katlab.lab.stages import root
from katlab.tasks import files, hub, mixture, procedural
from katlab.tasks.files import problem
from katlab.tasks.mixture import ENDLESS, Source

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
TRAIN = ("stage_1", "stage_2", "rl")
OF_EVAL = {"validation": 1 / 3, "test": 2 / 3}  # of a file's eval problems


def load(config, n: int | float | str, seed: int, split: str) -> list[dict]:
    """`n` query rows of a split: of the nano world, the profile's file, or each of its sources.

    Splits: "stage_1" (02 and 03), "stage_2" (04), "rl" (05), "eval" and its two parts. A file's
    row may say `"split": "train"` (any of the first three) or "eval"; without one it may fall into
    each.
    `n` is a `settings.Count`: a number, a share of the split's rows, or "all".
    A verifier's name that stands under the profile's [rewards] becomes the path written there; a
    path counts from the project folder, since kernels start in notebooks/.
    A source without rows for the split leaves its share to the others.
    Raises UserError when the file is missing or too small, or names its first bad line.
    """
    if mixture.sources(config.model.queries):
        return _mixed(config, n, seed, split)
    if config.model.queries == "nano":
        from katlab.tasks.nano import world  # takes a second that files of queries need not

        return world.queries(number(config, n, split), seed, split)
    rows = of(config)[split]
    asked = settings.count(n, len(rows))
    if not rows or len(rows) < asked:
        raise UserError(
            f"{config.model.queries} has {len(rows)} rows for {split} and {n} are asked for; lower "
            f"{' or '.join(COUNTS[split])} or give more rows."
        )
    return random.Random(seed).sample(rows, asked)


def number(config, n: int | float | str, split: str) -> int:
    """How many rows `load` gives for `n`; UserError for a share of what has no end."""
    if isinstance(n, int):
        return n
    there = room(config)[split]
    if there >= ENDLESS:
        who = {"nano": "The nano world"}.get(config.model.queries, config.model.queries)
        raise UserError(
            f"{who} has no end of queries to take {n} of; give a whole number for "
            f"{' or '.join(COUNTS[split])}."
        )
    return settings.count(n, there)


def room(config) -> dict[str, int]:
    """How many rows can be had of each split; ENDLESS where they are made."""
    if config.model.queries == "nano":
        return dict.fromkeys(COUNTS, ENDLESS)
    if not mixture.sources(config.model.queries):
        return {split: len(rows) for split, rows in of(config).items()}
    return {
        split: mixture.most(
            [ENDLESS if pool is None else len(pool) for _, pool in found],
            [source.share for source, _ in found],
        )
        for split, found in pools(config).items()
    }


def pools(config) -> dict[str, list[tuple[Source, list[dict] | None]]]:
    """By split, the sources of a sum that have rows for it, with those rows; None: without end.

    A problem that one source has in a split is left out of the other splits of all others.
    """
    own = getattr(config.rewards, "model_extra", {})
    found: dict[str, list[tuple[Source, list[dict] | None]]] = {split: [] for split in COUNTS}
    homes: dict[str, str] = {}
    for source in mixture.sources(config.model.queries):
        if source.kind == "procedural":
            procedural.named(source.what)
            for pool in found.values():
                pool.append((source, None))
            continue
        dealt = _of_set(source.what, own) if source.kind == "hub" else _of_file(source.what, own)
        for split in (*TRAIN, *OF_EVAL):
            rows = [row for row in dealt[split] if homes.setdefault(problem(row), split) == split]
            if rows:
                found[split].append((source, rows))
    found["eval"] = found["validation"]
    return found


def _mixed(config, n: int | float | str, seed: int, split: str) -> list[dict]:
    """Rows of every source by its share, shuffled; each says its `set`."""
    found = pools(config)[split]
    if not found:
        raise UserError(
            f"{config.model.queries} has no rows for {split}; add a source that has, such as "
            "procedural."
        )
    asked = number(config, n, split)
    rows: list[dict] = []
    shares = [source.share for source, _ in found]
    for (source, pool), count in zip(found, mixture.apportion(asked, shares), strict=True):
        if pool is None:
            made = procedural.queries(count, seed, split, procedural.named(source.what))
            rows += [row | {"set": "procedural"} for row in made]
        elif len(pool) < count:
            raise UserError(
                f"{source} has {len(pool)} rows for {split}, and its share of {asked} is {count}; "
                f"lower {' or '.join(COUNTS[split])} or the share."
            )
        else:
            rows += random.Random(seed).sample(pool, count)
    random.Random(seed).shuffle(rows)
    return rows


def of(config) -> dict[str, list[dict]]:
    """The rows of the profile's query file by split; UserError for no file or a bad line."""
    own = getattr(config.rewards, "model_extra", {})  # its names are the user's own
    path = root() / config.model.queries  # an absolute path stays what it is
    if not path.is_file():
        raise UserError(f"the query file {path} does not exist; set model.queries to a JSONL file")
    return _dealt(files.read(path, own), own)


def _of_file(name: str, own: dict[str, str]) -> dict[str, list[dict]]:
    """The rows of a query file among other sources, under ids that no other source has."""
    short = Path(name).stem
    rows = files.read(root() / name, own)
    return _dealt([row | {"id": f"{short}-{row['id']}", "set": short} for row in rows], own)


def _of_set(name: str, own: dict[str, str]) -> dict[str, list[dict]]:
    """The rows of a set of questions; its test split, where it has one, is for stage 06 alone."""
    rows = hub.read(name)
    if reason := files.no_verifier(rows[0]["verifier"], own):
        raise UserError(f"Map {name}: {reason}.")
    test = [row for row in rows if row["split"] == "test"]
    held = {problem(row) for row in test}
    found = _dealt(
        [row | {"split": None} for row in rows if problem(row) not in held] if test else rows, own
    )
    if test:
        placed = _placed(own.get(test[0]["verifier"], test[0]["verifier"]))
        found["validation"] = found["eval"]
        found["test"] = [row | {"split": None, "verifier": placed} for row in test]
    return found


def _dealt(rows: list[dict], own: dict[str, str]) -> dict[str, list[dict]]:
    """Rows by split; `own` has the paths of the verifiers that the profile names."""
    found: dict[str, list[dict]] = {split: [] for split in SHARES}
    for row, split in assigned(rows):
        verifier = _placed(own.get(row["verifier"], row["verifier"]))
        found[split].append(row | {"verifier": verifier})
    seen = set(sorted({problem(row) for row in found["eval"]}, key=_hash)[1::3])
    found["validation"] = [row for row in found["eval"] if problem(row) in seen]
    found["test"] = [row for row in found["eval"] if problem(row) not in seen]
    return found


def kin(config, row: dict) -> str:
    """What makes two queries one problem: in the nano world what is asked, names aside."""
    if config.model.queries == "nano" or row.get("set") == "procedural":
        return row["problem"]
    return _hash(problem(row)).hex()[:12]


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
