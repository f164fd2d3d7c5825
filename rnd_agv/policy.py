"""An AGV policy that drives one robot: observation history, guide, network, limits.

The same class runs in the ROS 2 node and in the demo without ROS. It needs numpy, opencv and
whatever the network callable needs (onnxruntime for a policy file).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learning.policy_file import OnnxPolicy

from .command import CommandLimits, command_from_action, limit_rate
from .grid import OccupancyGrid
from .guide import Guide, GuideConfig, layers
from .observation import SCAN_PERIOD_S, ObservationConfig, ScanSpec, build, sector_min
from .robot import ROBOTS

CONTROL_DT = 0.05


class AgvPolicy:
    """One robot's policy, called at 20 Hz with the newest scan.

    Args:
        folder: a policy folder, see :mod:`learning.policy_file`.
        network: overrides the folder's network, (B, D) observations -> (B, 2) actions in [-1, 1].

    Raises:
        learning.policy_file.PolicyFileError: the folder is damaged or not an AGV policy.
    """

    def __init__(
        self,
        folder: str,
        network: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None,
    ) -> None:
        policy = OnnxPolicy(folder)
        self.manifest: dict[str, Any] = policy.manifest
        self.network = network or policy
        self.config = ObservationConfig(**self.manifest["observation"]["config"])
        action = self.manifest["action"]
        self.robot = ROBOTS[action["robot"]]
        self.limits = CommandLimits(**action["limits"])
        self.guide_config = GuideConfig(**action.get("guide", {}))
        self.goal_radius_m = float(action.get("goal_radius_m", 0.5))
        self.guide = Guide(self.guide_config, self.robot)
        self.margin_m = 12.0
        self.map: OccupancyGrid | None = None
        self.goal_w: NDArray[np.float64] | None = None
        self.reset()

    def reset(self) -> None:
        """Forget scans, commands, goal and what was mapped; a map from :meth:`set_map` stays."""
        self.frames = np.ones((1, self.config.frames, self.config.sectors), np.float32)
        self.last = np.zeros((1, 2))
        self.last_scan_s = -np.inf
        self.steps = 0
        self.goal_w = None

    def set_map(self, grid: OccupancyGrid) -> None:
        """Plan on this map from the next goal on (resampled if its cells have another size)."""
        self.map = _resampled(grid, self.guide_config.resolution)

    def set_goal(
        self, goal_w: NDArray[np.floating], pose_w: NDArray[np.floating] | None = None
    ) -> None:
        """Drive to (2,) in the odometry or map frame.

        ``pose_w`` sizes a map that grows from scans.
        """
        goal = np.asarray(goal_w, dtype=np.float64)
        if goal.shape != (2,) or not np.isfinite(goal).all():
            raise ValueError(f"goal_w must be 2 finite numbers, got {goal_w}")
        self.goal_w = goal
        if self.config.guide:
            here = goal if pose_w is None else np.asarray(pose_w, dtype=np.float64)[:2]
            if self.map is not None:
                # both ends on the map: a floor plan; else it leads out of what is mapped so far
                ends = [self.map.data[self.map.cell(xy)] for xy in (here, goal)]
                planning = layers(self.map, self.guide_config, self.robot, unknown=min(ends) >= 0)
                self.guide.reset(0, goal, known=(self.map, planning))
            else:
                low, high = (
                    np.minimum(here, goal) - self.margin_m,
                    np.maximum(here, goal) + self.margin_m,
                )
                self.guide.reset(0, goal, bounds=(low[0], low[1], high[0], high[1]))

    def reached(self, pose_w: NDArray[np.floating]) -> bool:
        """Whether the goal is within the radius that the policy was trained to."""
        return self.goal_w is not None and bool(
            np.hypot(*(self.goal_w - np.asarray(pose_w)[:2])) < self.goal_radius_m
        )

    def act(
        self,
        pose_w: NDArray[np.floating],
        vel_b: NDArray[np.floating],
        ranges: NDArray[np.floating],
        scan: ScanSpec,
        stamp_s: float,
    ) -> NDArray[np.float64]:
        """Command (2,) m/s and rad/s for the newest pose (3,), velocity (2,) and scan (beams,).

        A scan whose stamp has been seen is held, not entered twice. Without a goal, or at it, the
        command slows to zero within the limits.
        """
        pose = np.asarray(pose_w, dtype=np.float64)[None]
        if stamp_s > self.last_scan_s + 0.5 * SCAN_PERIOD_S:
            new = sector_min(np.asarray(ranges)[None], scan, self.config)
            fresh = not np.isfinite(self.last_scan_s)
            self.last_scan_s = stamp_s
            self.frames = np.roll(self.frames, 1, axis=1)
            self.frames[:, 0] = new
            if fresh:
                self.frames[:] = new[:, None]
            if self.config.guide and self.goal_w is not None and self.guide.mapped[0]:
                c, s = np.cos(pose[0, 2]), np.sin(pose[0, 2])
                lidar = pose + np.array([[c, s, 0.0]]) * self.robot.lidar_x_m
                cut = ScanSpec(scan.beams, scan.angle_min, scan.angle_increment, scan.range_min,
                               min(scan.range_max, self.config.max_range))  # fmt: skip
                self.guide.integrate(lidar, np.asarray(ranges, dtype=np.float64)[None], cut)
        if self.goal_w is None or self.reached(pose_w):
            wanted = np.zeros((1, 2))
        else:
            wanted = command_from_action(self.network(self.observe(pose_w, vel_b)), self.limits)
        self.last = limit_rate(wanted, self.last, self.limits, CONTROL_DT)
        self.steps += 1
        command: NDArray[np.float64] = self.last[0].copy()
        return command

    def observe(
        self, pose_w: NDArray[np.floating], vel_b: NDArray[np.floating]
    ) -> NDArray[np.float32]:
        """The (1, D) observation of this moment; plans anew where the map grows."""
        if self.goal_w is None:
            raise ValueError("goal_w is wanted before observing, got None")
        pose = np.asarray(pose_w, dtype=np.float64)[None]
        guide_w = None
        if self.config.guide:
            if self.guide.mapped[0] and self.steps % self.guide_config.replan_steps == 0:
                self.guide.plan(0)
            guide_w = self.guide.points(pose)
        return build(
            self.config, self.limits, sectors=self.frames, pose_w=pose, goal_w=self.goal_w[None],
            vel_b=np.asarray(vel_b, dtype=np.float64)[None], last_command=self.last,
            guide_w=guide_w,
        )  # fmt: skip


def _resampled(grid: OccupancyGrid, resolution: float) -> OccupancyGrid:
    """The grid with cells of ``resolution``; a coarse cell is as occupied as its fullest part."""
    if abs(grid.resolution - resolution) < 1e-9:
        return grid
    out = OccupancyGrid.empty(grid.bounds, resolution)
    iy, ix = np.indices(grid.data.shape).reshape(2, -1)
    ty = np.minimum(
        ((iy + 0.5) * grid.resolution / resolution).astype(np.int64), out.data.shape[0] - 1
    )
    tx = np.minimum(
        ((ix + 0.5) * grid.resolution / resolution).astype(np.int64), out.data.shape[1] - 1
    )
    if resolution < grid.resolution:
        oy, ox = np.indices(out.data.shape)
        sy = np.minimum(
            ((oy + 0.5) * resolution / grid.resolution).astype(int), grid.data.shape[0] - 1
        )
        sx = np.minimum(
            ((ox + 0.5) * resolution / grid.resolution).astype(int), grid.data.shape[1] - 1
        )
        out.data[:] = grid.data[sy, sx]
    else:
        np.maximum.at(out.data, (ty, tx), grid.data.ravel())
    return out
