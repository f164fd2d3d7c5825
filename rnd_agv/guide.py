"""The guide point: where a planner would drive next, for a policy that steers there by itself.

A cost-to-go field over the occupancy grid, walked down from the robot for a short lookahead. The
grid is a given map, or grows from scans; unknown cells are passable, so the plan is optimistic and
corrected as walls come into sight. One class serves N simulated robots and one real one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .grid import OccupancyGrid, distance_m, integrate_many
from .observation import ScanSpec
from .planner import goal_field, guide_point, guide_points, nearest_free
from .robot import RobotSpec


@dataclass(frozen=True)
class GuideConfig:
    """How the guide point is found."""

    resolution: float = 0.1
    """Side of a grid cell, m."""
    lookahead_m: float = 2.0
    """Length of the walk down the field."""
    margin_m: float = 0.05
    """Blocked closer to an obstacle than the inscribed radius plus this, m."""
    soft_m: float = 0.5
    """Beyond that, clearance costs extra over this many metres."""
    soft_weight: float = 3.0
    """Extra cost per metre right at the blocked cells."""
    replan_steps: int = 20
    """Control steps between plans on a growing map or for a moving goal."""

    def __post_init__(self) -> None:
        if not (min(self.resolution, self.lookahead_m, self.soft_m) > 0 and self.replan_steps >= 1):
            raise ValueError(f"lengths > 0 and replan_steps >= 1 wanted, got {self}")


Layers = tuple[NDArray[np.bool_], NDArray[np.float32]]


def layers(
    grid: OccupancyGrid, config: GuideConfig, robot: RobotSpec, unknown: bool = False
) -> Layers:
    """(H, W) blocked cells and (H, W) extra cost per metre for this robot.

    Unknown cells are free to plan through (a map that grows) unless ``unknown`` closes them (a
    floor plan, beyond whose walls nothing leads anywhere).
    """
    return _layers(grid.occupied(unknown), config, robot)


def _layers(full: NDArray[np.bool_], config: GuideConfig, robot: RobotSpec) -> Layers:
    gap = distance_m(full, config.resolution) - (robot.inscribed_m + config.margin_m)
    near = np.clip(1 - gap / config.soft_m, 0, 1)
    return gap < 0, np.asarray(config.soft_weight * near**2, dtype=np.float32)


def field_to(
    goal_w: NDArray[np.floating], grid: OccupancyGrid, planning: Layers
) -> NDArray[np.float32]:
    """(H, W) cost to go to a goal point (2,); a blocked goal moves to a free cell.

    That is the nearest one within 2 m.
    """
    blocked, cost = planning
    cell = grid.cell(goal_w)
    near = nearest_free(blocked, cell, int(2.0 / grid.resolution))
    return goal_field(blocked, near or cell, grid.resolution, cost)


class Guide:
    """Guide points of N robots, each with its own grid and goal.

    Rows are padded to the largest grid. A row without a map starts unknown and is filled by
    :meth:`integrate`.
    """

    def __init__(self, config: GuideConfig, robot: RobotSpec, num: int = 1) -> None:
        self.config, self.robot, self.num = config, robot, num
        self.origin_w = np.zeros((num, 2))
        self.goal_w = np.zeros((num, 2))
        self.shape = np.ones((num, 2), np.int64)
        self.mapped = np.zeros(num, bool)
        """Rows whose map grows from scans."""
        self.data = np.full((num, 1, 1), -1, np.int8)
        self.fields = np.full((num, 1, 1), np.inf, np.float32)
        self._known: dict[int, tuple[OccupancyGrid, Layers]] = {}

    def reset(
        self,
        row: int,
        goal_w: NDArray[np.floating],
        *,
        known: tuple[OccupancyGrid, Layers] | None = None,
        bounds: tuple[float, float, float, float] | None = None,
    ) -> None:
        """Start ``row`` on a known map and its layers, or on an unknown one over ``bounds`` (m)."""
        self.goal_w[row] = goal_w
        self.mapped[row] = known is None
        if known is not None:
            grid = known[0]
            self._known[row] = known
        elif bounds is not None:
            grid = OccupancyGrid.empty(bounds, self.config.resolution)
            self._known.pop(row, None)
        else:
            raise ValueError("known or bounds is wanted, got neither")
        if abs(grid.resolution - self.config.resolution) > 1e-9:
            raise ValueError(
                f"map resolution must be {self.config.resolution} m, got {grid.resolution}"
            )
        self._fit(grid.data.shape)
        self.origin_w[row], self.shape[row] = grid.origin_w, grid.data.shape
        self.data[row], self.fields[row] = -1, np.inf
        self.plan(row)

    def _fit(self, shape: tuple[int, ...]) -> None:
        """Grow the stacked arrays to hold a grid of this shape.

        Only the rows of a growing map use ``data``.
        """
        height = max(self.fields.shape[1], shape[0])
        width = max(self.fields.shape[2], shape[1])
        if (height, width) != self.fields.shape[1:]:
            for name, fill in (("data", -1), ("fields", np.inf)):
                old = getattr(self, name)
                new = np.full((self.num, height, width), fill, old.dtype)
                new[:, : old.shape[1], : old.shape[2]] = old
                setattr(self, name, new)

    def grid(self, row: int) -> OccupancyGrid:
        """The map of a row; of a growing one, a view."""
        if not self.mapped[row]:
            return self._known[row][0]
        h, w = self.shape[row]
        grid = OccupancyGrid(
            np.zeros((1, 1), np.int8), self.config.resolution, tuple(self.origin_w[row])
        )
        grid.data = self.data[row, :h, :w]
        return grid

    def plan(self, row: int) -> None:
        """Work out the field of one row anew."""
        grid = self.grid(row)
        h, w = self.shape[row]
        planning = (
            self._known[row][1] if not self.mapped[row] else layers(grid, self.config, self.robot)
        )
        self.fields[row, :h, :w] = field_to(self.goal_w[row], grid, planning)

    def integrate(
        self, lidar_w: NDArray[np.float64], ranges: NDArray[np.floating], scan: ScanSpec
    ) -> None:
        """Enter one scan per row into the growing maps: lidar poses (N, 3), ranges (N, beams) m."""
        rows = np.flatnonzero(self.mapped)
        if len(rows) == self.num:
            integrate_many(
                self.data, self.origin_w, self.config.resolution, lidar_w, ranges, scan.angles,
                scan.range_max, scan.range_min,
            )  # fmt: skip
            return
        for row in rows:
            one = slice(row, row + 1)
            integrate_many(
                self.data[one], self.origin_w[one], self.config.resolution, lidar_w[one],
                ranges[one], scan.angles, scan.range_max, scan.range_min,
            )  # fmt: skip

    def points(self, pose_w: NDArray[np.float64]) -> NDArray[np.float64]:
        """Guide points (N, 2) m for poses (N, 3); the goal itself within the lookahead of it."""
        xy = np.ascontiguousarray(pose_w[:, :2])
        points: NDArray[np.float64] = guide_points(
            self.fields, self.config.resolution, self.origin_w, xy, self.config.lookahead_m
        )
        near = np.hypot(*(points - self.goal_w).T) < 1.5 * self.config.resolution
        return np.where(near[:, None], self.goal_w, points)

    def cost_to_go(self, pose_w: NDArray[np.float64]) -> NDArray[np.float64]:
        """Field value (N,) at the poses (N, 3), m; inf where the field is not reachable."""
        cell = np.floor((pose_w[:, :2] - self.origin_w) / self.config.resolution).astype(np.int64)
        iy = np.clip(cell[:, 1], 0, self.shape[:, 0] - 1)
        ix = np.clip(cell[:, 0], 0, self.shape[:, 1] - 1)
        return self.fields[np.arange(self.num), iy, ix].astype(np.float64)

    def path(
        self, row: int, pose_w: NDArray[np.float64], max_points: int = 200
    ) -> NDArray[np.float64]:
        """World path (L, 2) from a pose (3,) to the goal: guide points strung together."""
        path = [np.asarray(pose_w[:2], dtype=np.float64)]
        for _ in range(max_points):
            point = guide_point(
                self.fields[row], self.config.resolution, self.origin_w[row], path[-1], 0.5
            )
            if np.hypot(*(point - path[-1])) < 0.5 * self.config.resolution:
                break
            path.append(point)
            if np.hypot(*(point - self.goal_w[row])) < 1.5 * self.config.resolution:
                break
        path.append(self.goal_w[row].copy())
        return np.array(path)

    def state_dict(self) -> dict[str, Any]:
        """Growing maps and goals; known maps are the caller's to hand in again."""
        names = ("origin_w", "goal_w", "shape", "mapped", "data", "fields")
        return {name: getattr(self, name).copy() for name in names}

    def load_state_dict(
        self, state: dict[str, Any], known: dict[int, tuple[OccupancyGrid, Layers]]
    ) -> None:
        """Go on from :meth:`state_dict`; ``known`` holds the map of every row that has one."""
        for name, value in state.items():
            setattr(self, name, np.array(value))
        self._known = dict(known)
