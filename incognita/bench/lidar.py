"""Scans of the numba caster against ``mj_multiRay``: speed and error."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np
import typer
from numpy.typing import NDArray

from rnd_agv.observation import full_circle
from rnd_agv.robot import AGV
from sim.lidar import cast
from sim.robots import GROUP_STATIC, world_spec
from sim.worlds import World

from ..cli import JsonFile
from .maze import maze, walks
from .paired import Report, Seeds, Smoke, Timing, alternate

TARGETS = {64: 50.0, 360: 35.0}
"""Rays -> least CPU ratio."""
ERROR_MM = 1.0
GRAZE_RAD = 1e-6
"""A ray this close to an edge may count as a hit or as a miss: 10 um at 10 m."""
RANGE_M = 10.0


class Scans:
    """The same scans, from the same poses of one maze, by both.

    Args:
        seed: of maze and poses.
        rays: beams of a full circle.
        scans: how many.
    """

    def __init__(self, seed: int, rays: int, scans: int) -> None:
        self.world: World = maze(seed)
        self.rays, self.scans = rays, scans
        self.scan = full_circle(rays, RANGE_M)
        rng = np.random.default_rng([seed, rays])
        places = walks(seed, (1.0, 5.0))[rng.integers(256, size=scans)]
        yaw = rng.uniform(-np.pi, np.pi, scans)
        self.poses = np.concatenate([places[:, :2], yaw[:, None]], axis=1)
        self.model = world_spec(self.world, AGV).compile()
        self.data = mujoco.MjData(self.model)
        mujoco.mj_forward(self.model, self.data)
        self.group = np.zeros(6, np.uint8)
        self.group[GROUP_STATIC] = 1
        self.theirs = np.zeros((scans, rays), np.float32)
        self.mine = np.zeros((scans, rays), np.float32)

    def multi_ray(self) -> int:
        """``mj_multiRay``, one call a scan, as little Python around it as can be."""
        ids, dist = np.zeros(self.rays, np.int32), np.zeros(self.rays)
        vec = np.zeros((self.rays, 3))
        angles = self.scan.angles
        for row, (x, y, yaw) in enumerate(self.poses):
            turned = angles + yaw
            np.cos(turned, out=vec[:, 0])
            np.sin(turned, out=vec[:, 1])
            mujoco.mj_multiRay(
                self.model, self.data, np.array([x, y, AGV.lidar_z_m]), vec.ravel(), self.group,
                True, -1, ids, dist, None, self.rays, RANGE_M,
            )  # fmt: skip
            self.theirs[row] = np.where(dist < 0, RANGE_M, np.minimum(dist, RANGE_M))
        return self.scans

    def errors_mm(self) -> tuple[NDArray[np.float64], int]:
        """(scans, rays) differences, mm, and how many rays graze an edge.

        A grazing ray is judged by the nearest of MuJoCo's readings 1e-6 rad to either side.
        """
        error = np.abs(self.mine.astype(np.float64) - self.theirs)
        grazing = 0
        for row, beam in np.argwhere(1000 * error > ERROR_MM):
            x, y, yaw = self.poses[row]
            start, hit = np.array([x, y, AGV.lidar_z_m]), np.zeros(1, np.int32)
            for turn in (-GRAZE_RAD, GRAZE_RAD):
                angle = yaw + self.scan.angles[beam] + turn
                ray = np.array([np.cos(angle), np.sin(angle), 0.0])
                far = mujoco.mj_ray(self.model, self.data, start, ray, self.group, True, -1, hit)
                reading = min(far, RANGE_M) if far >= 0 else RANGE_M
                error[row, beam] = min(error[row, beam], abs(self.mine[row, beam] - reading))
            grazing += 1000 * error[row, beam] <= ERROR_MM
        return 1000 * error, int(grazing)

    def caster(self) -> Callable[[], int]:
        """Work: the numba caster on all scans in one call."""
        boxes, discs = self.world.boxes[None], np.zeros((1, 1, 3), np.float32)
        nboxes, ndiscs = np.array([len(self.world.boxes)], np.int32), np.zeros(1, np.int32)
        world_id, movers = np.zeros(self.scans, np.int32), np.zeros((self.scans, 0, 3))

        def work() -> int:
            cast(
                self.poses, self.scan.angle_min, self.scan.angle_increment, boxes, nboxes, discs,
                ndiscs, world_id, movers, RANGE_M, self.mine,
            )  # fmt: skip
            return self.scans

        return work


def repeat(work: Callable[[], int], times: int) -> Callable[[], int]:
    """The work several times over, so that both sides are timed for about as long."""

    def again() -> int:
        return sum(work() for _ in range(times))

    return again


def lidar(seeds: Seeds = 3, smoke: Smoke = False, json_file: JsonFile = None) -> None:
    """64 and 360 rays in the 60-box maze against mj_multiRay (about 0.02 core-hours)."""
    scans, rounds = (64, 2) if smoke else (1024, 9)
    about = (
        f"{scans} scans a round from free poses of a 60-box maze, range {RANGE_M:g} m, no noise."
    )
    report = Report(f"lidar --seeds {seeds}", seeds, about)
    for rays, target in TARGETS.items():
        timings: dict[str, Timing] = {}
        errors: list[NDArray[np.float64]] = []
        grazes = 0
        base, mine = f"mj_multiRay {rays}", f"ours {rays}"
        for seed in range(seeds):
            job = Scans(seed, rays, scans)
            works = {base: job.multi_ray, mine: repeat(job.caster(), 20)}
            alternate(works, rounds, seed, timings)
            error, grazing = job.errors_mm()
            errors.append(error)
            grazes += grazing
        report.timings(timings, "scan")
        report.ratio(base, mine, timings, target, "cpu")
        all_errors = np.concatenate(errors)
        what = f"largest error of {all_errors.size} ranges, mm ({rays} rays)"
        report.target(what, all_errors.max(), ERROR_MM, most=True)
        report.target(
            f"rays that graze an edge within {GRAZE_RAD:g} rad ({rays} rays)", grazes, None
        )
    report.finish(json_file, smoke)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("lidar")(lidar)
