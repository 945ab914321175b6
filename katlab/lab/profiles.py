"""Profiles: one TOML file sets every number of a run; overrides change single ones.

`nano.toml` is the schema: it names every section and key with a value of the right type, and any
other profile may only set what stands there (an empty table in nano.toml leaves its keys free).
`extends = "nano"` starts from another profile.

Usage:  katlab.lab.profiles.load("nano", {"step_srpo.steps": 50}).step_srpo.steps
"""

import difflib
import tomllib
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

from katlab import UserError

FOLDER = Path(__file__).parents[1] / "profiles"
SCHEMA = "nano"


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """The tail of an error sentence: the closest option, or all of them."""
    options = list(options)
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"choose one of: {', '.join(options)}."


def names() -> list[str]:
    """The profiles that ship with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(profile: str, overrides: dict | None = None) -> SimpleNamespace:
    """A profile (a shipped name or the path of a TOML file) with overrides, as nested namespaces.

    Raises UserError for an unknown profile, section or key, and for a value of the wrong type.
    """
    return namespace(table(profile, overrides))


def table(profile: str, overrides: dict | None = None) -> dict:
    """As `load`, but plain nested dicts."""
    values = _read(profile, ())
    for dotted, value in (overrides or {}).items():
        *parents, key = dotted.split(".")
        if not parents:
            raise UserError(f"Override '{dotted}' needs a section, as in 'step_srpo.steps'.")
        layer = {key: value}
        for part in reversed(parents):
            layer = {part: layer}
        values = _merge(values, _checked(values, layer, f"Override '{dotted}'", ""))
    return values


def section(name: str) -> str:
    """The profile section of a stage: '05_step_srpo' reads [step_srpo]."""
    return name.partition("_")[2]


def namespace(values: dict) -> SimpleNamespace:
    """Nested dicts as nested attribute access."""
    return SimpleNamespace(
        **{k: namespace(v) if isinstance(v, dict) else v for k, v in values.items()}
    )


def _file(path: Path) -> dict:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"Profile {path} is not valid TOML: {error}.") from error


def _path(profile: str) -> Path:
    path = Path(profile) if profile.endswith(".toml") else FOLDER / f"{profile}.toml"
    if not path.is_file():
        raise UserError(f"There is no profile '{profile}'; {did_you_mean(profile, names())}")
    return path


def _read(profile: str, seen: tuple[str, ...]) -> dict:
    if profile in seen:
        raise UserError(f"Profile '{profile}' extends itself: {' -> '.join((*seen, profile))}.")
    values = dict(_file(_path(profile)))
    base = values.pop("extends", None)
    if profile == SCHEMA:
        return values
    schema = _read(SCHEMA, (*seen, profile))
    values = _checked(schema, values, f"Profile '{profile}'", "")
    if base is not None:
        return _merge(_read(base, (*seen, profile)), values)
    sections = {name: keys for name, keys in schema.items() if isinstance(keys, dict)}
    missing = [f"{s}.{k}" for s in sections for k in sections[s] if k not in values.get(s, {})]
    if missing:
        raise UserError(
            f"Profile '{profile}' leaves out {missing[0]}; set it or begin with extends = 'nano'."
        )
    return values


def _merge(base: dict, top: dict) -> dict:
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _checked(schema: dict, values: dict, who: str, prefix: str) -> dict:
    """`values`, every key known to `schema` and every value of its type (an int serves a float)."""
    checked = {}
    for key, value in values.items():
        if key not in schema:
            if schema or not prefix:
                raise UserError(f"{who}: there is no '{prefix}{key}'; {did_you_mean(key, schema)}")
            checked[key] = value  # an empty table in the schema leaves its keys free
            continue
        default = schema[key]
        if isinstance(default, dict) and isinstance(value, dict):
            checked[key] = _checked(default, value, who, f"{prefix}{key}.")
        elif isinstance(default, float) and type(value) is int:
            checked[key] = float(value)
        elif type(value) is not type(default):
            raise UserError(
                f"{who}: '{prefix}{key}' takes {_kind(default)}, but {value!r} is {_kind(value)}."
            )
        else:
            checked[key] = value
    return checked


def _kind(value: object) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return words.get(type(value), {list: "a list", dict: "a table"}.get(type(value), "a value"))
