"""Profiles: one TOML file sets every number of a run; overrides change single ones.

What a section may hold stands in a pydantic model beside its stage (katlab/<stage>/settings.py), or
in katlab/profiles/settings.py for the sections that all stages share. nano.toml sets every key;
`extends = "nano"` starts from there, or from another profile.

Usage:  katlab.lab.profiles.load("nano", {"step_srpo.steps": 50}).step_srpo.steps
"""

import json
import shlex
import tomllib
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError, create_model

from katlab import UserError
from katlab.lab.settings import Section, did_you_mean, sentences

PACKAGE = Path(__file__).parents[1]
FOLDER = PACKAGE / "profiles"
SCHEMA = "nano"  # the profile that sets every key
SEEDS = "seeds"  # the section that says which runs are reported; no work depends on it


def names() -> list[str]:
    """The profiles that ship with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(profile: str, overrides: dict | None = None) -> Any:
    """A profile (a shipped name or the path of a TOML file) with overrides, one section each.

    Raises UserError for an unknown profile, and one sentence for each unknown section or key and
    each value out of its range.
    """
    values = _read(profile, ())
    for dotted, value in (overrides or {}).items():
        *parents, key = dotted.split(".")
        if not parents:
            raise UserError(f"Override '{dotted}' needs a section, as in 'step_srpo.steps'.")
        layer = {key: value}
        for part in reversed(parents):
            layer = {part: layer}
        values = _merge(values, layer)
    try:
        return schema()(**values)
    except ValidationError as error:

        def who(place: str) -> str:
            mine = any(o.startswith(place) or place.startswith(o) for o in overrides or ())
            return "Overrides" if mine else f"Profile '{profile}'"

        raise UserError("\n".join(sentences(error, schema(), who))) from None


def table(profile: str, overrides: dict | None = None) -> dict:
    """As `load`, but plain nested dicts."""
    return load(profile, overrides).model_dump()


def flat(values: dict) -> dict:
    """Nested tables as one, under the dotted keys that overrides have."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        inner = flat(value) if isinstance(value, dict) else {}
        found |= {f"{key}.{name}": one for name, one in inner.items()} or {key: value}
    return found


def options(overrides: dict[str, Any]) -> str:
    """Overrides as a shell takes them: -o step_srpo.omega=0.3"""
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in overrides.items()}
    return " ".join(f"-o {shlex.quote(f'{key}={text}')}" for key, text in texts.items())


def section(name: str) -> str:
    """The profile section of a stage: '05_step_srpo' reads [step_srpo]."""
    return name.partition("_")[2]


def stage_sections() -> list[str]:
    """The packages that own a section: those with a settings.py."""
    found = sorted(path.parent.name for path in PACKAGE.glob("*/settings.py"))
    return [name for name in found if name not in ("lab", "profiles")]


@cache
def schema() -> type[Section]:
    """The model of a whole profile: the shared sections and those of the stages."""
    modules = {name: vars(import_module(f"katlab.{name}.settings")) for name in stage_sections()}
    own: Any = {name: (m["Settings"], ...) for name, m in modules.items() if "Settings" in m}
    shared = import_module("katlab.profiles.settings").Shared
    return create_model("Profile", __base__=shared, **own)


def _path(profile: str) -> Path:
    path = Path(profile) if profile.endswith(".toml") else FOLDER / f"{profile}.toml"
    if not path.is_file():
        raise UserError(f"There is no profile '{profile}'; {did_you_mean(profile, names())}")
    return path


def _read(profile: str, seen: tuple[str, ...]) -> dict:
    """The tables of a profile over those that it extends, not yet checked."""
    if profile in seen:
        raise UserError(f"Profile '{profile}' extends itself: {' -> '.join((*seen, profile))}.")
    path = _path(profile)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"Profile {path} is not valid TOML: {error}.") from error
    base = values.pop("extends", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise UserError(f"Profile {path}: 'extends' takes a profile's name or path, not {base!r}.")
    if base.endswith(".toml"):  # a path counts from the profile that names it
        base = str(path.parent / base)
    return _merge(_read(base, (*seen, profile)), values)


def _merge(base: dict, top: dict) -> dict:
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged
