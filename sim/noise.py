"""Sensor noise from one 64-bit stream per environment: row i draws the same whatever the batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnd_agv._jit import njit

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)
_LOW = np.uint64(0xFFFF)
_S16, _S27, _S30, _S31, _S32, _S48 = (np.uint64(k) for k in (16, 27, 30, 31, 32, 48))


@njit(cache=True)
def scan_noise(
    ranges: NDArray[Any], stream: NDArray[np.uint64], sigma: NDArray[Any], dropout: NDArray[Any],
    max_range: float,
) -> None:  # fmt: skip
    """Add range noise and drop beams, in place.

    Args:
        ranges: (N, B) m. A beam at max_range hit nothing and gets no noise. Dropped beams read
            max_range.
        stream: (N,) uint64 state of a splitmix64 generator (Steele 2014), advanced.
        sigma: (N,) standard deviation, m (sum of four 16-bit uniforms, so within 3.46 sigma).
        dropout: (N,) share of dropped beams.
    """
    for i in range(ranges.shape[0]):
        state = stream[i]
        if sigma[i] == 0 and dropout[i] == 0:
            stream[i] = state + _GOLDEN * np.uint64(ranges.shape[1])
            continue
        scale = sigma[i] * np.sqrt(3.0) / 65535.0
        for b in range(ranges.shape[1]):
            state += _GOLDEN
            z = state
            z = (z ^ (z >> _S30)) * _MIX1
            z = (z ^ (z >> _S27)) * _MIX2
            z = z ^ (z >> _S31)
            if ranges[i, b] >= max_range:
                continue
            if dropout[i] > 0 and (z & _LOW) < dropout[i] * 65536.0:
                ranges[i, b] = max_range
                continue
            z2 = (z * _MIX1) ^ (z >> _S32)
            total = (
                float(z2 & _LOW) + float((z2 >> _S16) & _LOW)
                + float((z2 >> _S32) & _LOW) + float(z2 >> _S48)
            )  # fmt: skip
            noisy = ranges[i, b] + scale * (total - 2.0 * 65535.0)
            ranges[i, b] = min(max(noisy, 0.0), max_range)
        stream[i] = state
