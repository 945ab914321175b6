"""What the compared runs were told: their settings, which differ, and which runs are repeats.

Usage:  variants = group(outputs, ["demo", "demo-seed1", "idea"]);  apart(variants)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from katlab.lab import profiles, read_jsonl, runs
from katlab.lab.runs import stage_folders

SAMPLED = "06_evaluation"
OWN = ("profile", "seed", "commit")  # what a run has beside the settings of its stages
NOT_RUN = "–"


@dataclass(frozen=True)
class Run:
    """One run: its folder, what it was told (dotted key: value), the seed, its stale stages."""

    folder: Path
    settings: dict[str, str]
    seed: int
    stale: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @cached_property
    def samples(self) -> pd.DataFrame:
        """Stage 06's samples with `thinks` and `well_formed`; no rows where it has not run."""
        path = self.folder / SAMPLED / "arms.jsonl"
        if not path.is_file():
            return pd.DataFrame(columns=["id", "system", "arm"])
        frame = pd.DataFrame(read_jsonl(path))
        return frame.assign(thinks=frame["mode"].eq("on"), well_formed=frame["problem"].isna())

    @cached_property
    def asked(self) -> dict[str, object]:
        """The messages of each prompt by its id; {} if the run is too old to have kept them."""
        path = self.folder / SAMPLED / "queries.jsonl"
        return {r["id"]: r["messages"] for r in read_jsonl(path)} if path.is_file() else {}


@dataclass(frozen=True)
class Variant:
    """Runs that are repeats: the same settings, a seed each."""

    runs: list[Run]

    @property
    def name(self) -> str:
        """The first run's name, and how many seeds there are beyond one."""
        more = f" ×{len(self.runs)}" if len(self.runs) > 1 else ""
        return self.runs[0].name + more

    @property
    def seeds(self) -> list[int]:
        """The seed of each run."""
        return [run.seed for run in self.runs]


def read(folder: Path) -> Run:
    """One run as its stages' run.json tell; values that differ between stages are all named."""
    told: dict[str, list[str]] = {}
    stale, seed = [], 0
    for stage in stage_folders(folder):
        record = runs.read(stage)
        own = profiles.section(stage.name)
        given = record["parameters"]
        said = {"profile": given["profile"], "seed": record["seed"]}
        said["commit"] = record["git"].get("sha", "")[:8] or NOT_RUN
        said |= {f"{own}.{k}": v for k, v in profiles.flat(record["settings"]).items()}
        said |= given.get("overrides", {})
        for key, value in said.items():
            if str(value) not in told.setdefault(key, []):
                told[key].append(str(value))
        stale += [stage.name] if runs.stale(stage) else []
        seed = record["seed"]
    return Run(folder, {key: " ".join(values) for key, values in told.items()}, seed, stale)


def group(outputs: Path, names: Sequence[str]) -> list[Variant]:
    """The runs as variants, in the order given; a second run of a seed is a variant of its own."""
    variants: list[Variant] = []
    for run in (read(outputs / name) for name in dict.fromkeys(names)):
        for variant in variants:
            if run.seed not in variant.seeds and repeats(variant.runs[0], run):
                variant.runs.append(run)
                break
        else:
            variants.append(Variant([run]))
    return variants


def repeats(a: Run, b: Run) -> bool:
    """Whether two runs were told the same but for the seed; `apart` shows the commits."""
    told = [
        {k: v for k, v in run.settings.items() if k not in ("seed", "commit")} for run in (a, b)
    ]
    return told[0] == told[1]


def apart(runs_: Sequence[Run]) -> pd.DataFrame:
    """The settings in which runs differ, one column per run: profile, seed and commit come first.

    Profile and seed stand there always; a setting of a stage that a run lacks is "–".
    """
    keys = list(dict.fromkeys([*OWN, *(key for run in runs_ for key in run.settings)]))
    rows = {key: [run.settings.get(key, NOT_RUN) for run in runs_] for key in keys}
    kept = {k: v for k, v in rows.items() if len(set(v)) > 1 or k in ("profile", "seed")}
    if any(run.stale for run in runs_):
        kept["stale stages"] = [" ".join(s[:2] for s in run.stale) or "none" for run in runs_]
    names = [run.name for run in runs_]
    return pd.DataFrame.from_dict(kept, orient="index", columns=names).rename_axis("setting")
