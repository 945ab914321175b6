"""The figure of stage 08."""

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from katlab.plots import ANY, JUDGE


def by_depth(table: pd.DataFrame, reported: int = 80) -> Figure:
    """Parameters, FLOPs and memory by number of layers; the report's depth is marked."""
    shown = {
        "parameters": ("parameters", "billions", 1e9),
        "training_flops_per_token": ("training FLOPs per token", "GFLOP", 1e9),
        "states_gib": ("training states per GPU", "GiB", 1),
        "sequences": ("sequences that fit beside them", "count", 1),
    }
    figure, axes = plt.subplots(1, len(shown), figsize=(13.2, 3.2), layout="constrained")
    figure.suptitle("What depth costs at the same width (diamond: the report's 80 layers)")
    for axis, (column, (title, unit, scale)) in zip(axes, shown.items(), strict=True):
        axis.plot(table.layers, table[column] / scale, marker="o", color=ANY)
        at = table[table.layers == reported]
        axis.plot(at.layers, at[column] / scale, "D", color=JUDGE, ms=8)
        axis.set(title=title, xlabel="layers", ylabel=unit)
        axis.title.set_fontsize(9)
    return figure
