"""Means and differences of means over prompts and seeds, with 95 % intervals.

A draw takes seeds with replacement, and problems with replacement in each: both are clusters of
samples (prompts that differ in names alone are one problem, `cluster`). Two variants are paired by
seed and prompt where they answered the same ones, and what the prompts have in common cancels.
With few seeds the interval is too narrow: look at the spread.

Usage:  mean(variant, frames).interval;  difference(a, b, "correct", pick).prompts
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from katlab import intervals
from katlab.compare_runs.variants import Run, Variant

DRAWS = 2000
Pick = Callable[[pd.DataFrame], pd.DataFrame]  # the samples of a run that a figure is about


@dataclass(frozen=True)
class Estimate:
    """A mean or a difference with its 95 % interval, over how many prompts, paired or not.

    `spread` is the least and the largest value of a seed.
    """

    value: float
    low: float
    high: float
    prompts: int
    spread: tuple[float, float]
    paired: bool = False

    @property
    def apart(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def mean(variant: Variant, column: str, pick: Pick) -> Estimate | None:
    """The mean of a column over a variant's runs; None where a run has no such samples."""
    return over([pick(run.samples) for run in variant.runs], column)


def over(frames: Sequence[pd.DataFrame], column: str) -> Estimate | None:
    """The mean of a column over the samples of each seed; None where one has no such samples."""
    found = [_table([frame], column) for frame in frames]
    if not all(len(sums) for sums, _ in found):
        return None
    drawn = np.hstack([_draws(*one, seed=i) for i, one in enumerate(found)])  # (1 + draws, runs)
    made = _estimate(drawn, sum(len(_scored([frame], column)) for frame in frames))
    if made.low < made.high:
        return made
    # Every sample says the same, where the bootstrap knows no doubt.
    _, low, high = intervals.bootstrap(joined(frames), column)
    return replace(made, low=low, high=high)


