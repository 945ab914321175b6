"""What a drawn figure shows: its data as rows, and a sentence for those who cannot see it.

Read off the axes, so that a figure's author writes neither. Reads lines, error bars, bars, points,
bands, maps of cells and tables; what a legend names is found by its colour.

Usage:  drawn.rows(figure);  drawn.alt(figure)
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import Collection, PathCollection, PolyCollection, QuadMesh
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from katlab.lab.progress import number

COLUMNS = ("panel", "series", "kind", "x", "x_low", "x_high", "y", "low", "high", "value")
KINDS = {
    "line": "lines",
    "point": "points with intervals",
    "dot": "points",
    "bar": "bars",
    "cell": "a map of cells",
    "area": "areas",
}


def rows(figure: Figure) -> list[dict]:
    """One row per mark: panel, series, kind, x and y with their intervals, value of a cell."""
    names = _legend(figure)
    return [
        {"panel": axis.get_title(), **row}
        for axis in _panels(figure)
        for row in [*_contained(axis, names), *_lines(axis, names), *_collected(axis, names)]
    ]


def alt(figure: Figure) -> str:
    """What is drawn, in words: title, and by panel the kind of marks, axes, series and range."""
    drawn, panels = rows(figure), _panels(figure)
    title = figure.get_suptitle()
    told = [_panel(axis, drawn, alone=len(panels) == 1 and not title) for axis in panels]
    return " ".join(f"{part.rstrip('.')}." for part in (title, *told) if part)


def _panel(axis: Axes, drawn: list[dict], alone: bool) -> str:
    own = [row for row in drawn if row["panel"] == axis.get_title()]
    kinds = list(dict.fromkeys(KINDS[row["kind"]] for row in own if row["kind"] in KINDS))
    text = " and ".join(kinds[:2]) or "A drawing"
    if axis.get_ylabel():
        text += f" of {axis.get_ylabel()}"
    if axis.get_xlabel():
        text += f" by {axis.get_xlabel()}"
    series = list(dict.fromkeys(row["series"] for row in own if row["series"]))
    if series:
        more = f" and {len(series) - 8} more" if len(series) > 8 else ""
        text += f" for {', '.join(series[:8])}{more}"
    keys = [key for key in ("value", "y") if any(_finite(row.get(key)) for row in own)]
    values = [row[keys[0]] for row in own if _finite(row.get(keys[0]))] if keys else []
    if values:
        text += f", from {number(float(min(values)))} to {number(float(max(values)))}"
    title = axis.get_title()
    if not title:
        return text
    return f"{title}. {text[0].upper()}{text[1:]}" if alone else f"Panel “{title}”: {text}"


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))


def _panels(figure: Figure) -> list[Axes]:
    return [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]


def _legend(figure: Figure) -> dict[str, str]:
    """What the legends of a figure say of a colour."""
    legends = [axis.get_legend() for axis in figure.axes]
    return {
        colour: text.get_text()
        for legend in filter(None, [*legends, *figure.legends])
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=False)
        if (colour := _colour(handle))
    }


def _colour(artist: object) -> str:
    for name in ("get_color", "get_facecolor"):
        value = getattr(artist, name, lambda: None)()
        if value is not None and len(value):
            nested = not isinstance(value, str) and np.ndim(value) == 2
            return to_hex(value[0] if nested else value)
    return ""


def _series(artist: object, names: dict[str, str]) -> str:
    label = str(getattr(artist, "get_label", lambda: "")() or "")
    return names.get(_colour(artist), "") if label.startswith("_") or not label else label


def _at(axis: Axis, place: float, reach: float = 1e-6) -> Any:
    """The name of the tick at a place of an axis whose ticks are names, else the place."""
    texts = [label.get_text() for label in axis.get_ticklabels()]
    for tick, text in zip(axis.get_ticklocs(), texts, strict=False):
        if abs(tick - place) <= reach and text and not _numeric(text):
            return text.replace("\n", " ")
    return float(place)


def _numeric(text: str) -> bool:
    try:
        float(text.replace("\N{MINUS SIGN}", "-").replace(",", "").rstrip("%"))
    except ValueError:
        return "mathdefault" in text
    return True


def _contained(axis: Axes, names: dict[str, str]) -> Iterator[dict]:
    for container in axis.containers:
        if isinstance(container, BarContainer):
            flat = container.orientation == "horizontal"
            for bar in container.patches:
                x, y = bar.get_x() + bar.get_width() / 2, bar.get_height()
                name = _series(container, {}) or names.get(to_hex(bar.get_facecolor()), "")
                if flat:
                    x, y = bar.get_width(), _at(axis.yaxis, bar.get_y() + bar.get_height() / 2, 0.5)
                else:
                    x = _at(axis.xaxis, x, 0.5)
                yield {"series": name, "kind": "bar", "x": x, "y": y}
        elif isinstance(container, ErrorbarContainer) and container.lines[0] is not None:
            line, _, spans = container.lines
            ends = [np.array(span.get_segments()) for span in spans]
            for i, (x, y) in enumerate(zip(*line.get_data(), strict=True)):
                row: dict[str, Any] = {"series": _series(container, names) or _series(line, names)}
                row |= {"kind": "point", "x": _at(axis.xaxis, x), "y": float(y)}
                for end in ends:
                    (x0, y0), (x1, y1) = end[i]
                    row |= {"low": y0, "high": y1} if x0 == x1 else {"x_low": x0, "x_high": x1}
                yield row


def _lines(axis: Axes, names: dict[str, str]) -> Iterator[dict]:
    barred = [c.lines for c in axis.containers if isinstance(c, ErrorbarContainer)]
    taken = {id(part) for line, caps, _ in barred for part in (line, *caps)}
    for line in axis.lines:
        if id(line) in taken:
            continue
        in_x, in_y = line.get_transform().contains_branch_seperately(axis.transData)
        xs, ys = (np.asarray(values, float) for values in line.get_data(orig=False))
        name = _series(line, names)
        if not np.isfinite(ys).any():  # an interval that is not there
            continue
        if not (in_x and in_y):  # axhline, axvline
            place = {"y": float(ys[0])} if in_y else {"x": float(xs[0])}
            yield {"series": name, "kind": "level", **place}
        elif _is_interval(line, xs):
            yield {"series": name, "kind": "interval", "x": _at(axis.xaxis, xs[0], 0.5),
                   "low": np.nanmin(ys), "high": np.nanmax(ys)}  # fmt: skip
        else:
            for x, y in zip(xs, ys, strict=True):
                yield {"series": name, "kind": "line", "x": _at(axis.xaxis, x), "y": float(y)}


def _is_interval(line: Line2D, xs: np.ndarray) -> bool:
    """Whether it is an upright stroke: the interval of a bar of seaborn's."""
    return len(xs) > 1 and line.get_marker() in ("None", "", None) and np.ptp(xs) == 0


