"""Means with 95 % intervals: the percentile bootstrap over prompts, which are clusters of samples.

Where every sample says the same the bootstrap knows no doubt; there the interval is Wilson's.

accuracy, low, high = intervals.bootstrap(frame, "correct")
intervals.percent((0.9, 0.85, 0.95))  # "90.0% [85.0%, 95.0%]"
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from katlab import UserError


def bootstrap(
    frame: pd.DataFrame, column: str, n: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of a column with its 95 % interval, resampling prompts (clusters of samples) n times.

    Prompts are told apart by `id`; unscorable samples (None) are left out. The interval is the
    percentile bootstrap's; where all samples are 0, or all are 1, it is Wilson's over the prompts.
    """
    sums, counts = _clusters(frame, column)
    if not sums.any() or (sums == counts).all():
        right = len(sums) if sums.any() else 0
        ends = binomtest(right, len(sums)).proportion_ci(method="wilson")
        return float(bool(right)), float(ends.low), float(ends.high)
    weights = _weights(len(sums), n, seed)  # (n, prompts)
    drawn = weights @ sums / (weights @ counts)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(sums.sum() / counts.sum()), float(low), float(high)


def paired_difference(
    a: pd.DataFrame,
    b: pd.DataFrame,
    column: str,
    relative: bool = False,
) -> tuple[float, float, float]:
    """Mean of `column` in `a` minus that in `b`, with its 95 % interval over their shared prompts.

    Both sides of a draw take the same prompts, so what the prompts have in common cancels.
    `relative` divides the difference by the mean in `b`.
    """
    shared = sorted(_scored(a, column) & _scored(b, column))
    if not shared:
        raise UserError(f"The two frames share no prompt with a {column}; sample the same rows.")
    sums_a, counts_a = _clusters(a[a["id"].isin(shared)], column)
    sums_b, counts_b = _clusters(b[b["id"].isin(shared)], column)
    # The first row is the sample itself, the others its resamples.
    weights = np.vstack([np.ones(len(shared), dtype=int), _weights(len(shared))])
    mean_a, mean_b = (
        weights @ sums_a / (weights @ counts_a),
        weights @ sums_b / (weights @ counts_b),
    )
    drawn = (mean_a - mean_b) / (mean_b if relative else 1)
    low, high = np.quantile(drawn[1:], [0.025, 0.975])
    return float(drawn[0]), float(low), float(high)


def difference(
    a: pd.DataFrame, b: pd.DataFrame, column: str, relative: bool = False
) -> tuple[float, float, float]:
    """Mean of `column` in `a` minus that in `b` where they share no prompts, with its interval."""
    drawn = []
    for seed, frame in enumerate((a, b)):
        sums, counts = _clusters(frame, column)
        weights = np.vstack([np.ones(len(sums), dtype=int), _weights(len(sums), seed=seed)])
        drawn.append(weights @ sums / (weights @ counts))
    found = (drawn[0] - drawn[1]) / (drawn[1] if relative else 1)
    low, high = np.quantile(found[1:], [0.025, 0.975])
    return float(found[0]), float(low), float(high)


def percent(interval: Sequence[float], form: str = ".1%") -> str:
    """A share or a relative change, (mean, low, high), as per cent in a format like "+.0%"."""
    mean, low, high = (format(x, form) for x in interval)
    return f"{mean} [{low}, {high}]"


def points(interval: Sequence[float]) -> str:
    """A difference of two shares, (mean, low, high), as percentage points with their sign."""
    mean, low, high = (f"{100 * x:+.1f}" for x in interval)
    return f"{mean} points [{low}, {high}]"


def _scored(frame: pd.DataFrame, column: str) -> set:
    return set(frame.loc[frame[column].notna(), "id"])


def _clusters(frame: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Sum and count of a column in each cluster, clusters in sorted order, None left out."""
    values = frame[column].astype(float)
    grouped = values[values.notna()].groupby(frame["id"], sort=True)
    if not len(grouped):
        raise UserError(f"No row has a {column}; nothing can be averaged.")
    return grouped.sum().to_numpy(), grouped.count().to_numpy()


def _weights(clusters: int, n: int = 2000, seed: int = 0) -> np.ndarray:
    """How often each cluster is drawn in each of n resamples, (n, clusters)."""
    return np.random.default_rng(seed).multinomial(clusters, np.full(clusters, 1 / clusters), n)