def joined(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The samples of all seeds as one table, in which prompts of two seeds are two."""
    keys = [name for name in ("id", "cluster") if name in frames[0]]
    own = [frame.assign(**{k: f"{i}/" + frame[k] for k in keys}) for i, frame in enumerate(frames)]
    return pd.concat(own, ignore_index=True)


def changes(
    pairs: Sequence[tuple[pd.DataFrame, pd.DataFrame]], column: str, relative: bool = False
) -> np.ndarray:
    """Draws of the mean in the first of each pair minus that in the second, (1 + draws,).

    A pair per seed, paired by prompt; the first draw is the sample. `relative` divides by the
    second mean.
    """
    drawn = []
    for i, pair in enumerate(pairs):
        means = _draws(*_table(pair, column), seed=i)
        apart = means[:, :1] - means[:, 1:]
        drawn.append(apart / means[:, 1:] if relative else apart)
    return _over_seeds(np.hstack(drawn))


def difference(a: Variant, b: Variant, column: str, pick: Pick) -> Estimate | None:
    """The mean of `b` minus that of `a`, over the prompts that both answered if there are any."""
    whole = mean(a, column, pick), mean(b, column, pick)
    if whole[0] is None or whole[1] is None:
        return None
    found = []
    for one, other in matched(a, b):
        frames = [pick(one.samples), pick(other.samples)]
        same = _same_prompts(one, other)
        shared = _scored(frames, column) & same
        if shared:
            found.append([frame[frame["id"].isin(shared)] for frame in frames])
    if found:
        both = [_draws(*_table(pair, column), seed=i) for i, pair in enumerate(found)]
        drawn = np.hstack([one[:, 1:] - one[:, :1] for one in both])
        return _estimate(drawn, sum(pair[0]["id"].nunique() for pair in found), paired=True)
    before, after = (_over_seeds(side, seed=i) for i, side in enumerate(_sides(a, b, column, pick)))
    drawn = (after - before)[:, None]
    return _estimate(drawn, min(one.prompts for one in whole))


def within(variant: Variant, column: str, before: Pick, after: Pick) -> Estimate | None:
    """The mean in `after` minus that in `before` of the same runs, paired by problem."""
    pairs = [(before(run.samples), after(run.samples)) for run in variant.runs]
    tables = [_table(pair, column) for pair in pairs]
    if not all(len(sums) for sums, _ in tables):
        return None
    both = [_draws(*table, seed=i) for i, table in enumerate(tables)]
    drawn = np.hstack([one[:, 1:] - one[:, :1] for one in both])
    return _estimate(drawn, sum(len(_scored(pair, column)) for pair in pairs), paired=True)


def _sides(a: Variant, b: Variant, column: str, pick: Pick) -> list[np.ndarray]:
    """The draws of both variants, (1 + draws, runs) each, all independent of each other."""
    tables = [[_table([pick(run.samples)], column) for run in one.runs] for one in (a, b)]
    first = len(a.runs)
    return [
        np.hstack([_draws(*one, seed=first * side + i) for i, one in enumerate(side_tables)])
        for side, side_tables in enumerate(tables)
    ]


def matched(a: Variant, b: Variant) -> list[tuple[Run, Run]]:
    """Runs of the same seed; two single runs are matched whatever their seeds."""
    if len(a.runs) == len(b.runs) == 1:
        return [(a.runs[0], b.runs[0])]
    by_seed = dict(zip(b.seeds, b.runs, strict=True))
    return [(run, by_seed[run.seed]) for run in a.runs if run.seed in by_seed]


def _same_prompts(a: Run, b: Run) -> set[str]:
    """Ids that both runs answered; one whose text is known to differ is another prompt."""
    shared = set(a.samples["id"]) & set(b.samples["id"])
    return {i for i in shared if i not in a.asked or i not in b.asked or a.asked[i] == b.asked[i]}


def _table(frames: Sequence[pd.DataFrame], column: str) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts of a column, (problems, frames), of the problems scored in every frame."""
    sums, counts = [], []
    for frame in frames:
        values = frame[column].astype(float) if column in frame else pd.Series(dtype=float)
        by = frame["cluster"] if "cluster" in frame else frame["id"]
        grouped = values[values.notna()].groupby(by, sort=True)
        sums.append(grouped.sum())
        counts.append(grouped.count())
    joined = [pd.concat(side, axis=1, join="inner").sort_index() for side in (sums, counts)]
    return joined[0].to_numpy(dtype=float), joined[1].to_numpy(dtype=float)


def _scored(frames: Sequence[pd.DataFrame], column: str) -> set[str]:
    """The prompts that could be scored in every frame."""
    each = (set(f.loc[f[column].notna(), "id"]) if column in f else set() for f in frames)
    return set.intersection(*each)


def _draws(sums: np.ndarray, counts: np.ndarray, seed: int = 0) -> np.ndarray:
    """Means of each frame over resamples of the problems, (1 + draws, frames); first the sample."""
    n = len(sums)
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), DRAWS)
    weights = np.vstack([np.ones(n, dtype=int), drawn])
    return weights @ sums / (weights @ counts)


def _over_seeds(drawn: np.ndarray, seed: int = 0) -> np.ndarray:
    """The mean over seeds (columns) of each draw, seeds taken with replacement; (1 + draws,)."""
    n = drawn.shape[1]
    if n == 1:
        return drawn[:, 0]
    taken = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), len(drawn) - 1)
    return (np.vstack([np.ones(n, dtype=int), taken]) * drawn).sum(axis=1) / n


def _estimate(drawn: np.ndarray, prompts: int, paired: bool = False) -> Estimate:
    pooled = _over_seeds(drawn)
    low, high = np.quantile(pooled[1:], [0.025, 0.975])
    spread = float(drawn[0].min()), float(drawn[0].max())
    return Estimate(float(pooled[0]), float(low), float(high), prompts, spread, paired)
