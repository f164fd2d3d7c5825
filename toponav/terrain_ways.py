"""Cheapest ways over sensed ground: a lattice of places and headings (Pivtoraiko 2009), Dijkstra.

A move leads to one of the 16 nearest places that no other hides and costs what its weights say of
its length, climb, descent, roughness and, between moves, turn. Weights of (1, 0, 0, 0, 0) ask for
the shortest way, those of :class:`toponav.energy.EnergyModel` for the one of least energy. What is
too steep along or across a move, too rough, or too near to something upright, is closed to all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._jit import njit
from .elevation import Surface

_CLOSED, _KNOWN, _UNKNOWN = 0, 1, 2
_MOVES = np.array([
    (0, 1), (1, 2), (1, 1), (2, 1), (1, 0), (2, -1), (1, -1), (1, -2),
    (0, -1), (-1, -2), (-1, -1), (-2, -1), (-1, 0), (-2, 1), (-1, 1), (-1, 2),
])  # fmt: skip
"""(16, 2) steps in y and x, counter-clockwise from the x axis."""
_HEADINGS = np.arctan2(_MOVES[:, 0], _MOVES[:, 1]) % (2 * np.pi)
QUANTA = 50
"""Costs are whole numbers in the search: so many to the cheapest flat straight step."""


@dataclass(frozen=True)
class WayConfig:
    """Where a robot may go. The numbers are for a Jackal-class skid steer, and our own."""

    stride: int = 2
    """Cells of the map between two places."""
    clearance_m: float = 0.5
    """From the middle of the robot to something upright."""
    pitch_max: float = 0.45
    """Steepest rise over run along a move, up or down."""
    roll_max: float = 0.4
    """Steepest rise over run across a move."""
    rough_max: float = 0.15
    """Roughest ground, m."""
    free_m: float = 0.5
    """Around the robot nothing is closed: it stands there."""

    def __post_init__(self) -> None:
        for name in ("clearance_m", "pitch_max", "roll_max", "rough_max", "free_m"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        if self.stride < 1:
            raise ValueError(f"stride must be >= 1, got {self.stride}")


@dataclass(frozen=True)
class Way:
    """A way over the ground."""

    path_w: NDArray[np.float64]
    """(L, 2) from the robot on, m."""
    cost: float
    """In units of the weights."""
    complete: bool
    """It ends at the goal; otherwise as near to it as can be got."""


@dataclass(frozen=True)
class Weights:
    """What a move costs."""

    theta: NDArray[np.float64]
    """(5,) per :data:`toponav.energy.FEATURES`; that of length > 0."""
    least: float = 0.1
    """No move costs less than this share of its length on even ground."""
    unknown: float = 1.0
    """Cost of ground that was not seen, in that of even ground."""
    roll: float = 0.0
    """Share by which a move across the steepest allowed slope costs more; less the square of the
    slope less."""

    def __post_init__(self) -> None:
        theta = np.asarray(self.theta)
        if theta.shape != (5,) or not np.isfinite(theta).all() or theta[0] <= 0 or theta[4] < 0:
            raise ValueError(f"theta must be 5 numbers, the first > 0, the last >= 0, got {theta}")
        if not 0 < self.least <= 1 or self.roll < 0 or self.unknown <= 0:
            raise ValueError(f"least in (0, 1], unknown > 0 and roll >= 0 wanted, got {self}")


def shortest(turn_m: float = 0.02) -> Weights:
    """Length alone, and a turn by a radian counts as ``turn_m``: of equal ways the straightest."""
    return Weights(np.array([1.0, 0.0, 0.0, 0.0, turn_m]), 1.0)


def status(
    surface: Surface, bounds: ArrayLike, config: WayConfig, robot_w: ArrayLike | None = None
) -> NDArray[np.uint8]:
    """(H, W) 0 closed, 1 known ground, 2 unknown; before slopes are looked at.

    Args:
        bounds: xmin, ymin, xmax, ymax that the robot's middle must not leave, m.
        robot_w: (2,) where nothing is closed.
    """
    reach = int(np.ceil(config.clearance_m / surface.cell_m))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1] * surface.cell_m
    disc = (np.hypot(x, y) <= config.clearance_m).astype(np.uint8)
    closed = cv2.dilate(surface.stands.astype(np.uint8), disc) > 0
    rows, columns = surface.height.shape
    cx = surface.origin_w[0] + (np.arange(columns) + 0.5) * surface.cell_m
    cy = surface.origin_w[1] + (np.arange(rows)[:, None] + 0.5) * surface.cell_m
    x0, y0, x1, y1 = np.asarray(bounds, np.float64)
    closed |= (cx < x0) | (cx > x1) | (cy < y0) | (cy > y1)
    if robot_w is not None:
        rx, ry = np.asarray(robot_w, np.float64)[:2]
        closed &= np.hypot(cx - rx, cy - ry) > config.free_m
    out = np.where(surface.known, _KNOWN, _UNKNOWN)
    out[closed] = _CLOSED
    return np.asarray(out, np.uint8)


def moves(
    surface: Surface, open_: NDArray[np.uint8], weights: Weights, config: WayConfig,
    robot_w: ArrayLike | None = None,
) -> NDArray[np.float64]:  # fmt: skip
    """(16, h, w) cost of the moves from each place, inf where there is none.

    Args:
        open_: see :func:`status`.
        robot_w: (2,) around which slopes close nothing.
    """
    at = (-1e9, -1e9) if robot_w is None else surface.cell(robot_w)
    made: NDArray[np.float64] = _moves(
        surface.slope_x, surface.slope_y, surface.rough, open_, config.stride, surface.cell_m,
        np.asarray(weights.theta, np.float64), _limits(weights, config), float(at[0]), float(at[1]),
        config.free_m / surface.cell_m, _MOVES,
    )  # fmt: skip
    return made


@njit(cache=True, nogil=True)
def _moves(  # type: ignore[no-untyped-def]
    slope_x, slope_y, rough, open_, stride, cell, theta, limits, ry, rx, free, steps
):  # fmt: skip
    rows, columns = open_.shape
    height, width = rows // stride, columns // stride
    out = np.full((len(steps), height, width), np.inf)
    for k in range(len(steps)):
        dy, dx = steps[k, 0] * stride, steps[k, 1] * stride
        count = max(abs(dy), abs(dx))
        ds = math.hypot(dy, dx) / count * cell
        uy, ux = dy / math.hypot(dy, dx), dx / math.hypot(dy, dx)
        for cy in range(height):
            for cx in range(width):
                if not (0 <= cy + steps[k, 0] < height and 0 <= cx + steps[k, 1] < width):
                    continue
                y, x = cy * stride + stride // 2, cx * stride + stride // 2
                cost = 0.0 if open_[y, x] != 0 else np.inf
                for i in range(1, count + 1):
                    iy, ix = y + int(round(dy * i / count)), x + int(round(dx * i / count))
                    cost += ds * _price(
                        iy, ix, uy, ux, ry, rx, slope_x, slope_y, rough, open_, theta, limits, free
                    )
                    if cost == np.inf:
                        break
                out[k, cy, cx] = cost
    return out


def find(
    surface: Surface, bounds: ArrayLike, pose_w: ArrayLike, goal_w: ArrayLike, weights: Weights,
    config: WayConfig | None = None, old_w: NDArray[np.float64] | None = None, keep: float = 0.0,
) -> Way:  # fmt: skip
    """The cheapest way from a pose to a goal, or to the place nearest to the goal if none is.

    Args:
        surface: the ground; its cells must cover ``bounds``.
        bounds: xmin, ymin, xmax, ymax, m.
        pose_w: (3,) x, y, yaw, m and rad.
        goal_w: (2,) m.
        weights: what a move costs.
        old_w: (L, 2) the way that is being driven. What is left of it is kept if no other costs
            less by a share ``keep``: a robot that changes its mind turns for nothing.

    Raises:
        ValueError: the robot or the goal lies outside the map.
    """
    c = config or WayConfig()
    pose, goal = np.asarray(pose_w, np.float64), np.asarray(goal_w, np.float64)
    rows, columns = surface.height.shape
    for name, point in (("pose_w", pose[:2]), ("goal_w", goal[:2])):
        at = (point - surface.origin_w) / surface.cell_m
        if not ((at >= 0) & (at < (columns, rows))).all():
            raise ValueError(f"{name} must lie on the map, got {point}")
    open_ = status(surface, bounds, c, pose[:2])
    cost = moves(surface, open_, weights, c, pose[:2])
    quantum = float(weights.theta[0]) * c.stride * surface.cell_m / QUANTA
    whole = np.where(np.isfinite(cost), np.maximum(np.rint(cost / quantum), 1), -1)
    turn = np.diff(np.append(_HEADINGS, 2 * np.pi)) * float(weights.theta[4]) / quantum
    shape = cost.shape[1:]
    start, end = (_place(surface, p, c.stride, shape) for p in (pose[:2], goal))
    heading = int(np.argmin(np.abs((_HEADINGS - pose[2] + np.pi) % (2 * np.pi) - np.pi)))
    came, final, best = _search(
        whole.astype(np.int32).reshape(16, -1), np.rint(turn).astype(np.int32),
        _MOVES[:, 0] * shape[1] + _MOVES[:, 1], start, heading, end,
    )  # fmt: skip
    complete = final >= 0
    if not complete:
        final = _nearest_reached(came, shape, end)
    states = [final]
    while came[states[-1]] >= 0:
        states.append(int(came[states[-1]]))
    places = np.array(states[::-1]) % (shape[0] * shape[1])
    places = places[np.append(True, np.diff(places) != 0)]
    cells = np.stack(np.divmod(places, shape[1]), axis=1) * c.stride + c.stride // 2
    path = np.concatenate([pose[None, :2], surface.centre(cells)[1:]])
    if complete:
        path = np.concatenate([path[:-1] if len(path) > 1 else path, goal[None]])
    total = float(best) * quantum
    kept, exact = straighten(path, surface, open_, weights, c, pose)
    if np.isfinite(exact):
        path, total = kept, exact
    if old_w is not None and len(old_w) > 1:
        rest = ahead(old_w, pose[:2])
        rest, price = straighten(rest, surface, open_, weights, c, pose)
        ends = np.hypot(*(rest[-1] - path[-1])) < 1e-6
        if ends and price <= total * (1 + keep):
            path, total = rest, price
    return Way(path, total if complete else math.inf, complete)


def ahead(path_w: NDArray[np.float64], xy_w: NDArray[np.float64]) -> NDArray[np.float64]:
    """(L, 2) what is left of a way (at least 2 points) for a robot at (2,), from there on."""
    delta = np.diff(path_w, axis=0)
    square = np.maximum((delta**2).sum(axis=1), 1e-12)
    t = np.clip(((xy_w - path_w[:-1]) * delta).sum(axis=1) / square, 0, 1)
    foot = path_w[:-1] + t[:, None] * delta
    nearest = int(np.argmin(((foot - xy_w) ** 2).sum(axis=1)))
    return np.concatenate([xy_w[None], path_w[nearest + 1 :]])


def straighten(
    path_w: NDArray[np.float64], surface: Surface, open_: NDArray[np.uint8], weights: Weights,
    config: WayConfig, pose_w: ArrayLike,
) -> tuple[NDArray[np.float64], float]:  # fmt: skip
    """Leave out points of a way as long as it gets no dearer.

    A lattice knows 16 directions, the ground all of them. The cheapest way over some of the points
    in their order, each piece straight: a dynamic program over (last point, the one before is
    forgotten), turns priced at the points with the direction that is best into them.

    Returns:
        (M, 2) points, and what the way costs; inf if a piece of it is closed.
    """
    pose = np.asarray(pose_w, np.float64)
    kept, cost = _straighten(
        (path_w - surface.origin_w) / surface.cell_m, pose[2], surface.slope_x, surface.slope_y,
        surface.rough, open_, np.asarray(weights.theta, np.float64), _limits(weights, config),
        surface.cell_m, config.free_m / surface.cell_m,
    )  # fmt: skip
    return path_w[kept], float(cost)


def _limits(weights: Weights, config: WayConfig) -> NDArray[np.float64]:
    return np.array([config.pitch_max, config.roll_max, config.rough_max, weights.unknown,
                     weights.least, weights.roll])  # fmt: skip


@njit(cache=True, nogil=True)
def _price(iy, ix, uy, ux, ry, rx, slope_x, slope_y, rough, open_, theta, limits, free):  # type: ignore[no-untyped-def]
    """Cost of a metre in a direction at a cell, inf if it is closed."""
    pitch_max, roll_max, rough_max, unknown, least, roll_weight = limits
    if open_[iy, ix] == 0:
        return np.inf
    if open_[iy, ix] == 2:
        return theta[0] * unknown
    along = slope_x[iy, ix] * ux + slope_y[iy, ix] * uy
    across = abs(slope_y[iy, ix] * ux - slope_x[iy, ix] * uy)
    if abs(along) > pitch_max or across > roll_max or rough[iy, ix] > rough_max:
        if math.hypot(iy - ry, ix - rx) > free:
            return np.inf
    price = theta[0] + theta[3] * rough[iy, ix]
    price += theta[1] * along if along > 0 else -theta[2] * along
    return max(price, least * theta[0]) * (1 + roll_weight * (across / roll_max) ** 2)


@njit(cache=True, nogil=True)
def _straighten(  # type: ignore[no-untyped-def]
    points, yaw, slope_x, slope_y, rough, open_, theta, limits, cell, free
):  # fmt: skip
    count = len(points)
    rows, columns = open_.shape
    best, before = np.full(count, np.inf), np.full(count, -1, np.int64)
    heading = np.zeros(count)
    best[0], heading[0] = 0.0, yaw
    for j in range(1, count):
        for i in range(j):
            dx, dy = points[j, 0] - points[i, 0], points[j, 1] - points[i, 1]
            length = math.hypot(dx, dy)
            if length < 1e-9 or not best[i] < best[j]:
                continue
            turn = abs((math.atan2(dy, dx) - heading[i] + np.pi) % (2 * np.pi) - np.pi)
            cost = best[i] + theta[4] * turn
            steps = int(math.ceil(length))
            for k in range(steps):
                part = (k + 0.5) / steps
                iy = min(max(int(points[i, 1] + part * dy), 0), rows - 1)
                ix = min(max(int(points[i, 0] + part * dx), 0), columns - 1)
                cost += _price(
                    iy, ix, dy / length, dx / length, points[0, 1], points[0, 0], slope_x, slope_y,
                    rough, open_, theta, limits, free,
                ) * length / steps * cell  # fmt: skip
                if cost >= best[j]:
                    break
            if cost < best[j]:
                best[j], before[j], heading[j] = cost, i, math.atan2(dy, dx)
    kept, at = np.zeros(count, np.bool_), count - 1
    while at >= 0:
        kept[at] = True
        at = before[at]
    return kept, best[count - 1]


def _place(surface: Surface, xy: NDArray[np.float64], stride: int, shape: Any) -> int:
    iy, ix = surface.cell(xy)
    return int(min(iy // stride, shape[0] - 1) * shape[1] + min(ix // stride, shape[1] - 1))


def _nearest_reached(came: NDArray[np.int32], shape: Any, end: int) -> int:
    """Of the states that were reached the one nearest to a place."""
    reached = np.flatnonzero(came > -2)
    y, x = np.divmod(reached % (shape[0] * shape[1]), shape[1])
    return int(reached[np.argmin((y - end // shape[1]) ** 2 + (x - end % shape[1]) ** 2)])


@njit(cache=True, nogil=True)
def _search(cost, turn, offset, start, heading, end):  # type: ignore[no-untyped-def]
    """Dijkstra over states heading * places + place, in buckets (Dial 1969).

    Returns the state each was reached from (-1 the start, -2 not reached), the state at the end
    (-1 none) and its cost.
    """
    count, places = cost.shape
    states = count * places
    widest = max(cost.max(), turn.max(), 1)
    best, came = np.full(states, -1, np.int32), np.full(states, -2, np.int32)
    head = np.full(widest + 1, -1, np.int32)
    state, following = np.empty(3 * states + 1, np.int32), np.empty(3 * states + 1, np.int32)
    first = heading * places + start
    best[first], came[first] = 0, -1
    state[0], following[0], head[0] = first, -1, 0
    used, waiting, now = 1, 1, 0
    while waiting > 0:
        bucket = now % (widest + 1)
        while head[bucket] >= 0:
            entry = head[bucket]
            head[bucket] = following[entry]
            waiting -= 1
            at = state[entry]
            if best[at] != now:
                continue
            best[at] = -2 - now  # settled
            k, place = at // places, at % places
            if place == end:
                return came, at, now
            for option in range(3):
                if option == 0:
                    if cost[k, place] < 0:
                        continue
                    to, new = at + offset[k], now + cost[k, place]
                elif option == 1:
                    to, new = ((k + 1) % count) * places + place, now + turn[k]
                else:
                    to, new = ((k - 1) % count) * places + place, now + turn[k - 1]
                if best[to] == -1 or best[to] > new:
                    best[to], came[to] = new, at
                    slot = new % (widest + 1)
                    state[used], following[used], head[slot] = to, head[slot], used
                    used += 1
                    waiting += 1
        now += 1
    return came, -1, 0
