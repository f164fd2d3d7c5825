"""Where the robot is on the map: its scan matched against the scans kept at the map's nodes.

The TopoNav paper (arXiv:2402.04061) says nothing of localisation. This is our reconstruction, and
all numbers are ours: correlative scan matching (Olson 2009) with point-to-line refinement (Censi
2008), a Gaussian belief of the pose that odometry moves as in an extended Kalman filter (Thrun et
al. 2005, Sec. 3.3), and for a robot that does not know where it is a place descriptor in the manner
of Scan Context (Kim & Kim 2018).

Poses are (3,) x, y, yaw, m and rad, of the lidar. Scans are points (P, 2) in the lidar frame, in
the order of the beams, as :func:`scan_points` makes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._jit import njit

Array = NDArray[np.float64]

SPACING_M = 0.1
"""Default distance between the points of a scan."""
RINGS, RING_M, SECTORS, HARMONICS = 8, 1.25, 60, 12
"""A signature counts points in rings and sectors; a descriptor keeps its first harmonics."""
STEP_RAD = 0.0175
"""Between the headings that :func:`match` tries, rad."""
STRAIGHT, NEIGHBOURS = 0.15, 0.06
"""Angles up to which two pieces of wall make one, and two beams are neighbours, rad."""
WEIGHT = 0.25
"""Evidence in a point, as a share of that of an independent one."""
DAMPING = 1.0
"""Levenberg's, in points: a direction that no wall fixes is left as it is."""


@dataclass(frozen=True)
class LocalizerConfig:
    """Numbers of a :class:`Localizer`."""

    cell_m: float = 0.05
    """Cells of the likelihood field, also the step of the search."""
    sigma_m: float = 0.1
    """Distance from a wall at which a point's likelihood is exp(-1/2); an inlier is nearer."""
    join_m: float = 0.4
    """Neighbouring points of a scan not farther apart than this lie on one wall."""
    reach_m: float = 5.0
    """Only scans of nodes within this distance are matched against."""
    near: int = 6
    """So many nearest nodes make up one reference."""
    window_m: float = 0.5
    """While tracking, the search goes so far from the prediction in x and y."""
    window_rad: float = 0.35
    """The same in yaw."""
    drift_m: float = 0.1
    """Standard deviation of odometry after 1 m, growing as the root of the way, m."""
    drift_rad: float = 0.1
    """The same of yaw, after 1 m and after a turn of 1 rad."""
    gate: float = 16.27
    """Mahalanobis distance squared from the prediction above which a match is not believed (chi2
    with 3 degrees of freedom, 0.999)."""
    least_inliers: float = 0.6
    """A match that explains a smaller share of the points is not believed."""
    lost_after: int = 5
    """Scans in a row without a match to believe, after which the robot is lost."""
    ranked: int = 48
    """Nodes that look most like the scan, tried in relocalisation. Where the true place is not
    among them an alike one may be taken for it: in 60 tries in warehouses of 40 by 30 m with 120 to
    150 nodes, 12 gave 12 % wrong answers, 24 gave 7 %, and 48 none."""
    headings: int = 3
    """Headings tried at each."""
    wide_m: float = 1.5
    """In relocalisation, the search goes so far from the node in x and y."""
    wide_rad: float = 0.2
    """And so far from each heading."""
    kept: int = 8
    """Guesses of different places that go along to the next scan."""
    sure_inliers: float = 0.9
    """Least share of inliers of a relocalisation."""
    sure_lead: float = 2.5
    """Least lead in evidence over a guess of another place, nats."""
    sure_through: float = 0.03
    """Greatest share of known points that the scan would have looked through."""
    sure_std_m: float = 0.3
    """Greatest standard deviation of its position in any direction."""
    max_nodes: int = 512
    """Scans kept; beyond, the later of the two nearest to each other is forgotten."""

    def __post_init__(self) -> None:
        for f in fields(self):
            value, share = getattr(self, f.name), f.name.endswith(("inliers", "through"))
            if not 0 < value <= (1.0 if share else np.inf):
                raise ValueError(f"{f.name} must be > 0{' and <= 1' * share}, got {value}")


