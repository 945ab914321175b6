"""Which runs may stand in one review: finished, of one commit, one profile, a seed each.

And of seeds that no setting was chosen on: a profile's [seeds] says which those are.

    chosen = accepted.runs(outputs, ["demo", "demo-seed1"]);  chosen.reported
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from katlab import UserError
from katlab.compare_runs import variants
from katlab.compare_runs.variants import SAMPLED, Run
from katlab.lab import profiles, records

READ = ("03_mtp_distillation", "04_cold_start", "05_step_srpo", SAMPLED)
MADE = ("arms.jsonl", "queries.jsonl", "summary.json", "verdict.json")  # by stage 06


@dataclass(frozen=True)
class Chosen:
    """The runs that are reported, and controls: runs of the same seeds under other settings."""

    reported: list[Run]
    controls: list[list[Run]]
    profile: str
    seeds: Any

    @property
    def tuned(self) -> bool:
        """Whether a setting was chosen while looking at one of the reported seeds."""
        return bool({run.seed for run in self.reported} & {*self.seeds.tuning})


def runs(
    outputs: Path, names: Sequence[str], controls: Sequence[str] = (), tuned: bool = False
) -> Chosen:
    """The runs of a review, by seed; UserError with the first reason against it.

    `tuned` lets runs of tuning seeds through, for a review that says so.
    """
    for name in (*names, *controls):
        _finished(outputs / name)
    beside = [variants.read(outputs / name) for name in controls]
    _of_one_commit([*(variants.read(outputs / name) for name in names), *beside])
    found = repeats(outputs, names)
    own = record(found[0])["parameters"]["profile"]
    chosen = Chosen(
        found,
        _controls(found, beside),
        own,
        profiles.load(own).seeds,  # not as overrides of a run would have it
    )
    _seeds_apart(chosen, tuned)
    return chosen


def repeats(outputs: Path, names: Sequence[str]) -> list[Run]:
    """Finished runs of one commit that differ in their seed alone, by seed; UserError otherwise."""
    for name in names:
        _finished(outputs / name)
    found = [variants.read(outputs / name) for name in names]
    _of_one_commit(found)
    for run in found[1:]:
        if told := differing(found[0], run):
            raise UserError(
                f"Runs '{found[0].name}' and '{run.name}' differ in {', '.join(told)}; only runs "
                "that differ in their seed alone are pooled (a review takes others as --control)."
            )
    _one_seed_each(found)
    return sorted(found, key=lambda run: run.seed)


def differing(one: Run, other: Run) -> dict[str, str]:
    """The settings in which `other` differs from `one`, of stages that both have, with its values.

    A control may end at 06 where the runs beside it went on; seeds and commits are held elsewhere.
    """
    keys = [key for key in one.settings if key in other.settings and key not in ("seed", "commit")]
    return {k: other.settings[k] for k in keys if one.settings[k] != other.settings[k]}


def record(run: Run) -> dict:
    """run.json of a run's stage 06."""
    return records.read(run.folder / SAMPLED)


def _finished(run: Path) -> None:
    there = {folder.name: folder for folder in records.stage_folders(run)}
    told = [f"{name[:2]} not run" for name in READ if name not in there]
    for name, folder in there.items():
        state = records.state(records.read(folder))
        if state != "done":
            told.append(f"{name[:2]} {state}")
        elif stale := records.stale(folder):
            told.append(f"{name[:2]} stale, since {', '.join(n[:2] for n in stale)} ran again")
    if not told:
        told = [f"06 without {n}" for n in MADE if not (run / SAMPLED / n).is_file()]
    if told:
        raise UserError(
            f"Run '{run.name}' is not finished ({', '.join(told)}); run: "
            f"katlab run --run {run.name}"
        )
    if not (run / "index.html").is_file():
        raise UserError(f"Run '{run.name}' has no pages yet; run: katlab report {run.name}")


def _of_one_commit(found: Sequence[Run]) -> None:
    for run in found[1:]:
        if commit(run) != commit(found[0]):
            raise UserError(
                f"Runs '{found[0].name}' ({commit(found[0])[:8]}) and '{run.name}' "
                f"({commit(run)[:8]}) were made by different commits; run both from one."
            )


def commit(run: Run) -> str:
    """The commit that a run's evaluation was made by; "-dirty" with changes beside it."""
    git = record(run)["git"]
    return (git.get("sha") or "unknown") + "-dirty" * bool(git.get("changed"))


def _one_seed_each(found: Sequence[Run]) -> None:
    seen: dict[int, str] = {}
    for run in found:
        if run.seed in seen:
            first = f"'{seen[run.seed]}' and '{run.name}'"
            raise UserError(f"Seed {run.seed} is there twice ({first}); give one run per seed.")
        seen[run.seed] = run.name


def _controls(found: Sequence[Run], beside: Sequence[Run]) -> list[list[Run]]:
    """Controls by their settings; each has a run for every reported seed."""
    groups: list[list[Run]] = []
    for run in beside:
        if not differing(found[0], run):
            raise UserError(
                f"Run '{run.name}' has the settings of the reported runs; a control differs in one."
            )
        group = next((g for g in groups if not differing(g[0], run)), None)
        groups.append([run]) if group is None else group.append(run)
    seeds = sorted(run.seed for run in found)
    for group in groups:
        _one_seed_each(group)
        group.sort(key=lambda run: run.seed)
        if [run.seed for run in group] != seeds:
            names = ", ".join(run.name for run in group)
            raise UserError(f"A control needs the seeds {_said(seeds)}; {names} has others.")
    return groups


def _seeds_apart(chosen: Chosen, tuned: bool) -> None:
    seeds, stated = [run.seed for run in chosen.reported], chosen.seeds
    if both := sorted({*seeds} & {*stated.tuning}):
        if tuned:
            return
        raise UserError(
            f"Profile '{chosen.profile}' was tuned on seed{'s' * (len(both) > 1)} {_said(both)}; "
            "report runs of other seeds, or give --tuned for a review that says so."
        )
    if stated.reported and sorted(stated.reported) != seeds:
        raise UserError(
            f"Profile '{chosen.profile}' reports the seeds {_said(stated.reported)}, and these "
            f"runs have {_said(seeds)}; give one run of each."
        )


def _said(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def summarized(run: Run) -> dict:
    """What stage 06 of a run wrote of its judging systems."""
    return json.loads((run.folder / SAMPLED / "summary.json").read_text(encoding="utf-8"))
