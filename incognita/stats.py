"""Few seeds (Agarwal et al. 2021, arXiv:2108.13264): IQM, bootstrap intervals, ratios, rates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Statistic = Callable[[NDArray[np.float64], int], Any]


def iqm(values: ArrayLike, axis: int = 0) -> Any:
    """Interquartile mean: mean of what is left without the lowest and highest n // 4 values.

    As in the paper's code, where n is not a multiple of 4 fewer values are dropped, not more.

    Args:
        values: seeds along ``axis``, finite. A run that never got there enters with the limit it
            was given, which makes its IQM a lower bound.

    Raises:
        ValueError: no values, or some are not finite.
    """
    rows = np.sort(_finite(values, "values"), axis=axis)
    n = rows.shape[axis]
    middle = np.take(rows, np.arange(n // 4, n - n // 4), axis=axis)
    return middle.mean(axis=axis)


def bootstrap_interval(
    values: ArrayLike,
    statistic: Statistic = iqm,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[Any, Any]:
    """Percentile bootstrap interval of a statistic over the seeds.

    Args:
        values: (S, ...) with one row per seed; rows are drawn whole, so that (S, T) learning
            curves give a band over T.
        statistic: called with (resamples, S, ...) and axis 1.
        level: share that the interval holds.

    Returns:
        Lower and upper end, each of shape (...).

    Raises:
        ValueError: no values, some not finite, or level not in (0, 1).
    """
    rows = _finite(values, "values")
    draws = _draws(rows, statistic, resamples, np.random.default_rng(seed))
    return _ends(draws, level)


def ratio_of_iqms(
    numerator: ArrayLike,
    denominator: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """IQM(numerator) / IQM(denominator) with its interval; the two are drawn independently.

    Args:
        numerator: (S,) of one method, say steps to 80 % success of plain PPO.
        denominator: (S',) of the other, all > 0.

    Returns:
        (ratio, lower end, upper end).

    Raises:
        ValueError: no values, some not finite, or a denominator that is not > 0.
    """
    top, bottom = _finite(numerator, "numerator"), _finite(denominator, "denominator")
    if top.ndim != 1 or bottom.ndim != 1 or (bottom <= 0).any():
        raise ValueError(f"want two lists of numbers, the second > 0, got {top} and {bottom}")
    rng = np.random.default_rng(seed)
    draws = _draws(top, iqm, resamples, rng) / _draws(bottom, iqm, resamples, rng)
    low, high = _ends(draws, level)
    return float(iqm(top) / iqm(bottom)), float(low), float(high)


def _draws(
    rows: NDArray[np.float64], statistic: Statistic, resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    if resamples < 1:
        raise ValueError(f"resamples must be >= 1, got {resamples}")
    picks = rng.integers(0, len(rows), (resamples, len(rows)))
    return np.asarray(statistic(rows[picks], 1))


def _ends(draws: NDArray[np.float64], level: float) -> tuple[Any, Any]:
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def _finite(values: ArrayLike, name: str) -> NDArray[np.float64]:
    rows = np.asarray(values, np.float64)
    if rows.ndim == 0 or rows.size == 0 or not np.isfinite(rows).all():
        raise ValueError(f"{name} must be finite and not empty, got {rows}")
    return rows


def wilson(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Interval of a chance from ``successes`` of ``trials`` (Wilson 1927), 95 % by default.

    Raises:
        ValueError: no trials, or successes outside 0..trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"0 <= successes <= trials, trials >= 1, got {successes} of {trials}")
    p, w = successes / trials, z * z / trials
    half = z * math.sqrt(p * (1 - p) / trials + w / (4 * trials))
    low, high = ((p + w / 2 + sign * half) / (1 + w) for sign in (-1, 1))
    return max(low, 0.0), min(high, 1.0)


def share_interval(part: ArrayLike, whole: ArrayLike) -> tuple[float, float] | None:
    """95 % bootstrap interval of sum(part) / sum(whole), episodes drawn whole; None of nothing.

    Args:
        part, whole: (S,) counts of each episode, part <= whole.
    """
    pairs = np.stack([_finite(part, "part"), _finite(whole, "whole")], axis=1)
    if not pairs[:, 1].any():
        return None

    def share(rows: NDArray[np.float64], axis: int) -> Any:
        sums = rows.sum(axis=axis)
        return sums[:, 0] / np.maximum(sums[:, 1], 1)

    low, high = bootstrap_interval(pairs, share)
    return float(low), float(high)