def scan_points(
    ranges: ArrayLike, angles: ArrayLike, range_max: float, spacing_m: float = SPACING_M
) -> Array:
    """(P, 2) points that a scan hit, lidar frame, m, in the order of the beams.

    Thinned to one point in ``spacing_m`` along the outline, so that near walls, which take most
    beams, do not take most points. Readings that are NaN, not positive, or at or beyond
    ``range_max`` are left out.

    Args:
        ranges: (B,) m.
        angles: (B,) beam angles in the lidar frame, rad, ascending.
        range_max: m.
        spacing_m: way along the outline that one point stands for; 0 keeps all.

    Raises:
        ValueError: ranges and angles differ in shape.
    """
    r, a = np.asarray(ranges, np.float64), np.asarray(angles, np.float64)
    if r.ndim != 1 or r.shape != a.shape:
        raise ValueError(f"ranges must be as many as angles, got {r.shape} and {a.shape}")
    hit = (r > 0) & (r < range_max)
    xy: Array = r[hit, None] * np.stack([np.cos(a[hit]), np.sin(a[hit])], axis=1)
    way = np.hypot(*np.diff(xy, axis=0, prepend=xy[:1]).T).cumsum()
    if spacing_m > 0:
        xy = xy[np.diff(np.floor(way / spacing_m), prepend=-1.0) > 0]
    return xy


def transform(pose: ArrayLike, points: ArrayLike) -> Array:
    """Points (P, 2) of a frame whose origin has ``pose`` (3,), m and rad, in the outer frame."""
    x, y, yaw = np.asarray(pose, np.float64)
    c, s = np.cos(yaw), np.sin(yaw)
    out: Array = np.asarray(points, np.float64) @ np.array([[c, s], [-s, c]]) + (x, y)
    return out


def compose(a: ArrayLike, b: ArrayLike) -> Array:
    """Pose (3,) in the outer frame of what has pose ``b`` in the frame of ``a``; yaw wrapped."""
    p, q = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.append(transform(p, q[None, :2])[0], wrap(p[2] + q[2]))


def between(a: ArrayLike, b: ArrayLike) -> Array:
    """Pose (3,) of ``b`` in the frame of ``a``, both given in one outer frame; yaw wrapped."""
    p, q = np.asarray(a, np.float64), np.asarray(b, np.float64)
    turned = transform((0.0, 0.0, -p[2]), (q - p)[None, :2])[0]
    return np.append(turned, wrap(q[2] - p[2]))


def wrap(angle: Any) -> Any:
    """Angle(s) in [-pi, pi), rad."""
    return (np.asarray(angle) + np.pi) % (2 * np.pi) - np.pi


def walls(points: ArrayLike, join_m: float = 0.4) -> Array:
    """(P, 4) pieces ax, ay, bx, by from each point of a scan to the next, or to itself if none is.

    Points nearer than ``join_m`` are joined. Along a wall seen at a grazing angle they are farther
    apart, and wherever the robot goes they go with it: left single they would match best where it
    has not moved. So a long piece is a wall too if neighbouring beams saw it, and it goes on
    straight from the piece before or after.

    Args:
        points: (P, 2) from :func:`scan_points`, lidar frame, m.
        join_m: see above.

    Raises:
        ValueError: points is not (P, 2).
    """
    a = np.asarray(points, np.float64)
    if a.ndim != 2 or a.shape[1] != 2:
        raise ValueError(f"points must be (P, 2), got {a.shape}")
    b = np.roll(a, -1, axis=0)
    length = np.hypot(*(b - a).T)
    unit = (b - a) / np.maximum(length, 1e-9)[:, None]
    straight = np.abs(_cross(unit, np.roll(unit, -1, axis=0))) < STRAIGHT  # at its end
    beside = np.abs(np.arctan2(_cross(a, b), (a * b).sum(axis=1))) < NEIGHBOURS
    wall = (length <= join_m) | (beside & (straight | np.roll(straight, 1)))
    return np.concatenate([a, np.where(wall[:, None], b, a)], axis=1)


def _cross(a: Array, b: Array) -> Array:
    """(n,) of vectors (n, 2)."""
    out: Array = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    return out


@dataclass(frozen=True, eq=False)
class Field:
    """Likelihood of a point by its distance d from the nearest wall, exp(-d^2 / 2 sigma^2)."""

    value: NDArray[np.float32]
    """(H, W) at the centres of cells [iy, ix], in [0, 1]; 0 beyond 3 sigma."""
    nearest: NDArray[np.int32]
    """(H, W) row of the nearest wall, -1 beyond 3 sigma."""
    walls: Array
    """(K, 4) ax, ay, bx, by, m."""
    origin: Array
    """(2,) corner of cell (0, 0), m."""
    cell_m: float
    """Side of a cell."""
    sigma_m: float
    """Distance at which the likelihood is exp(-1/2)."""

    @classmethod
    def of(cls, walls: ArrayLike, cell_m: float = 0.05, sigma_m: float = 0.1) -> Field:
        """Field around straight pieces of wall; where Olson 2009 draws points, distances are exact.

        Args:
            walls: (K, 4) ax, ay, bx, by, m, as :func:`walls` makes them.
            cell_m: side of a cell.
            sigma_m: the wider, the farther a scan is drawn in, and the softer all scores.

        Raises:
            ValueError: walls is not (K, 4) with K >= 1.
        """
        w = np.ascontiguousarray(walls, np.float64)
        if w.ndim != 2 or w.shape[1] != 4 or len(w) == 0:
            raise ValueError(f"walls must be (K, 4) with K >= 1, got {w.shape}")
        border, ends = 3 * sigma_m + cell_m, w.reshape(-1, 2)
        origin = ends.min(axis=0) - border
        width, height = np.ceil((ends.max(axis=0) + border - origin) / cell_m).astype(int)
        distance = np.full((height, width), 3 * sigma_m, np.float32)
        nearest = np.full((height, width), -1, np.int32)
        _draw(w - np.tile(origin, 2), cell_m, 3 * sigma_m, distance, nearest)
        value = np.exp(np.float32(-0.5 / sigma_m**2) * distance**2)
        value[nearest < 0] = 0
        return cls(value, nearest, w, origin, cell_m, sigma_m)


