"""What the runs of a review took and what they started from: minutes, speed, device, weights.

Minutes are of one run, the mean over those reported; speed is of all of them together.

    cost.of(chosen.reported)["mfu"]  # {"03_mtp_distillation": 0.27, ...}; null on a CPU
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from katlab import speed
from katlab.compare_runs.variants import Run
from katlab.lab import profiles, read_jsonl, records
from katlab.review.accepted import record

ROLLOUTS = "05_step_srpo"


def of(runs: Sequence[Run]) -> dict[str, Any]:
    """device, gpu_minutes, minutes_by_stage, rollout_tokens_per_s, mfu, weights of `summary.of`.

    None where a run noted nothing, and gpu_minutes on a CPU.
    """
    stages = {path.name for run in runs for path in records.stage_folders(run.folder)}
    minutes, rows = {}, {}
    for name in sorted(stages):
        folders = [run.folder / name for run in runs if (run.folder / name / "run.json").is_file()]
        minutes[name] = fmean(records.read(path).get("seconds", 0) for path in folders) / 60
        rows[name] = [row for path in folders for row in _noted(path)]
    devices = [*dict.fromkeys(row["device"] for noted in rows.values() for row in noted)]
    drawn = [row for row in rows.get(ROLLOUTS, []) if row["name"] == "rollouts"]
    rollouts = speed.total(drawn)
    trained = {
        name: speed.total([row for row in noted if row["part"] == "training"])
        for name, noted in rows.items()
    }
    on_gpu = devices and "CPU" not in devices
    return {
        "device": ", ".join(devices) or None,
        "gpu_minutes": round(sum(minutes.values()), 2) if on_gpu else None,
        "minutes_by_stage": {name: round(value, 2) for name, value in minutes.items()},
        "rollout_tokens_per_s": rollouts and rollouts["tokens_per_s"],
        "mfu": {name: found["mfu"] for name, found in trained.items() if found},
        "weights": weights(runs[0]),
    }


def weights(run: Run) -> str:
    """Where a run's student comes from: hub id or folder, its GGUF, and what the profile says."""
    given = record(run)["parameters"]
    model = profiles.load(given["profile"], given["overrides"]).model
    folder = model.student.startswith(("/", ".", "~"))
    name = Path(model.student).name if folder else model.student
    return ", ".join(filter(None, [name, model.gguf_file, model.weights]))


def _noted(folder: Path) -> list[dict]:
    path = folder / speed.FILE
    return read_jsonl(path) if path.is_file() else []


def told(made: dict) -> str:
    """A summary's cost in words, as far as it is known."""
    said = [f"Weights: {made['weights']}."] if made.get("weights") else []
    minutes = made.get("minutes_by_stage", {})
    if made.get("device"):
        each = ", ".join(f"{name[:2]} {value:.1f}" for name, value in minutes.items())
        said.append(
            f"One run took {sum(minutes.values()):.1f} minutes on {made['device']} ({each})."
        )
    if made.get("rollout_tokens_per_s"):
        said.append(f"Rollouts came at {made['rollout_tokens_per_s']:,} tokens/s.")
    known = {name[:2]: value for name, value in made.get("mfu", {}).items() if value is not None}
    if known:
        each = ", ".join(f"{name} {100 * value:.0f} %" for name, value in known.items())
        said.append(f"MFU in training: {each}.")
    return " ".join(said)
