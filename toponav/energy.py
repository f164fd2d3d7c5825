r"""What driving costs, learned while driving: a line through measured energies, from physics on.

.. math:: E = \theta \cdot (L, \Delta h_+, \Delta h_-, \sigma L, |\Delta\psi|)

with the length L of a piece of way, the climb and the descent on it, the roughness sigma of its
ground and the angle it turns by. Before anything is measured, theta is that of
:math:`m g (c_{rr} \cos + \sin) / \eta` on an even slope; then the mean of a Bayesian linear
regression (Bishop 2006, eq. 3.50 to 3.51) with that prior.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

GRAVITY = 9.81
FEATURES = ("length", "climb", "descent", "rough", "turn")
"""m, m, m, m^2 and rad."""


@dataclass(frozen=True)
class EnergyConfig:
    """The prior: what one knows of the robot before it has driven."""

    mass_kg: float = 18.4
    rolling: float = 0.056
    """Coefficient of rolling resistance on even ground."""
    efficiency: float = 1.0
    """Work at the wheels over energy that is counted."""
    recovered: float = 0.4
    """Share of a descent's work that saves rolling work; a brake keeps none of the rest."""
    rough_j_per_m2: float = 80.0
    """Per metre of way and metre of roughness."""
    turn_j_per_rad: float = 30.0
    """A skid steer scrubs its tyres sideways."""
    doubt: tuple[float, float, float, float, float] = (0.3, 0.1, 0.3, 0.7, 0.3)
    """Standard deviations of the five coefficients, as shares of their means."""
    noise_j: float = 6.0
    """Standard deviation of a measured energy from the line."""
    least: float = 0.1
    """No piece costs less than this share of its length on even ground."""

    def __post_init__(self) -> None:
        for name in ("mass_kg", "rolling", "efficiency", "rough_j_per_m2", "turn_j_per_rad",
                     "noise_j"):  # fmt: skip
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        if min(self.doubt) <= 0 or not (0 < self.recovered <= 1 and 0 < self.least <= 1):
            raise ValueError(f"doubt > 0, recovered and least in (0, 1] wanted, got {self}")


class EnergyModel:
    """Energy of a piece of way, J."""

    def __init__(self, config: EnergyConfig | None = None) -> None:
        self.config = c = config or EnergyConfig()
        weight = c.mass_kg * GRAVITY / c.efficiency
        prior = np.array([weight * c.rolling, weight, -weight * c.recovered, c.rough_j_per_m2,
                          c.turn_j_per_rad])  # fmt: skip
        precision = np.diag((np.abs(prior) * c.doubt) ** -2.0)
        self._precision, self._pull = precision, precision @ prior
        self.samples = 0
        """Pieces learned from."""
        self._solve()

    def learn(self, features: ArrayLike, energy_j: float) -> None:
        """Enter what one piece of way took.

        Args:
            features: (5,) see :data:`FEATURES`.
            energy_j: measured.

        Raises:
            ValueError: not 5 finite features, or an energy that is not finite and >= 0.
        """
        phi = np.asarray(features, np.float64)
        if phi.shape != (len(FEATURES),) or not np.isfinite(phi).all():
            raise ValueError(f"features must be {len(FEATURES)} finite numbers, got {phi}")
        if not 0 <= energy_j < np.inf:
            raise ValueError(f"energy_j must be finite and >= 0, got {energy_j}")
        beta = self.config.noise_j**-2.0
        self._precision = self._precision + beta * np.outer(phi, phi)
        self._pull = self._pull + beta * energy_j * phi
        self.samples += 1
        self._solve()

    def _solve(self) -> None:
        theta = np.linalg.solve(self._precision, self._pull)
        theta[[0, 1, 3, 4]] = np.maximum(theta[[0, 1, 3, 4]], (1.0, 0.0, 0.0, 0.0))
        theta[2] = min(theta[2], 0.0)
        self.theta: NDArray[np.float64] = theta
        """(5,) J per unit of each feature; nothing but a descent saves anything."""

    def energy(self, features: ArrayLike) -> NDArray[np.float64]:
        """(...) J of pieces of way with features (..., 5)."""
        phi = np.asarray(features, np.float64)
        floor = self.config.least * self.theta[0] * phi[..., 0]
        return np.asarray(np.maximum(phi @ self.theta, floor))