@njit(cache=True, nogil=True)
def _draw(walls, cell_m, reach, distance, nearest):  # type: ignore[no-untyped-def]
    """Lower ``distance`` (H, W) to that from each wall, and note which is nearest."""
    height, width = distance.shape
    for k in range(len(walls)):
        ax, ay, bx, by = walls[k]
        dx, dy = bx - ax, by - ay
        inverse = 1 / max(dx * dx + dy * dy, 1e-12)
        x0, x1 = int((min(ax, bx) - reach) / cell_m), int((max(ax, bx) + reach) / cell_m)
        y0, y1 = int((min(ay, by) - reach) / cell_m), int((max(ay, by) + reach) / cell_m)
        for iy in range(y0, min(y1 + 1, height)):
            py = (iy + 0.5) * cell_m - ay
            for ix in range(x0, min(x1 + 1, width)):
                px = (ix + 0.5) * cell_m - ax
                t = min(max((px * dx + py * dy) * inverse, 0.0), 1.0)
                d = np.float32(np.sqrt((px - t * dx) ** 2 + (py - t * dy) ** 2))
                if d < distance[iy, ix]:
                    distance[iy, ix] = d
                    nearest[iy, ix] = k


@dataclass(frozen=True, eq=False)
class Match:
    """Where a scan fits."""

    pose: Array
    """(3,) of the scan in the frame of the field, m and rad."""
    score: float
    """Mean likelihood of its points, in [0, 1]."""
    inliers: float
    """Share of its points within sigma of a wall."""
    cov: Array
    """(3, 3) of the pose, m and rad, from how the probability falls off around it."""
    node: int = -1
    """Node whose neighbourhood the field shows, where there is one."""


def match(
    points: ArrayLike, field: Field, guess: ArrayLike, window_m: float, window_rad: float,
    step_rad: float = STEP_RAD, prior: Array | None = None,
) -> Match:  # fmt: skip
    r"""Fit a scan into a field: the most probable pose of a window, refined.

    .. math:: p(x) \propto \exp( w \sum_i f(T_x z_i) - (x - g)^T \Sigma^{-1} (x - g) / 2 )

    with f the field, z the points, g the guess and Sigma its covariance (Olson 2009). In place of
    the logarithm of f stands f itself: the same near a wall up to a constant, and bounded, so that
    what is new or gone does not outweigh all else. w is ``WEIGHT``.

    Every pose is scored in steps of a cell, heading by heading (Olson's 2D slices). There is no
    coarser level above: whole rows of the window are added at once, and the covariance wants all
    scores anyway. It is Olson's, sum p x x^T / sum p, but about the pose returned, not the mean,
    and with the variance of a step added. The refinement is Gauss-Newton on distances from walls
    (Censi 2008), weighted by f (Welsch's weight), with sigma and then half of it.

    Args:
        points: (P, 2) in the lidar frame, m.
        field: of the reference.
        guess: (3,) middle of the window, pose of the scan in the frame of the field.
        window_m: half its size in x and y.
        window_rad: half its size in yaw.
        step_rad: between headings.
        prior: (3, 3) covariance of the guess, m and rad; None: all of the window is alike. Without
            it a scan in a corridor is drawn to where most of it was seen before.

    Raises:
        ValueError: there is no point, or the window is negative.
    """
    p, start = np.ascontiguousarray(points, np.float64), np.asarray(guess, np.float64)
    if p.ndim != 2 or p.shape[1:] != (2,) or len(p) == 0:
        raise ValueError(f"points must be (P, 2) with P >= 1, got {p.shape}")
    if not (window_m >= 0 and window_rad >= 0):
        raise ValueError(f"window must be >= 0, got {window_m} m and {window_rad} rad")
    log_p, shift, turn = _search(p, field, start, window_m, window_rad, step_rad)
    least = np.diag(np.square([field.cell_m, field.cell_m, step_rad]) / 12)
    hold: Array = np.zeros((3, 3))
    if prior is not None:
        hold = np.asarray(np.linalg.inv(prior + least), np.float64)
        grid = (shift, shift[:, None], turn[:, None, None])
        log_p -= sum(hold[i, j] / 2 * grid[i] * grid[j] for i in range(3) for j in range(3))
    weight = np.exp(log_p - log_p.max())
    a, j, i = np.nonzero(weight == 1)
    tied = np.stack([shift[i], shift[j], turn[a]], axis=1)  # all, if nothing is known
    peak = start + tied[np.square(tied).sum(axis=1).argmin()]
    pose, score, inliers = _refine(p, field, peak, start, hold)
    x, y, yaw = (axis + off for axis, off in zip((shift, shift, turn), start - pose, strict=True))
    of_xy, of_xa, of_ya = weight.sum(axis=0).T, weight.sum(axis=1).T, weight.sum(axis=2).T
    xx, yy, aa = x**2 @ of_xy.sum(axis=1), y**2 @ of_ya.sum(axis=1), yaw**2 @ of_ya.sum(axis=0)
    xy, xa, ya = x @ of_xy @ y, x @ of_xa @ yaw, y @ of_ya @ yaw
    cov = np.array([[xx, xy, xa], [xy, yy, ya], [xa, ya, aa]]) / weight.sum() + least
    pose[2] = wrap(pose[2])
    return Match(pose, score, inliers, cov)


