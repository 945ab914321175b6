"""Stage 09: which claims hold in every run, and which depend on the seed.

Reads the folders of other runs and trains nothing. It belongs to no section of the report.

Usage:  counts = run(stage)
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from katlab.lab import compare, runs
from katlab.lab.runs import StageRun, stage_folders


def run(stage: StageRun) -> dict[str, float]:
    """Counts: runs, distinct seeds, tested claims, claims held by every run that tested them.

    Counted anew each time, unlike a stage's work: other runs change and no fingerprint sees it.
    """
    names = chosen(stage)
    seeds = " ".join(compare.states(stage.dir.parents[1], names)["seed"]).split()
    shares = held(claims(stage))
    counts: dict[str, float] = {
        "runs": len(names),
        "seeds": len(set(seeds)),
        "claims": len(shares),
        "held_everywhere": int((shares == 1).sum()),
    }
    return stage.conclude(counts)


def chosen(stage: StageRun) -> list[str]:
    """The notebook's `runs`; if it names none, this run and one finished run per other seed.

    Such a run has this one's profile and overrides, all stages that this one has done, and none of
    them stale; of two with one seed the older counts. Others measure something else or are on
    trial: name them to see them.
    """
    named = runs.read(stage.dir)["parameters"].get("runs")
    if named:
        return named
    outputs = stage.dir.parents[1]
    states = compare.states(outputs, compare.names(outputs))
    alike = states[["profile", "overrides"]].eq(states.loc[stage.run, ["profile", "overrides"]])
    done = finished(stage.dir.parent) - {stage.name}
    by_seed = {states.loc[stage.run, "seed"]: stage.run}
    for name in states.index[alike.all(axis=1)]:
        if done <= finished(outputs / name):
            by_seed.setdefault(states.loc[name, "seed"], name)
    return list(by_seed.values())


def finished(run: Path) -> set[str]:
    """The stages of a run that are done and not stale."""
    folders = stage_folders(run)
    return {f.name for f in folders if runs.state(runs.read(f)) == "done" and not runs.stale(f)}


def claims(stage: StageRun) -> pd.DataFrame:
    """`compare.claims` of the chosen runs, without facts and without this stage's own claims."""
    found = compare.claims(stage.dir.parents[1], chosen(stage))
    return found[(found["stage"] != stage.name) & (found["kind"] != "fact")]


def held(claims: pd.DataFrame) -> pd.Series:
    """Share of runs that hold each claim, by (stage, claim), among the runs that tested it."""
    tested = claims[claims["held"].notna()]
    return tested.groupby(["stage", "claim"])["held"].mean()


def disputed(claims: pd.DataFrame) -> pd.DataFrame:
    """What each run (columns) measured for the claims (rows) that not every run holds."""
    shares = held(claims)
    rows = claims.set_index(["stage", "claim"])
    rows = rows[rows.index.isin(shares[shares < 1].index)]
    return rows.pivot(columns="run", values="measured")


def decisions(outputs: Path, chosen: Sequence[str]) -> pd.DataFrame:
    """Means of the auto arm by run, system (cold start, final) and difficulty, from stage 06.

    Columns think_on and accuracy (shares) and tokens; no rows where nothing was evaluated.
    """
    keys = ["run", "system", "difficulty"]
    frames = []
    for path in (outputs / run / "06_evaluation" / "arms.jsonl" for run in chosen):
        if path.is_file():
            arms = pd.read_json(path, lines=True).query("arm == 'auto'")
            frames.append(arms.assign(run=path.parents[1].name, think_on=arms["mode"] == "on"))
    if not frames:
        return pd.DataFrame(columns=[*keys, "think_on", "tokens", "accuracy"])
    means = pd.concat(frames).rename(columns={"correct": "accuracy"}).groupby(keys)
    return means[["think_on", "tokens", "accuracy"]].mean().reset_index()
