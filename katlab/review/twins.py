"""Twins: evaluated queries whose problem was trained on, names and wording aside.

What the stages train on is compared row by row (`queries.kin`). What nano's base and teachers have
read is no file of a run; the world deals every problem to one split, and they read none of "eval",
so a problem of stage 06 that is not of "eval" counts as a twin as well.

    twins.count(run)  # 0 where nothing evaluated was trained on
"""

from typing import Any

from katlab.compare_runs.variants import SAMPLED, Run
from katlab.lab import profiles, read_jsonl, records
from katlab.tasks import queries

TRAINED_ON = {  # what the stages train a student on
    "02_dual_regime_data": "corpus.jsonl",
    "04_cold_start": "corpus.jsonl",
    "05_step_srpo": "candidates.jsonl",
}
STAGES = "rows that stages 02, 04 and 05 trained on, names and wording aside"
MODELS = ", or not of the split that the base and the teachers never read"
UNKNOWN = "; what the base and the teachers had read before is not known"


def count(run: Run) -> int:
    """How many evaluated queries are twins."""
    config = _config(run)
    known = {
        queries.kin(config, row | {"messages": row.get("plain", row["messages"])})
        for stage, name in TRAINED_ON.items()
        if (run.folder / stage / name).is_file()
        for row in read_jsonl(run.folder / stage / name)
    }
    told = run.samples.drop_duplicates("id").set_index("id")[["category", "cluster"]]
    labels = {key: {"category": one, "problem": kin} for key, one, kin in told.itertuples()}
    asked = read_jsonl(run.folder / SAMPLED / "queries.jsonl")
    asked = [row | labels[row["id"]] for row in asked]
    return sum(queries.kin(config, row) in known or not _held_out(config, row) for row in asked)


def compared_with(run: Run) -> str:
    """What `count` compares with, in words."""
    return STAGES + (MODELS if _config(run).model.queries == "nano" else UNKNOWN)


def _held_out(config: Any, row: dict) -> bool:
    """Whether the nano world keeps a query's problem from all that trains; True of other tasks."""
    if config.model.queries != "nano":
        return True
    from katlab.tasks.nano import world

    return "eval" in world.splits_of(row["problem"])


def _config(run: Run) -> Any:
    parameters = records.read(run.folder / SAMPLED)["parameters"]
    return profiles.load(parameters["profile"], parameters["overrides"])