def _search(
    points: Array, field: Field, guess: Array, window_m: float, window_rad: float, step_rad: float
) -> tuple[NDArray[np.float32], Array, Array]:
    """Log likelihoods (A, Y, X) of the poses of a window, and their steps in x or y and in yaw."""
    n, turns = int(np.ceil(window_m / field.cell_m)), int(np.ceil(window_rad / step_rad))
    shift = np.arange(-n, n + 1, dtype=np.float64) * field.cell_m
    turn = np.arange(-turns, turns + 1, dtype=np.float64) * step_rad
    c, s = np.cos(guess[2] + turn[:, None]), np.sin(guess[2] + turn[:, None])
    xy = np.stack([c * points[:, 0] - s * points[:, 1], s * points[:, 0] + c * points[:, 1]], -1)
    # a border of two half windows: a point outside it meets no wall from anywhere in the window
    corner = np.floor((xy + guess[:2] - field.origin) / field.cell_m).astype(np.int32) + n
    out = np.zeros((len(turn), len(shift), len(shift)), np.float32)
    _add_up(np.pad(field.value * np.float32(WEIGHT), 2 * n), corner, out)
    return out, shift, turn


@njit(cache=True, nogil=True)
def _add_up(value, corner, out):  # type: ignore[no-untyped-def]
    """Sum over points of the piece of ``value`` that each sees as the window slides, per turn."""
    turns, n, _ = out.shape
    height, width = value.shape
    for a in range(turns):
        for p in range(corner.shape[1]):
            x, y = corner[a, p]
            if x < 0 or y < 0 or x + n > width or y + n > height:
                continue
            for j in range(n):
                into, row = out[a, j], value[y + j, x : x + n]
                for i in range(n):  # over whole vectors
                    into[i] += row[i]


def _refine(
    points: Array, field: Field, pose: Array, guess: Array, hold: Array
) -> tuple[Array, float, float]:
    """Pose to a fraction of a cell, its score (with sigma) and share of inliers.

    ``hold`` (3, 3) is the information with which the guess is known.
    """
    at = pose.copy()
    args = (points, field.walls, field.nearest, field.origin, field.cell_m, field.sigma_m)
    for sigma in (field.sigma_m, field.sigma_m / 2):
        pull = hold * (sigma**2 / WEIGHT)
        for _ in range(10):
            hessian, slope, _, _ = _normal_equations(*args, sigma, at)
            hessian += pull + DAMPING * np.eye(3)
            step = np.linalg.solve(hessian, slope + pull @ (at - guess))
            at -= step
            if np.abs(step).max() < 1e-4:
                break
    _, _, score, inliers = _normal_equations(*args, field.sigma_m, at)
    return at, score, inliers


