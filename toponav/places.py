"""Which rooms there are, of what type each may be, and what may be where nobody has looked yet.

Known floor is cut at doorways into places. What is believed of a place's type follows from what
stands in it, its shape and the rooms around it, under a :class:`toponav.prior.Prior`; from that
the chance that something of a wanted class waits behind a frontier. All of it is ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from . import geodesic
from .doorways import closed
from .frontier import Frontiers
from .occupancy import OccupancyMap
from .prior import Prior
from .semantics import Thing


@dataclass(frozen=True)
class PlacesConfig:
    """How places are told apart."""

    seen: float = 0.9
    """Chance that a thing on floor that was seen was noticed."""
    corridor: float = 0.15
    """Chance that a place of which nothing is known is a corridor."""
    long_m: float = 5.0
    """A place at least so long ..."""
    wide_m: float = 2.7
    """... and at most so wide is a corridor almost for sure."""
    unlike: float = 0.03
    """Chance of a corridor's shape for a room, and of a room's for a corridor."""
    near_m: float = 15.0
    """A room is of one zone with what is d of driving away with the chance exp(-d / near_m)."""
    ahead: float = 3.0
    """Rooms that one more frontier of a corridor leads to."""
    ahead_m: float = 4.0
    """How far beyond the frontier those are."""
    elsewhere: float = 0.4
    """Chance that those are of a zone of which the rooms around say nothing."""
    whatever: float = 0.003
    """Chance of anything behind a frontier that hides as much as ``area_m2`` of the corridor, less
    of one that hides less: the prior may be wrong."""
    least_m2: float = 1.5
    """A smaller place says nothing of its type by what is not in it."""

    def __post_init__(self) -> None:
        for name in ("seen", "corridor", "unlike", "whatever", "elsewhere"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be in (0, 1), got {getattr(self, name)}")
        for name in ("long_m", "wide_m", "near_m", "ahead_m"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        if self.ahead < 0 or self.least_m2 < 0:
            raise ValueError(f"ahead and least_m2 must be >= 0, got {self}")


@dataclass(eq=False)
class Place:
    """A piece of known floor between doorways."""

    at: tuple[int, int]
    """Cell (iy, ix) in the middle of its largest free disc."""
    area_m2: float
    long_m: float
    """How far it reaches along its longer side."""
    wide_m: float
    """Diameter of the largest free disc in it."""
    open: bool
    """Has it frontiers?"""
    has: NDArray[np.float64]
    """(C,) chance that a thing of each class has been seen in it."""
    like: NDArray[np.float64]
    """(T,) likelihood of each type, of this place alone."""
    p: NDArray[np.float64]
    """(T,) chance of each type, with what is around."""


class Places:
    """The places of one map.

    Args:
        prior: of buildings.
        known: the map.
        free: (H, W) free cells at the map's or a coarser resolution.
        doors: (n, 4) x, y, yaw, width of doorways, m and rad.
        things: seen so far, of the prior's classes.
        frontiers: of ``free``.
        config: how places are told apart.
    """

    def __init__(
        self, prior: Prior, known: OccupancyMap, free: NDArray[np.bool_],
        doors: NDArray[np.float64], things: Sequence[Thing], frontiers: Frontiers,
        config: PlacesConfig | None = None,
    ) -> None:  # fmt: skip
        self.prior, self.config = prior, config or PlacesConfig()
        self.side = known.resolution * known.data.shape[0] / free.shape[0]
        self.origin = np.asarray(known.origin_w)
        parted = closed(free, known, doors)
        count, label, stats, centre = cv2.connectedComponentsWithStats(
            parted.astype(np.uint8), connectivity=4
        )
        self.label: NDArray[np.int32] = np.asarray(label, np.int32)
        """(H, W) number of each cell's place, 0 none."""
        self.at_frontier = self.label[frontiers.cell[:, 0], frontiers.cell[:, 1]]
        """(K,) place of each frontier, 0 where it lies in a doorway to the unknown."""
        clear = cv2.distanceTransform(free.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_3)
        seen = self._things(things, count)
        fringed = set(self.at_frontier.tolist())
        self.places: list[Place] = []
        for k in range(1, count):
            x, y, w, h, area = stats[k]
            inner = np.where(label[y : y + h, x : x + w] == k, clear[y : y + h, x : x + w], 0)
            j, i = np.unravel_index(int(inner.argmax()), inner.shape)
            self.places.append(Place(
                (int(y + j), int(x + i)), float(area) * self.side**2,
                self.side * float(max(w, h)), 2 * self.side * float(inner[j, i]), k in fringed,
                seen[k], np.ones(0), np.ones(0),
            ))  # fmt: skip
        for place in self.places:
            place.like = self._likelihood(place)
        self._said = self._speak()
        at = np.array([place.at for place in self.places], np.int64).reshape(-1, 2)
        self._same = self._near(free, at, np.concatenate([at, frontiers.cell]))
        for k, place in enumerate(self.places):
            self._same[k, k] = 0.0
            place.p = self._posterior(place, self._types(self._same[:, k]))
        self._rooms = [
            self._types(
                self._same[:, len(at) + k] * math.exp(-self.config.ahead_m / self.config.near_m)
            )
            for k in range(len(frontiers))
        ]

    def _things(self, things: Sequence[Thing], count: int) -> NDArray[np.float64]:
        """(count, C) chance that each place has a thing of each class, by what is seen of it."""
        none = np.ones((count, len(self.prior.classes)))
        height, width = self.label.shape
        reach = int(math.ceil(0.6 / self.side))
        for thing in things:
            if thing.count < 2:
                continue
            x, y = np.floor((thing.xy - self.origin) / self.side).astype(int)
            box = self.label[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
            near = np.bincount(box.ravel(), minlength=count)
            near[0] = 0
            if 0 <= x < width and 0 <= y < height and near.any():
                none[int(near.argmax())] *= 1 - thing.p
        return np.asarray(1 - none, np.float64)

    def _likelihood(self, place: Place) -> NDArray[np.float64]:
        """(T,) of what stands in a place and of its shape."""
        c, prior = self.config, self.prior
        share = np.minimum(place.area_m2 / prior.area_m2, 1.0)
        has = np.clip(prior.has, 0.01, 0.97)
        has[0] = np.clip(1 - np.exp(-prior.count[0] * place.area_m2 / prior.area_m2[0]), 0.01, 0.97)
        share[0] = 1.0
        absent = 1 - has * (c.seen * share[:, None] if place.area_m2 > c.least_m2 else 0.0)
        like = np.prod(place.has * has + (1 - place.has) * absent, axis=1)
        # the seen floor is at most the room's: an open place may still grow
        z = (math.log(max(place.area_m2, 0.1)) - np.log(prior.area_m2)) / prior.area_sigma
        grow = np.array([0.5 * math.erfc(v / math.sqrt(2)) for v in z])
        size = grow if place.open else np.exp(-0.5 * z**2) + 1e-3
        size[0] = c.unlike if place.wide_m > c.wide_m else 1.0
        if place.long_m >= c.long_m and place.wide_m <= c.wide_m:
            size[1:] *= c.unlike
        return np.asarray(like * np.maximum(size, 1e-6))

    def _posterior(self, place: Place, types: NDArray[np.float64]) -> NDArray[np.float64]:
        """(T,) chance of each type of a place that would be a room of ``types`` (T,)."""
        c = self.config
        before = (1 - c.corridor) * types
        before[0] = c.corridor
        p = before * place.like
        return np.asarray(p / p.sum())

    def _speak(self) -> NDArray[np.float64]:
        """(R, Z) likelihood of each zone for each place; ones where it says nothing."""
        prior, c = self.prior, self.config
        out = np.ones((len(self.places), len(prior.zones)))
        for k, place in enumerate(self.places):
            if place.area_m2 >= c.least_m2:
                hall = c.corridor * place.like[0]
                out[k] = hall + (1 - c.corridor) * prior.type_in_zone @ place.like
                out[k] /= max(out[k].max(), 1e-300)
        return out

    def _near(
        self, free: NDArray[np.bool_], at: NDArray[np.int64], to: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """(R, n) chance that each place is of one zone with each of (n, 2) cells."""
        out = np.zeros((len(at), len(to)))
        for k in range(len(at)):
            if np.ptp(self._said[k]) > 0.05:
                cost = geodesic.costs(free, (int(at[k, 0]), int(at[k, 1])))[to[:, 0], to[:, 1]]
                way = cost / geodesic.STRAIGHT * self.side
                out[k] = np.where(cost >= 0, np.exp(-way / self.config.near_m), 0.0)
        return out

    def _types(self, same: NDArray[np.float64]) -> NDArray[np.float64]:
        """(T,) chance of each type for an unseen room, by the zone that the rooms around speak for.

        P(z | all) ~ P(z) prod_r (s_r l_r(z) + (1 - s_r) sum_z' P(z') l_r(z')), with the chance s_r
        that place r is of the same zone and its likelihood l_r.

        Args:
            same: (R,) s_r.
        """
        other = (self._said @ self.prior.zone)[:, None]
        zone = self.prior.zone * np.prod(
            same[:, None] * self._said + (1 - same[:, None]) * other, axis=0
        )
        return np.asarray(zone / zone.sum() @ self.prior.type_in_zone)

    def chances(self, f: Frontiers, wanted: int) -> NDArray[np.float64]:
        """(K,) chance that something of a class waits behind each frontier.

        Behind a frontier of a room of type t lies at most the share u of it that is unseen (no
        more than the frontier's gain; frontiers of one room share what is unseen of it by their
        gains): has u / (1 - has (1 - u)), given that the class was not seen in the rest. A
        corridor goes on for its gain, and leads to ``ahead`` more rooms.

        Args:
            f: the frontiers that the places were made with.
            wanted: number of the class.
        """
        c, prior = self.config, self.prior
        has = np.clip(prior.has[:, wanted], 0.0, 0.97)
        gain_m2 = f.gain.astype(np.float64) * self.side**2
        of_place = np.bincount(self.at_frontier, gain_m2, minlength=len(self.places) + 1)
        out = np.zeros(len(f))
        for k in range(len(f)):
            number = int(self.at_frontier[k]) - 1
            place = self.places[number] if number >= 0 else None
            area = 0.0 if place is None else place.area_m2
            rooms = self._rooms[k]
            if place is None:
                p = (1 - c.corridor) * rooms
                p[0] = c.corridor
            else:
                p = place.p
            whole = np.maximum(prior.area_m2, 1.15 * area)
            mine = 1.0 if place is None else gain_m2[k] / max(of_place[number + 1], 1e-9)
            unseen = np.minimum((whole - area) * mine, gain_m2[k]) / whole
            behind = has * unseen / np.maximum(1 - has * c.seen * (1 - unseen), 1e-6)
            own = 1 - math.exp(-prior.count[0, wanted] * min(gain_m2[k] / prior.area_m2[0], 1.0))
            more = c.ahead * min(gain_m2[k] / prior.area_m2[0], 1.0)
            new = (1 - c.elsewhere) * rooms + c.elsewhere * prior.of_type
            behind[0] = 1 - (1 - own) * (1 - float(new @ has)) ** more
            hidden = min(gain_m2[k] / prior.area_m2[0], 1.0)
            out[k] = max(float(p @ behind), c.whatever * hidden)
        return out
