"""What figures of several stages share: one meaning per colour, and means with their intervals.

plots.by_difficulty(axis, frame, "thinks", color=plots.ON, label="told on")
plots.bars(axis, frame, "correct", "difficulty", hue="arm", colours={"on": plots.ON})

Every colour has a contrast of 3 : 1 or more on a white ground and on a dark one.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from katlab.intervals import bootstrap

ON, OFF = (
    "#2563eb",
    "#16a34a",
)  # the modes: think-on blue, think-off green, as the report draws them
JUDGE, TOOL, ANY = "#d97706", "#0d9488", "#64748b"  # ANY: whatever the mode, and every control
INK = "#334155"  # turns with the page's ground
START, FINAL = "#0891b2", "#7c3aed"  # the student before Step-SRPO and after it
KD, DISTILLED, TEACHER = "#b45309", "#db2777", "#a16207"
MODES = {"on": ON, "off": OFF}


def by_difficulty(axis: Axes, frame: pd.DataFrame, column: str, **style) -> None:
    """Mean of `column` at each difficulty with its 95 % interval over prompts, as one line.

    `frame` has columns id, difficulty and `column`; `style` goes to matplotlib's errorbar.
    """
    points = {d: bootstrap(part, column) for d, part in frame.groupby("difficulty")}
    mean, low, high = np.array(list(points.values())).T
    axis.errorbar(
        list(points), mean, yerr=[mean - low, high - mean], marker="o", capsize=3, **style
    )
    axis.set(xlabel="difficulty", xticks=sorted(points))


def bars(
    axis: Axes,
    frame: pd.DataFrame,
    column: str,
    x: str,
    hue: str = "",
    colours: Mapping[str, str] | None = None,
    color: str = ANY,
) -> None:
    """Mean of `column` by `x`, a bar per value of `hue` in its colour, 95 % intervals over prompts.

    `frame` has columns id, `column`, `x` and `hue`; without a hue all bars are of one `color`.
    """
    places = {value: place for place, value in enumerate(sorted(frame[x].unique()))}
    kinds = colours or {"": color}
    width = 0.8 / len(kinds)
    for turn, (kind, own) in enumerate(kinds.items()):
        part = frame[frame[hue] == kind] if hue else frame
        means = {value: bootstrap(rows, column) for value, rows in part.groupby(x)}
        if not means:
            continue
        mean, low, high = np.array(list(means.values())).T
        at = [places[value] + (turn - (len(kinds) - 1) / 2) * width for value in means]
        axis.bar(at, mean, 0.94 * width, color=own, label=kind or None)
        span = [mean - low, high - mean]
        axis.errorbar(at, mean, yerr=span, fmt="none", ecolor=INK, lw=1.2, capsize=2)
    axis.set_xticks(list(places.values()), [str(value) for value in places])
    axis.set_xlabel(x)


def curve(axis: Axes, frame: pd.DataFrame, column: str, x: str, color: object, label: str) -> None:
    """Mean of `column` along `x` as a line with its 95 % interval over prompts as a band."""
    means = {value: bootstrap(rows, column) for value, rows in frame.groupby(x)}
    mean, low, high = np.array(list(means.values())).T
    axis.plot(list(means), mean, color=color, marker="o", ms=3, label=label)
    axis.fill_between(list(means), low, high, color=color, alpha=0.18, lw=0)


def legend(axis: Axes, title: str = "") -> None:
    """The legend beside the axes, where it lies on nothing; none where nothing is drawn."""
    if axis.get_legend_handles_labels()[0]:
        axis.legend(title=title or None, loc="upper left", bbox_to_anchor=(1, 1))
