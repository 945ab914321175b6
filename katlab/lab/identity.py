"""What a run is: its profile, its seed and its overrides, kept in outputs/RUN/settings.json.

Written once, before the first stage. A command or a notebook that names none of them uses what is
kept, one that names another value is refused. Only a run of nothing but failed attempts may still
be corrected. A run from before this file is what its stages agree on.

Usage:  values = identity.settle(outputs / "demo", {"seed": 1});  identity.keep(folder, values)
"""

import json
import re
import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from katlab import UserError
from katlab.lab import profiles, records
from katlab.lab.rows import replace

FILE = "settings.json"
KEYS = ("profile", "seed", "overrides")


@dataclass(frozen=True)
class Identity:
    """The three values that all stages of a run share, and the run that it was forked from."""

    profile: str = "nano"
    seed: int = 0
    overrides: dict[str, Any] = field(default_factory=dict)
    forked_from: str = ""
    as_read: dict[str, Any] = field(default_factory=dict)
    """All settings by dotted key, of a profile of one's own: its file may change under the run."""

    def values(self) -> dict[str, Any]:
        """Profile, seed and overrides, as notebooks take them."""
        return {key: getattr(self, key) for key in KEYS}

    def changed(self, given: dict[str, Any]) -> "Identity":
        """This run with other values; overrides that only repeat the profile are left out."""
        profile = _place(given.get("profile", self.profile))
        overrides = self.overrides | given.get("overrides", {})
        plain = profiles.flat(profiles.table(profile))
        overrides = {k: v for k, v in overrides.items() if k not in plain or plain[k] != v}
        seed = given.get("seed", self.seed)
        own = profile.endswith(".toml")
        as_read = profiles.flat(profiles.table(profile, overrides)) if own else {}
        return Identity(profile, seed, overrides, self.forked_from, as_read)


def read(run: Path) -> Identity | None:
    """What a run is, or None if it has not begun; UserError if its stages disagree."""
    path = run / FILE
    if path.is_file():
        try:
            return Identity(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} cannot be read ({error}); correct or remove it.") from error
    folders = records.stage_folders(run) if run.is_dir() else []
    found = {folder.name: records.read(folder)["parameters"] for folder in folders}
    for key in KEYS:
        said: dict[str, list[str]] = {}
        for name, parameters in found.items():
            said.setdefault(str(parameters[key]), []).append(name[:2])
        if len(said) > 1:
            told = "; ".join(f"{value} in {', '.join(names)}" for value, names in said.items())
            raise UserError(
                f"Run '{run.name}' mixes stages of more than one {key} ({told}); "
                "begin another with: katlab run --run NEW"
            )
    return next((Identity(**{k: p[k] for k in KEYS}) for p in found.values()), None)


def settle(run: Path, given: dict[str, Any]) -> Identity:
    """The identity of a run under the values named in a command (KEYS, those named alone).

    Raises UserError for a value that differs from what the run keeps, and for a mistake in one.
    """
    records.check_name(run.name)
    records.check_seed(given.get("seed", 0))
    kept = read(run)
    wanted = (kept or Identity()).changed(given)
    profiles.table(wanted.profile, wanted.overrides)
    if kept is None or _may_be_corrected(run, kept):
        return wanted
    told = differences(kept, wanted)
    if told:
        new = name(run.name, {k: now for k, (_, now) in told.items() if k not in KEYS})
        new += f"-seed-{wanted.seed}" * ("seed" in told)
        raise UserError(
            f"Run '{run.name}' keeps its settings ("
            + ", ".join(f"{key} {was!r}, not {now!r}" for key, (was, now) in told.items())
            + f"); begin a variant with: {_command(kept, wanted, told, run.name, new)}"
        )
    return kept


def keep(run: Path, identity: Identity) -> None:
    """Write settings.json, once and whole."""
    run.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(identity), indent=1) + "\n"
    if not (run / FILE).is_file() or (run / FILE).read_text(encoding="utf-8") != text:
        replace(run / FILE, text)


def differences(one: Identity, other: Identity) -> dict[str, tuple[object, object]]:
    """What sets two runs apart: profile, seed, or the settings' dotted keys, as (one's, other's).

    Settings count by their value, however it came about; under two profiles, as overrides.
    """
    told: dict[str, tuple[object, object]] = {}
    if profiles.table(one.profile) != profiles.table(other.profile):
        told["profile"] = one.profile, other.profile
        first, second = one.overrides, other.overrides
    else:
        first, second = (
            run.as_read or profiles.flat(profiles.table(run.profile, run.overrides))
            for run in (one, other)
        )
        if one.as_read:  # a setting that the code has got or lost since is no change
            both = {*one.overrides, *other.overrides} | set(first) & set(second)
            first, second = ({k: v for k, v in s.items() if k in both} for s in (first, second))
    if one.seed != other.seed:
        told["seed"] = one.seed, other.seed
    for key in dict.fromkeys([*first, *second]):
        if first.get(key) != second.get(key) and not key.startswith(f"{profiles.SEEDS}."):
            told[key] = first.get(key), second.get(key)
    return told


def name(run: str, settings: dict[str, Any], *further: str) -> str:
    """A run's name that says what was changed: demo-omega-0.3."""
    said = [f"{key.rpartition('.')[2]}-{value}" for key, value in settings.items()]
    text = "-".join([run, *said, *further])
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).rstrip("-.")[: records.LONGEST]


def _command(kept: Identity, wanted: Identity, told: dict, run: str, new: str) -> str:
    changed = {key: now for key, (_, now) in told.items() if key not in KEYS}
    seed = f"--seed {wanted.seed}" * ("seed" in told)
    if "profile" in told:
        new, changed = name(run, {}, Path(wanted.profile).stem), wanted.overrides
        words = ["katlab run --run", new, "--profile", shlex.quote(wanted.profile)]
        seed = f"--seed {wanted.seed}" * bool(wanted.seed)
    else:
        words = ["katlab fork", run, new]
    return " ".join(filter(None, [*words, seed, profiles.options(changed)]))


def _may_be_corrected(run: Path, kept: Identity) -> bool:
    """Whether nothing was made under what the run keeps: no stage, or only failed attempts."""
    folders = [] if kept.forked_from or not run.is_dir() else records.stage_folders(run)
    failed = (
        records.read(folder)["state"] == "failed" and records.result(folder) is None
        for folder in folders
    )
    return not kept.forked_from and all(failed)


def _place(profile: str) -> str:
    """A profile's own file by its whole path, since kernels start in notebooks/."""
    return str(Path(profile).resolve()) if profile.endswith(".toml") else profile
