"""What figures of several stages share: one meaning per colour, and means by difficulty.

plots.by_difficulty(axis, frame, "thinks", color=plots.ON, label="told on")
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from katlab.intervals import bootstrap

ON, OFF = "#2563eb", "#16a34a"  # think-on blue, think-off green, as the report draws them
JUDGE, TOOL = "#d97706", "#0d9488"
FINAL, GREY = "#7c3aed", "#94a3b8"  # the final model, and what it is compared with


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
