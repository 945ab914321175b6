"""Sections of a profile as pydantic models, and their mistakes in one sentence each.

A section states types, choices and ranges; its numbers and their sources stand in the profile.
Types are strict (true is no number, an int serves a float), numbers are finite, a value set by hand
is checked like one that was read. A validator raises ValueError with one sentence.

Usage:  class Settings(Section):
            steps: int = Field(gt=0)
"""

import difflib
import types
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from katlab import UserError

KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Any: "a value",
}
BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def _as_number(value: Any) -> Any:
    """A count given as text, as on a command line: its number, where it is one."""
    for kind in (int, float) if isinstance(value, str) else ():
        try:
            return kind(value)
        except ValueError:
            pass
    return value


Count = Annotated[
    Annotated[int, Field(gt=0)] | Annotated[float, Field(gt=0, le=1)] | Literal["all"],
    BeforeValidator(_as_number),
]
"""How many rows: a number, a share of those that are there (0.5; 1 is one row), or "all"."""


def count(value: int | float | str, there: int) -> int:
    """The rows that a `Count` means where `there` of them are; a share is at least one row."""
    if value == "all":
        return there
    return value if isinstance(value, int) else max(1, int(float(value) * there))


class Section(BaseModel):
    """Base of every section: no unknown keys, strict types, checked on assignment."""

    model_config = ConfigDict(
        extra="forbid", strict=True, validate_assignment=True, allow_inf_nan=False
    )

    def __setattr__(self, name: str, value: object) -> None:
        try:
            super().__setattr__(name, value)
        except ValidationError as error:
            told = sentences(error, type(self), lambda _: "This section")
            raise UserError(told[0]) from None


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """The tail of an error sentence: the closest option, or all of them."""
    options = list(options)
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"choose one of: {', '.join(options)}."


def sentences(
    error: ValidationError, model: type[BaseModel], who: Callable[[str], str]
) -> list[str]:
    """Every mistake of a ValidationError, one sentence a key: what it may hold, what it held.

    `who` says by the dotted key, as in 'step_srpo.steps', whose value it is.
    """
    told: dict[str, str] = {}
    mistakes = error.errors(include_url=False)
    left_out = [mistake for mistake in mistakes if mistake["type"] == "missing"]
    for mistake in (one for one in mistakes if one not in left_out[1:]):  # one remedy for all
        dotted = ".".join(map(str, mistake["loc"]))
        path, field = _path(mistake["loc"], model)
        told.setdefault(".".join(path), _sentence(mistake, path, field, model, who(dotted)))
    return list(told.values())


def _path(place: tuple, model: type[BaseModel]) -> tuple[list[str], FieldInfo | None]:
    """As far as sections go; lists and unions add parts of their own."""
    path, fields, field = [], model.model_fields, None
    for part in place:
        if fields is None:
            break
        path.append(str(part))
        field = fields.get(str(part))
        fields = _fields(field.annotation) if field else None
    return path, field


def _sentence(
    mistake: Any, path: list[str], field: FieldInfo | None, model: type[BaseModel], who: str
) -> str:
    dotted, kind = ".".join(path), mistake["type"]
    if kind == "missing":
        return f"{who} leaves out {dotted}; set it or begin with extends = 'nano'."
    if kind in ("extra_forbidden", "no_such_attribute"):
        parent = model.model_fields
        for part in path[:-1]:
            parent = _fields(parent[part].annotation)
        return f"{who}: there is no '{dotted}'; {did_you_mean(path[-1], parent)}"
    if kind == "value_error":
        return f"{who}: {mistake['ctx']['error']}"
    wanted = allowed(field) if field else "text"  # a free section holds text
    return f"{who}: '{dotted}' takes {wanted}, not {mistake['input']!r}."


def allowed(field: FieldInfo) -> str:
    """What a field may hold, in words: 'a whole number above 0', "'gate' or 'off'"."""
    return _words(field.annotation, field.metadata)


def _fields(annotation: Any) -> dict[str, FieldInfo] | None:
    section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation.model_fields if section else None


def _words(annotation: Any, metadata: Iterable[object] = ()) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        flat = [m for one in inner[1:] for m in getattr(one, "metadata", [one])]
        return _words(inner[0], flat)
    if origin is Literal:
        return _either([repr(choice) for choice in inner])
    if origin in (Union, types.UnionType):
        return _either([_words(one) for one in inner])
    if origin is list:
        filled = any(getattr(limit, "min_length", 0) for limit in metadata)
        return f"a list{' that is not empty' * filled}, each {_words(inner[0])}"
    kind = KINDS.get(annotation, "a table")
    bounds = [
        f"{word} {getattr(limit, key):g}"
        for limit in metadata
        for key, word in BOUNDS.items()
        if hasattr(limit, key)
    ]
    return " ".join([kind, " and ".join(bounds)]).strip()


def _either(words: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
