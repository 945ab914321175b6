"""Words of a page: what the figures of the stages are called and measured in, and the glossary.

They stand in katlab/words.toml: [glossary], and for each stage [figures.<stage>] with
`name = [label, unit]`, the telling ones first; `#` in a name stands for any number.

Usage:  words.headline(record);  words.told(0.91, "%")
"""

import math
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from typing import Any

from katlab.lab.profiles import PACKAGE, section
from katlab.lab.progress import number

SCALED = {"%": ("{:.1f} %", 100), "points": ("{:+.1f} points", 100)}  # shares, differences of them


@cache
def _file() -> dict[str, Any]:
    return tomllib.loads((PACKAGE / "words.toml").read_text(encoding="utf-8"))


def glossary() -> dict[str, str]:
    """The terms that pages use, each in a line."""
    return _file()["glossary"]


def label(stage: str, name: str) -> tuple[str, str]:
    """Label and unit of a stage's figure; its name in plain words where no label is written."""
    known = _file()["figures"].get(section(stage), {})
    digits = re.search(r"\d+$", name)
    pattern = re.sub(r"\d+$", "#", name)
    text, unit = known.get(name) or known.get(pattern) or (name.replace("_", " "), "")
    return text.replace("#", digits[0] if digits else ""), unit


def told(value: object, unit: str = "") -> str:
    """A figure with its unit, rounded for people; – for none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, int | float) and unit in SCALED:
        form, factor = SCALED[unit]
        return form.format(factor * value)
    return f"{number(value)} {unit}".rstrip()


def figures(stage: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Every figure under its label, told with its unit, the telling ones first."""
    order = [*_file()["figures"].get(section(stage), {})]
    ranked = sorted(values, key=lambda name: order.index(name) if name in order else len(order))
    labels = {name: label(stage, name) for name in ranked}
    return {labels[name][0]: told(values[name], labels[name][1]) for name in ranked}


def headline(record: Mapping[str, Any], most: int = 4) -> str:
    """The most telling figures of a run.json as one line."""
    stage = record["id"].rpartition("/")[2].partition("@")[0]
    plain = {k: v for k, v in record["headline"].items() if isinstance(v, int | float)}
    parts = list(figures(stage, plain).items())[:most]
    return " · ".join(f"{name} {value}" for name, value in parts)