@njit(cache=True, nogil=True)
def _normal_equations(points, walls, nearest, origin, cell_m, inlier, sigma, pose):  # type: ignore[no-untyped-def]
    """J^T W J (3, 3) and J^T W r (3,) of the distances from walls, mean weight, inlier share."""
    height, width = nearest.shape
    c, s = np.cos(pose[2]), np.sin(pose[2])
    hessian, slope, row = np.zeros((3, 3)), np.zeros(3), np.zeros(3)
    score, inliers = 0.0, 0
    for p in range(len(points)):
        x, y = c * points[p, 0] - s * points[p, 1], s * points[p, 0] + c * points[p, 1]
        qx, qy = x + pose[0], y + pose[1]
        ix, iy = int(np.floor((qx - origin[0]) / cell_m)), int(np.floor((qy - origin[1]) / cell_m))
        if ix < 0 or iy < 0 or ix >= width or iy >= height or nearest[iy, ix] < 0:
            continue
        ax, ay, bx, by = walls[nearest[iy, ix]]
        dx, dy = bx - ax, by - ay
        square = max(dx * dx + dy * dy, 1e-12)
        t = ((qx - ax) * dx + (qy - ay) * dy) / square
        if 0 < t < 1:  # signed distance from the line
            nx, ny = -dy / np.sqrt(square), dx / np.sqrt(square)
            r = (qx - ax) * nx + (qy - ay) * ny
        else:  # distance from its end
            ex, ey = (qx - ax, qy - ay) if t <= 0 else (qx - bx, qy - by)
            r = np.sqrt(ex * ex + ey * ey)
            nx, ny = ex / max(r, 1e-9), ey / max(r, 1e-9)
        w = np.exp(-0.5 * (r / sigma) ** 2)
        score += w
        inliers += abs(r) < inlier
        row[0], row[1], row[2] = nx, ny, ny * x - nx * y
        for i in range(3):
            slope[i] += w * row[i] * r
            for j in range(3):
                hessian[i, j] += w * row[i] * row[j]
    return hessian, slope, score / len(points), inliers / len(points)


def signature(points: ArrayLike) -> NDArray[np.float32]:
    """(RINGS, SECTORS) float32 count of a full scan's points in polar cells, spread bilinearly.

    A turn of the robot shifts the columns around; points beyond the last ring do not count.
    """
    p = np.asarray(points, np.float64)
    row = np.hypot(p[:, 0], p[:, 1]) / RING_M - 0.5
    column = np.arctan2(p[:, 1], p[:, 0]) / (2 * np.pi) * SECTORS
    y, x = np.floor(row).astype(int), np.floor(column).astype(int)
    out = np.zeros((RINGS + 1) * SECTORS)  # row 0 is inside the middle of the first ring
    for dy in (0, 1):
        for dx in (0, 1):
            share = np.abs(1 - dy - (row - y)) * np.abs(1 - dx - (column - x))
            kept = y + dy < RINGS
            cell = (y + dy + 1) * SECTORS + (x + dx) % SECTORS
            out += np.bincount(cell[kept], share[kept], len(out))
    return out.reshape(RINGS + 1, SECTORS)[1:].astype(np.float32)


def descriptor(points: ArrayLike) -> NDArray[np.float32]:
    """(RINGS * HARMONICS,) float32 of unit length: what a place looks like from any heading.

    Magnitudes of the Fourier transform of :func:`signature` around the circle, which a turn does
    not change. All zeros for a scan without points.
    """
    return _descriptor(signature(points))


def _descriptor(rings: NDArray[np.float32]) -> NDArray[np.float32]:
    out = np.abs(np.fft.rfft(rings, axis=1)[:, :HARMONICS]).ravel()
    return (out / max(float(np.linalg.norm(out)), 1e-12)).astype(np.float32)


def heading_guesses(
    reference: NDArray[np.floating], seen: NDArray[np.floating], count: int
) -> Array:
    """(<= count,) yaw of a scan in the frame of another from the same place, likeliest first, rad.

    Peaks of the circular cross-correlation of their signatures (RINGS, SECTORS).
    """
    a, b = np.fft.rfft(reference, axis=1), np.fft.rfft(seen, axis=1)
    value = np.fft.irfft((a * b.conj()).sum(axis=0), SECTORS)
    peaks = np.flatnonzero((value >= np.roll(value, 1)) & (value > np.roll(value, -1)))
    best = peaks[np.argsort(-value[peaks])][:count]
    return np.asarray(wrap(2 * np.pi * best / SECTORS), np.float64)


