"""summary.json of a review: every figure from the files of the runs, pooled over their seeds.

Means with 95 % intervals over seeds and problems (`compare_runs.pooling`; prompts that differ in
names alone are one problem). A claim is held if the verdict of every seed holds it, which is the
strictest way to count; `measured` gives each seed's own words. Systems that the runs did not
sample are left out, a score that a system cannot have is null. Where the queries are a mixture,
"sets" has every system on each set apart.

    summary.of(chosen)["systems"]["final"]["accuracy"]  # [mean, low, high]
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd

from katlab import intervals
from katlab.compare_runs import pooling
from katlab.compare_runs.variants import SAMPLED, Run
from katlab.evaluation import systems
from katlab.evaluation.stage import load
from katlab.evaluation.systems import AFTER, BEFORE
from katlab.evaluation.verdict import MARGIN
from katlab.export.student import claims as verdict_rows
from katlab.lab import records
from katlab.review import cost, measured, twins
from katlab.review.accepted import Chosen, commit, differing, record
from katlab.review.measured import rounded

N_IS = "prompts of stage 06, summed over the seeds; a problem may stand under two seeds"
RULE = "a claim is held if the verdict of every seed holds it, null if no verdict could judge it"
DISTILLED = "distilled"  # it has no gate: told to think and told not to, half each
NAMES = {  # of `systems.ways`, shorter; any other way keeps its name
    systems.ALWAYS_ON: "always-on",
    systems.ALWAYS_OFF: "always-off",
    systems.COIN: "coin",
    systems.OWN_P: "threshold",
    systems.START_P: "threshold of the cold start",
    systems.RULE: "one-feature rule",
    systems.ORACLE: "oracle",
}
PAIRS = {("base", "free"): "base", (BEFORE, "auto"): BEFORE, (AFTER, "auto"): AFTER}
NAMES |= {way: PAIRS[pair] for way, pair in systems.SAMPLED.items() if pair in PAIRS}
VOTES = {"own": "own votes", "teachers": "teachers' votes"}


def of(chosen: Chosen) -> dict:
    """The whole summary, JSON values only."""
    runs = chosen.reported
    frames = [ways(run) for run in runs]
    names = _votes(runs[0])
    samples = measured.named(frames, names)
    told = measured.systems(runs, samples, names)
    for group in chosen.controls:
        names, only = _control(runs[0], group[0])
        theirs = measured.named([ways(run) for run in group], names, only)
        told |= measured.systems(group, theirs, names)
        samples |= theirs
    sizes = {str(run.seed): len(run.asked) for run in runs}
    return {
        "profile": Path(chosen.profile).name,
        "commit": commit(runs[0]),
        "runs": [run.name for run in runs],
        "seeds": [run.seed for run in runs],
        "tuning_seeds": chosen.seeds.tuning,
        "tuned_on_these": chosen.tuned,
        "n": sum(sizes.values()),
        "n_is": N_IS,
        "n_by_seed": sizes,
        "twins": sum(map(twins.count, runs)),
        "twins_of": twins.compared_with(runs[0]),
        "t_max": record(runs[0])["settings"]["max_new_tokens"],
        **cost.of(runs),
        "systems": told,
        "sets": measured.apart(samples),
        "against_always_on": against_always_on(frames),
        "claims_rule": RULE,
        "claims": claims(runs),
    }


def ways(run: Run) -> dict[str, pd.DataFrame]:
    """The samples of every system and control of a run, by its short name."""
    arms, judged = load(run.folder / SAMPLED)
    delta = record(run)["settings"]["delta"]
    found = systems.ways(arms, judged[AFTER]["rule"], delta)
    commanded = [found[name] for name, key in systems.SAMPLED.items() if key[0] == DISTILLED]
    if len(commanded) == 2:
        found[DISTILLED] = pd.concat(commanded, ignore_index=True)
    return {
        NAMES.get(name, name): frame
        for name, frame in found.items()
        if frame["correct"].notna().any()
    }


def against_always_on(frames: Sequence[dict[str, pd.DataFrame]]) -> dict:
    """The final model deciding against always thinking: accuracy, and the share of tokens saved.

    Paired by problem within each seed. Accuracy has its mean and its one-sided 95 % bound, and the
    power: how often that bound is within the margin if the true difference is 0.
    """
    pairs = [(found[AFTER], found["always-on"]) for found in frames]
    gained = pooling.changes(pairs, "correct")
    low, error = float(np.quantile(gained[1:], 0.05)), float(gained[1:].std())
    power = NormalDist().cdf(MARGIN / error - NormalDist().inv_cdf(0.95)) if error else 1.0
    if gained.min() == gained.max():  # the draws know no doubt where no problem differs
        sides = [pooling.joined(side) for side in zip(*pairs, strict=True)]
        kept = intervals.no_worse(sides[0], sides[1], "correct", MARGIN)
        low, power = kept.low, kept.power
    saved = -pooling.changes(pairs, "tokens", relative=True)
    ends = np.quantile(saved[1:], [0.025, 0.975])
    return {
        "accuracy_difference": rounded(float(gained[0]), low),
        "margin": MARGIN,
        "power": round(power, 4),
        "tokens_saved": rounded(float(saved[0]), *ends.tolist()),
    }


def claims(runs: Sequence[Run]) -> list[dict]:
    """The claims of the runs' verdicts by `RULE`, in order; facts and self-checks are none."""
    found: dict[tuple[str, str], dict[int, dict]] = {}
    for run in runs:
        for row in verdict_rows(run.folder):
            found.setdefault((row["stage"], row["claim"]), {})[run.seed] = row
    return [
        {
            "stage": stage,
            "claim": claim,
            "measured": _measured(rows, len(runs)),
            "held": _held(rows, len(runs)),
            "held_in": [seed for seed, row in rows.items() if row["held"]],
            "by_seed": {str(seed): str(row["measured"]) for seed, row in rows.items()},
        }
        for (stage, claim), rows in found.items()
    ]


def _held(rows: dict[int, dict], seeds: int) -> bool | None:
    said = [row["held"] for row in rows.values()]
    if all(one is None for one in said):
        return None
    return len(said) == seeds and all(said)


def _measured(rows: dict[int, dict], seeds: int) -> str:
    texts = {seed: str(row["measured"]) for seed, row in rows.items()}
    if seeds == 1:
        return next(iter(texts.values()))
    count = sum(bool(row["held"]) for row in rows.values())
    each = "; ".join(f"seed {seed}: {text}" for seed, text in texts.items())
    return f"held in {count} of {seeds} seeds; {each}"


def _votes(run: Run) -> dict[str, str]:
    """Names that say how the cold start's votes were taken, where a run is not too old to know."""
    votes = records.read(run.folder / "04_cold_start")["settings"].get("votes")
    if votes is None:
        return {}
    how = VOTES.get(votes, f"{votes} votes")
    return {name: f"{name} ({how})" for name in (BEFORE, AFTER)}


def _control(first: Run, run: Run) -> tuple[dict[str, str], Collection[str]]:
    """How the systems of a control are named, and which of them are told."""
    told = differing(first, run)
    if set(told) == {"cold_start.votes"}:
        return _votes(run), (BEFORE, AFTER)
    if told == {"step_srpo.advantages": "grpo"}:
        return {AFTER: "GRPO"}, (AFTER,)
    early = any(not key.startswith("step_srpo.") for key in told)
    said = ", ".join(f"{key.removeprefix('step_srpo.')} {told[key]}" for key in told)
    shown = (BEFORE, AFTER) if early else (AFTER,)
    return {name: f"{name} ({said})" for name in shown}, shown
