"""What a run is and how far it is: plain values for `katlab ls`, `--json` and whoever asks.

Usage:  overview.run(outputs / "demo")["stages"][4]["stale"]
"""

from pathlib import Path
from typing import Any

from katlab.lab import identity, records
from katlab.lab.console import counted, verdicts


def run(folder: Path) -> dict[str, Any]:
    """A run: name, profile, seed, overrides (lists where its stages disagree), seconds, stages.

    What settings.json says counts; a run older than that is what its stages say. `seconds` is the
    time of the work done in this run. Raises UserError if there is no such run.
    """
    folders = records.stage_folders(folder)
    given = [records.read(one)["parameters"] for one in folders]
    if (folder / identity.FILE).is_file():
        given = [identity.read(folder).values()]
    stages = [stage(one) for one in folders]
    return {
        "run": folder.name,
        **{key: _shared([g[key] for g in given]) for key in identity.KEYS},
        "seconds": round(sum(one["seconds"] or 0 for one in stages), 1),
        "stages": stages,
    }


def stage(folder: Path) -> dict[str, Any]:
    """A stage (or an earlier attempt): state, seconds of its own work, claims, marks, figures.

    `seconds` is None while there are none and for work `taken_from` another run; `stale` names the
    stages above it that were done anew since; `attempts` the folders of earlier ones.
    """
    record = records.read(folder)
    held, asked = counted(verdicts(folder))
    taken = record.get("taken_from", "")
    return {
        "stage": folder.name,
        "state": records.state(record),
        "seconds": None if taken else record.get("seconds"),
        "started": record["started"],
        "taken_from": taken,
        "stale": records.stale(folder),
        "attempts": [path.name for path in attempts(folder)],
        "claims_held": held,
        "claims": asked,
        "error": record.get("error", ""),
        "headline": record["headline"],
    }


def attempts(folder: Path) -> list[Path]:
    """The folders of a stage's earlier attempts, oldest first."""
    found = folder.parent.glob(f"{folder.name}@*/run.json")
    numbered = {path.parent.name.rpartition("@")[2]: path.parent for path in found}
    return [numbered[number] for number in sorted(filter(str.isdecimal, numbered), key=int)]


def _shared(values: list) -> Any:
    """The value that all have, or the list of different ones."""
    different = [value for place, value in enumerate(values) if value not in values[:place]]
    return different[0] if len(different) == 1 else different