def looked_through(
    points: ArrayLike, known_w: ArrayLike, pose_w: ArrayLike, join_m: float = 0.4,
    margin_m: float = 0.3,
) -> float:  # fmt: skip
    """Share of known points that a scan from a pose contradicts: it saw a wall behind them.

    Counted are those known points that lie, as seen from the pose, before or on a wall of the scan.

    Args:
        points: (P, 2) from :func:`scan_points`.
        known_w: (K, 2) points of walls, m.
        pose_w: (3,) of the scan in their frame.
        join_m: neighbours of the scan not farther apart lie on one wall.
        margin_m: a known point so much before a wall may still be part of it.
    """
    a = np.asarray(points, np.float64)
    seen = transform(between(pose_w, np.zeros(3)), known_w)
    bearing = np.arctan2(a[:, 1], a[:, 0])
    order = np.argsort(bearing)
    a, bearing = a[order], bearing[order]
    last = np.searchsorted(bearing, np.arctan2(seen[:, 1], seen[:, 0])) - 1
    b, a = a[(last + 1) % len(a)], a[last]  # the wall's ends, for each known point
    wall = np.hypot(*(b - a).T) <= join_m
    ends = np.hypot(*a.T), np.hypot(*b.T)
    away = np.hypot(*seen.T)
    through = wall & (away < np.minimum(*ends) - margin_m)
    on = wall & ~through & (away <= np.maximum(*ends) + margin_m)
    return float(through.sum() / max(through.sum() + on.sum(), 1))


@dataclass(frozen=True, eq=False)
class Track:
    """What :meth:`Localizer.track` knows after a scan."""

    pose_w: Array
    """(3,) in the map frame, m and rad."""
    cov: Array
    """(3, 3), m and rad."""
    lost: bool
    """Too many scans in a row fitted nowhere near: stop and :meth:`Localizer.relocalise`."""
    match: Match | None
    """Of this scan; None if no node was within reach or the scan held no point."""
    believed: bool
    """Whether that match made the pose; else odometry did."""


@dataclass(frozen=True, eq=False)
class _Node:
    """A scan and where it was taken, with what is made of it."""

    points: Array
    pose_w: Array
    walls_w: Array
    signature: NDArray[np.float32]
    descriptor: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _Guess:
    """Where the robot may be, for all that relocalisation knows."""

    match: Match
    through: float
    evidence: float