def _collected(axis: Axes, names: dict[str, str]) -> Iterator[dict]:
    for part in [*axis.collections, *axis.images]:
        if isinstance(part, QuadMesh) or not isinstance(part, Collection):
            cells: Any = np.ma.atleast_2d(part.get_array())
            for (row, column), value in np.ma.ndenumerate(cells):
                half = 0.5 if isinstance(part, QuadMesh) else 0.0
                yield {"series": "", "kind": "cell", "x": _at(axis.xaxis, column + half, 0.01),
                       "y": _at(axis.yaxis, row + half, 0.01), "value": float(value)}  # fmt: skip
        elif isinstance(part, PathCollection):
            for x, y in np.asarray(part.get_offsets()):
                yield {"series": _series(part, names), "kind": "dot", "x": float(x), "y": float(y)}
        elif isinstance(part, PolyCollection):
            named = _series(part, names)
            for path in part.get_paths():
                corners = path.vertices
                for x in np.unique(corners[:, 0]):
                    ys = corners[corners[:, 0] == x, 1]
                    yield {"series": named, "kind": "area", "x": float(x), "low": ys.min(),
                           "high": ys.max()}  # fmt: skip
    for table in axis.tables:
        for (row, column), cell in sorted(table.get_celld().items()):
            text = cell.get_text().get_text()
            yield {"series": "", "kind": "cell", "x": column, "y": row, "value": text}
    if not (axis.lines or axis.collections or axis.containers or axis.images or axis.tables):
        for note in axis.texts:
            x, y = note.get_position()
            said = note.get_text().replace("\n", " ")
            yield {"series": said, "kind": "text", "x": float(x), "y": float(y)}
