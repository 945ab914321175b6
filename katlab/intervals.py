"""Means with intervals: the percentile bootstrap over problems, which are clusters of samples.

Samples of one problem are not independent, and neither are two prompts that differ in a name: a
frame's column `cluster`, or `id` where it has none, says which samples stand and fall together.
Where nearly all samples say the same a bootstrap knows no doubt; there Wilson's interval stands
for a share (Wilson 1927) and Agresti and Min's for a paired difference of shares (2005), both over
clusters.

    accuracy, low, high = intervals.bootstrap(frame, "correct")
    intervals.percent((0.9, 0.85, 0.95))  # "90.0% [85.0%, 95.0%]"
"""

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from katlab import UserError

RARE = 5  # with fewer successes or failures than this a share's interval is Wilson's


def bootstrap(
    frame: pd.DataFrame, column: str, n: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of a column with its 95 % interval, resampling clusters of samples n times.

    Unscorable samples (None) are left out. A column of 0 and 1 with fewer than `RARE` clusters'
    worth of either has Wilson's interval, which is never of width 0.
    """
    sums, counts, binary = _clusters(frame, column)
    mean, size = float(sums.sum() / counts.sum()), len(sums)
    if binary and min(mean, 1 - mean) * size < RARE:
        return mean, *wilson(mean * size, size)
    weights = _weights(size, n, seed)  # (n, clusters)
    low, high = np.quantile(weights @ sums / (weights @ counts), [0.025, 0.975])
    return mean, float(low), float(high)


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; between two whole numbers of successes, interpolated."""
    below, above = int(np.floor(successes)), int(np.ceil(successes))
    ends = [binomtest(k, n).proportion_ci(method="wilson") for k in (below, above)]
    low, high = (
        float(np.interp(successes, [below, above], side)) if below < above else float(side[0])
        for side in ([end.low for end in ends], [end.high for end in ends])
    )
    return low, high


def paired_difference(
    a: pd.DataFrame, b: pd.DataFrame, column: str, relative: bool = False
) -> tuple[float, float, float]:
    """Mean of `column` in `a` minus that in `b`, with its 95 % interval over their shared prompts.

    Both sides of a draw take the same clusters, so what the prompts have in common cancels.
    `relative` divides the difference by the mean in `b`.
    """
    drawn, spread = _paired(a, b, column, relative)
    mean = float(drawn[0])
    if spread:
        return mean, _inside(mean - 1.96 * spread), _inside(mean + 1.96 * spread)
    low, high = np.quantile(drawn[1:], [0.025, 0.975])
    return mean, float(low), float(high)


class Margin(NamedTuple):
    """A difference held against a margin: its mean, and the end that decides (one-sided, 95 %).

    `power` is the probability that the claim holds if the true difference is 0, `n` the prompts.
    """

    mean: float
    low: float
    power: float
    held: bool
    n: int

    def __str__(self) -> str:
        return (
            f"{100 * self.mean:+.1f} points, at least {100 * self.low:+.1f} (95 %, one-sided); "
            f"power {self.power:.0%} at no difference, n = {self.n}"
        )


def no_worse(a: pd.DataFrame, b: pd.DataFrame, column: str, margin: float) -> Margin:
    """Whether the mean in `a` is above that in `b` less `margin`, paired over their shared prompts.

    Non-inferiority: it holds if the one-sided 95 % bound of the difference is not below `-margin`,
    so that few prompts hold nothing, where "not significantly worse" gets easier with fewer.
    """
    drawn, spread = _paired(a, b, column)
    one_sided = NormalDist().inv_cdf(0.95)
    error = spread or float(drawn[1:].std())
    low = drawn[0] - one_sided * error if spread else float(np.quantile(drawn[1:], 0.05))
    power = NormalDist().cdf(margin / error - one_sided) if error else 1.0
    n = len(_scored(a, column) & _scored(b, column))
    return Margin(float(drawn[0]), float(low), power, bool(low >= -margin), n)


def difference(
    a: pd.DataFrame, b: pd.DataFrame, column: str, relative: bool = False
) -> tuple[float, float, float]:
    """Mean of `column` in `a` minus that in `b` where they share no prompts, with its interval."""
    drawn = []
    for seed, frame in enumerate((a, b)):
        sums, counts, _ = _clusters(frame, column)
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


def _inside(share: float) -> float:
    return float(min(1.0, max(-1.0, share)))


def _paired(
    a: pd.DataFrame, b: pd.DataFrame, column: str, relative: bool = False
) -> tuple[np.ndarray, float]:
    """The difference and its resamples, (1 + 2000,); Agresti and Min's error where they need it.

    That is where both sides are 0 and 1 and fewer than `RARE` clusters differ: else 0.
    """
    shared = sorted(_scored(a, column) & _scored(b, column))
    if not shared:
        raise UserError(f"The two frames share no prompt with a {column}; sample the same rows.")
    sums_a, counts_a, binary_a = _clusters(a[a["id"].isin(shared)], column)
    sums_b, counts_b, binary_b = _clusters(b[b["id"].isin(shared)], column)
    size = len(sums_a)
    # The first row is the sample itself, the others its resamples.
    weights = np.vstack([np.ones(size, dtype=int), _weights(size)])
    means = [weights @ s / (weights @ c) for s, c in ((sums_a, counts_a), (sums_b, counts_b))]
    drawn = (means[0] - means[1]) / (means[1] if relative else 1)
    apart = sums_a / counts_a - sums_b / counts_b
    if relative or not (binary_a and binary_b) or np.count_nonzero(apart) >= RARE:
        return drawn, 0.0
    better, worse = apart[apart > 0].sum() + 0.5, -apart[apart < 0].sum() + 0.5
    variance = better + worse - (better - worse) ** 2 / (size + 2)
    return drawn, float(np.sqrt(variance)) / (size + 2)


def _scored(frame: pd.DataFrame, column: str) -> set:
    return set(frame.loc[frame[column].notna(), "id"])


def _clusters(frame: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray, bool]:
    """Sum and count of a column in each cluster, clusters in sorted order, None left out.

    Last, whether the column is of 0 and 1 alone.
    """
    values = frame[column].astype(float)
    by = frame["cluster"] if "cluster" in frame else frame["id"]
    grouped = values[values.notna()].groupby(by, sort=True)
    if not len(grouped):
        raise UserError(f"No row has a {column}; nothing can be averaged.")
    binary = bool(values.dropna().isin((0, 1)).all())
    return grouped.sum().to_numpy(), grouped.count().to_numpy(), binary


def _weights(clusters: int, n: int = 2000, seed: int = 0) -> np.ndarray:
    """How often each cluster is drawn in each of n resamples, (n, clusters)."""
    return np.random.default_rng(seed).multinomial(clusters, np.full(clusters, 1 / clusters), n)
