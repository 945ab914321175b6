"""What it takes to bring a stage up to date: decided here for a run and for its rehearsal.

Usage:  step = steps.decide(folder, values);  [step.act for step in steps.rehearse(chosen, filled)]
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from katlab.lab import fingerprint, notebook, records, stages

# act: what happens to the stage
UNCHANGED = "unchanged"  # done, and so is its page
PAGE = "page"  # done; its notebook is executed over the finished work
TAKE = "take"  # done by another run under the same inputs
CONTINUE = "continue"  # begun under the same inputs and cut off
RUN = "run"


@dataclass(frozen=True)
class Step:
    """One stage of a run: what is done with it, under which fingerprints."""

    folder: Path
    act: str
    work: str
    page: str
    upstream: dict[str, str]
    hit: Path | None = None  # TAKE: the stage's folder in the other run
    kept: Path | None = None  # where the attempt in its place is set aside


def decide(
    folder: Path,
    values: dict,
    execute: bool = False,
    force: bool = False,
    upstream: dict[str, str] | None = None,
) -> Step:
    """The step for outputs/<run>/<stage> under these notebook parameters.

    `execute` its notebook in any case, or `force` its work anew; `upstream` are the fingerprints of
    stages that are still to run. Raises UserError for a mistake in the profile or the overrides.
    """
    execute = execute or force
    above = notebook.upstream_fingerprints(folder) | (upstream or {})
    work = fingerprint.work(folder.name, values, above)
    page = fingerprint.page(folder.name, values, work)
    hit = None
    # work that is finished here is not taken from elsewhere, even where its page failed
    own = done(folder, work) or (_begun(folder, work) and records.result(folder) is not None)
    if not execute and done(folder, work, page):
        act = UNCHANGED
    elif not execute and not own and (hit := cache_hit(folder, work, page)):
        act = TAKE
    elif force or not _begun(folder, work):
        act = RUN
    else:
        act = CONTINUE if records.result(folder) is None else PAGE
    there = folder.is_dir() and any(folder.iterdir())
    stays = act in (UNCHANGED, PAGE, CONTINUE)
    kept = records.aside(folder) if there and not stays else None
    return Step(folder, act, work, page, above, hit, kept)


def rehearse(chosen: Sequence[stages.Stage], filled: dict[str, dict], force: bool) -> list[Step]:
    """The steps that `pipeline.run` would take, without taking one.

    `filled` are the full parameters of each stage. Raises UserError for missing stages above.
    """
    found: dict[str, Step] = {}
    for stage in chosen:
        values = filled[stage.name]
        folder = stages.outputs() / values["run"] / stage.name
        for need in stage.needs:
            if need not in found:
                records.upstream(folder, need, values)
        above = {need: found[need].work for need in stage.needs if need in found}
        found[stage.name] = decide(folder, values, stage.always, force, above)
    return list(found.values())


def expected_seconds(step: Step, profile: str) -> float | None:
    """What the stage last took in a run of this profile; 0: its work is there, None: unknown."""
    if step.act not in (RUN, CONTINUE):
        return 0.0
    took: dict[str, float] = {}
    for path in step.folder.parents[1].glob(f"[!.]*/{step.folder.name}/run.json"):
        record = records.read(path.parent)
        own = records.state(record) == "done" and "taken_from" not in record
        if own and record["parameters"]["profile"] == profile and "seconds" in record:
            took[record["started"]] = record["seconds"]
    return took[max(took)] if took else None


def done(folder: Path, work: str, page: str = "") -> bool:
    """Whether a stage is done under this work, and this page if one is given."""
    return (
        _begun(folder, work)
        and records.state(record := records.read(folder)) == "done"
        and page in ("", record.get("page"))
    )


def cache_hit(folder: Path, work: str, page: str) -> Path | None:
    """The same stage of another run, or an earlier attempt of this one, done under the same work.

    Best with the same page.
    """
    others = sorted(p.parent for p in folder.parents[1].glob(f"*/{folder.name}/run.json"))
    others += sorted(p.parent for p in folder.parent.glob(f"{folder.name}@*/run.json"))
    same = [other for other in others if done(other, work)]
    return next((other for other in same if done(other, work, page)), same[0] if same else None)


def _begun(folder: Path, work: str) -> bool:
    there = (folder / "run.json").is_file()
    return there and records.read(folder).get("fingerprint") == work