class Localizer:
    """Keeps the scans of the map's nodes and the robot's pose among them.

    The covariance is relative to the nodes: where they are wrong, so is the pose.
    """

    def __init__(
        self, config: LocalizerConfig | None = None, pose_w: ArrayLike = (0.0, 0.0, 0.0)
    ) -> None:
        self.config = config or LocalizerConfig()
        self._nodes: dict[int, _Node] = {}
        self._drawn: tuple[list[_Node], Field | None] = ([], None)
        self.place(pose_w)

    def __len__(self) -> int:
        """Number of nodes."""
        return len(self._nodes)

    def place(self, pose_w: ArrayLike, cov: ArrayLike | None = None) -> None:
        """Believe from now on that the robot is at ``pose_w`` (3,), with ``cov`` (3, 3) or sure."""
        self.pose_w = np.array(pose_w, np.float64)
        self.cov = np.zeros((3, 3)) if cov is None else np.array(cov, np.float64)
        self._odom_w: Array | None = None
        self._misses = 0
        self._guesses: list[_Guess] = []
        self._guessed_w: Array | None = None

    def add(self, node: int, pose_w: ArrayLike, points: ArrayLike) -> int | None:
        """Keep a node's scan, in place of the one that it had.

        A robot that maps as it goes keeps to centimetres if it adds a node every 1.5 m or so, and
        wherever a match has few inliers (below 0.8: in doorways, around corners).

        Args:
            node: its id.
            pose_w: (3,) of the lidar in the map frame, m and rad.
            points: (P, 2) from :func:`scan_points`, full circle.

        Returns:
            The node forgotten to keep within ``max_nodes``, or None.

        Raises:
            ValueError: the scan holds no point.
        """
        p, pose = np.array(points, np.float64), np.array(pose_w, np.float64)
        if p.ndim != 2 or p.shape[1:] != (2,) or len(p) == 0:
            raise ValueError(f"points must be (P, 2) with P >= 1, got {p.shape}")
        rings, ends = signature(p), walls(p, self.config.join_m).reshape(-1, 2)
        walls_w = transform(pose, ends).reshape(-1, 4)
        self._nodes[node] = _Node(p, pose, walls_w, rings, _descriptor(rings))
        if len(self) <= self.config.max_nodes:
            return None
        at = self._positions()
        apart = np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1))
        apart[np.triu_indices(len(at))] = np.inf
        later = list(self._nodes)[int(apart.argmin()) // len(at)]
        self.forget(later)
        return later

    def forget(self, node: int) -> None:
        """Drop a node's scan.

        Raises:
            KeyError: there is none.
        """
        del self._nodes[node]

    def ids(self) -> list[int]:
        """Of all nodes, oldest first."""
        return list(self._nodes)

    def nearest(self, xy_w: ArrayLike) -> tuple[int | None, float]:
        """The node nearest to a point (2,), and how far it is, m; None and inf without nodes."""
        away = np.hypot(*(self._positions() - np.asarray(xy_w, np.float64)).T)
        if len(away) == 0:
            return None, np.inf
        return self.ids()[int(away.argmin())], float(away.min())

    def around(self, xy_w: ArrayLike) -> Array:
        """(K, 2) points of walls that the nodes near a point (2,) have seen, map frame, m."""
        near = self._near(np.asarray(xy_w, np.float64))
        return np.concatenate([np.zeros((0, 2)), *(n.walls_w[:, :2] for n in near)])

    def track(self, odom_pose_w: ArrayLike, points: ArrayLike) -> Track:
        """Follow the robot over one scan.

        Odometry since the last call moves the pose, and its covariance grows in proportion to the
        way, however many calls it takes. That is the prior of a match against the nearest nodes,
        and what the match says is the new belief. Unlike a Kalman update, this needs no Gaussian
        likelihood: in a corridor it is flat with many small peaks. A match that explains too little
        or lies outside the gate is not believed; without nodes within reach there is none.

        Args:
            odom_pose_w: (3,) lidar in the odom frame, m and rad; only increments matter.
            points: (P, 2) from :func:`scan_points`.
        """
        c, odom = self.config, np.array(odom_pose_w, np.float64)
        if self._odom_w is not None:
            step = between(self._odom_w, odom)
            self.pose_w, self.cov = self._moved(self.pose_w, self.cov, step)
        self._odom_w = odom
        near = self._near(self.pose_w[:2])
        if not near or len(points := np.asarray(points, np.float64)) == 0:
            return self._told(None, False)
        field = self._field(near)
        window = (c.window_m, c.window_rad)
        found = match(points, field, self.pose_w, *window, prior=self.cov)
        off = found.pose - self.pose_w
        off[2] = wrap(off[2])
        inverse = np.linalg.inv(self.cov + found.cov)
        believed = found.inliers >= c.least_inliers and bool(off @ inverse @ off <= c.gate)
        if believed:
            self.pose_w, self.cov = found.pose, found.cov
        self._misses = 0 if believed else self._misses + 1
        return self._told(found, believed)

    def relocalise(self, points: ArrayLike, odom_pose_w: ArrayLike | None = None) -> Match | None:
        """Where on the map a scan was taken, with no idea before; None: no telling yet.

        Nodes that look alike are tried with the likeliest headings in a wide window. The evidence
        for a match is the log likelihood of the points, less what the scan would have looked
        through. With odometry, the best guesses of earlier calls go along and add up theirs; a new
        one is given what the least of them had. The best guess is the answer if it explains the
        scan, hardly looks through what is known, leads over every guess of another place, and is
        pinned down in all directions. Does not move the pose: :meth:`place` does, and forgets the
        guesses.

        Args:
            points: (P, 2) from :func:`scan_points`, full circle.
            odom_pose_w: (3,) lidar in the odom frame, m and rad; None: forget earlier calls.
        """
        c, p = self.config, np.asarray(points, np.float64)
        odom = None if odom_pose_w is None else np.array(odom_pose_w, np.float64)
        found: list[_Guess] = []
        least = 0.0
        if odom is not None and self._guessed_w is not None:
            step = between(self._guessed_w, odom)
            least = min((g.evidence for g in self._guesses), default=0.0)
            for g in self._guesses:
                pose, cov = self._moved(g.match.pose, g.match.cov, step)
                window = (c.window_m, c.wide_rad, STEP_RAD)
                found += self._guess(p, pose, [pose], window, cov, g.evidence, g.match.node)
        rings, nodes = signature(p), list(self._nodes.items())
        look = _descriptor(rings)
        alike = np.array([n.descriptor @ look for _, n in nodes])
        for k in np.argsort(-alike)[: c.ranked]:
            name, node = nodes[k]
            yaws = heading_guesses(node.signature, rings, c.headings)
            poses = [compose(node.pose_w, (0.0, 0.0, yaw)) for yaw in yaws]
            window = (c.wide_m, c.wide_rad, 2 * STEP_RAD)
            found += self._guess(p, node.pose_w, poses, window, None, least, name)
        best: list[_Guess] = []
        for g in sorted(found, key=lambda g: -g.evidence):
            if len(best) < c.kept and all(_elsewhere(g.match.pose, b.match.pose) for b in best):
                best.append(g)
        self._guesses, self._guessed_w = best, odom
        if not best:
            return None
        top = best[0]
        lead = top.evidence - (best[1].evidence if len(best) > 1 else 0.0)
        std = float(np.sqrt(np.linalg.eigvalsh(top.match.cov[:2, :2])[-1]))
        fits = top.match.inliers >= c.sure_inliers and top.through <= c.sure_through
        return top.match if fits and lead >= c.sure_lead and std <= c.sure_std_m else None

    def _guess(
        self, points: Array, at_w: Array, poses_w: list[Array], window: tuple[float, float, float],
        prior: Array | None, evidence: float, node: int,
    ) -> list[_Guess]:  # fmt: skip
        """The best match around each pose with the nodes near a place, as evidence on top of such.

        Empty if there is no node or no point.
        """
        c, near = self.config, self._near(at_w[:2])
        if not near or len(points) == 0:
            return []
        field = Field.of(np.concatenate([n.walls_w for n in near]), c.cell_m, c.sigma_m)
        out: list[_Guess] = []
        for pose in poses_w:
            m = replace(match(points, field, pose, *window, prior), node=node)
            through = looked_through(points, field.walls[:, :2], m.pose, c.join_m)
            more = WEIGHT * len(points) * (m.score - through)
            out.append(_Guess(m, through, evidence + more))
        return out

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """All that is kept, as plain arrays."""
        nodes = list(self._nodes.values())
        odom = np.full(3, np.nan) if self._odom_w is None else self._odom_w
        return {
            "pose_w": self.pose_w.copy(), "cov": self.cov.copy(), "odom_w": odom.copy(),
            "misses": np.array(self._misses), "ids": np.array(list(self._nodes), np.int64),
            "poses_w": np.array([n.pose_w for n in nodes]).reshape(-1, 3),
            "counts": np.array([len(n.points) for n in nodes], np.int64),
            "points": np.concatenate([np.zeros((0, 2)), *(n.points for n in nodes)]),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over what another's :meth:`state_dict` returned; both go on alike, bit for bit.

        Raises:
            ValueError: keys are missing or unknown, or the counts do not fit.
        """
        if (want := set(self.state_dict())) != set(state):
            raise ValueError(f"state must have keys {sorted(want)}, got {sorted(state)}")
        ids, poses, counts = state["ids"], state["poses_w"], state["counts"]
        if not len(ids) == len(poses) == len(counts) or counts.sum() != len(state["points"]):
            sizes = {k: state[k].shape for k in ("ids", "poses_w", "counts", "points")}
            raise ValueError(f"state must have one pose and count per id, got {sizes}")
        self._nodes = {}
        for k, points in enumerate(np.split(state["points"], counts.cumsum()[:-1])[: len(ids)]):
            self.add(int(ids[k]), poses[k], points)
        self.place(state["pose_w"], state["cov"])
        self._odom_w = None if np.isnan(state["odom_w"]).any() else state["odom_w"].copy()
        self._misses = int(state["misses"])

    def _positions(self) -> Array:
        return np.array([n.pose_w[:2] for n in self._nodes.values()]).reshape(-1, 2)

    def _near(self, xy_w: Array) -> list[_Node]:
        """The nearest nodes within reach, oldest first."""
        away = np.hypot(*(self._positions() - xy_w).T)
        nodes = list(self._nodes.values())
        first = np.sort(np.argsort(away, kind="stable")[: self.config.near])
        return [nodes[k] for k in first if away[k] <= self.config.reach_m]

    def _field(self, near: list[_Node]) -> Field:
        """Of these nodes; the last one made is kept, the robot stays among the same for a while."""
        kept, field = self._drawn
        if field is None or len(kept) != len(near) or any(
            a is not b for a, b in zip(kept, near, strict=True)
        ):  # fmt: skip
            ends = np.concatenate([n.walls_w for n in near])
            field = Field.of(ends, self.config.cell_m, self.config.sigma_m)
            self._drawn = near, field
        return field

    def _moved(self, pose_w: Array, cov: Array, step: Array) -> tuple[Array, Array]:
        """Predict pose and covariance: ``step`` (3,) is the new pose in the frame of the old."""
        c, new = self.config, compose(pose_w, step)
        dx, dy = new[:2] - pose_w[:2]
        slope = np.array([[1.0, 0.0, -dy], [0.0, 1.0, dx], [0.0, 0.0, 1.0]])
        way, turn = np.hypot(dx, dy), abs(step[2])
        grown = np.diag([way * c.drift_m**2] * 2 + [(way + turn) * c.drift_rad**2])
        return new, slope @ cov @ slope.T + grown

    def _told(self, found: Match | None, believed: bool) -> Track:
        lost = self._misses >= self.config.lost_after
        return Track(self.pose_w.copy(), self.cov.copy(), lost, found, believed)


def _elsewhere(a: Array, b: Array) -> bool:
    """Whether two poses are too far apart to mean the same place."""
    return bool(np.hypot(*(a - b)[:2]) > 0.5 or abs(wrap(a[2] - b[2])) > 0.3)
