"""One robot on a height field in MuJoCo, with a lidar of many rings and what its wheels work.

The planar batch engine keeps its robots on a plane, so this is a small engine of its own. The
robot is that of :mod:`sim.robots` with the floor replaced by the field.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnd_agv.robot import JACKAL, RobotSpec

from .backend import CONTROL_DT, PHYSICS_DT
from .robots import GROUP_STATIC, IMPACT, robot_spec, wheel_speeds
from .terrain_rays import cast
from .worlds.terrain import Terrain

SUBSTEPS = round(CONTROL_DT / PHYSICS_DT)
SETTLE = 100
"""Physics steps at a reset, for the wheels to find the ground."""


@dataclass(frozen=True)
class RingLidar:
    """A lidar with rings of beams on a mast."""

    rings: int = 24
    azimuths: int = 120
    low_rad: float = -0.45
    """Elevation of the lowest ring, in base_link."""
    high_rad: float = 0.15
    """Elevation of the highest ring."""
    range_m: float = 18.0
    height_m: float = 0.7
    """Of its centre above base_link."""
    sigma_m: float = 0.01
    """Standard deviation of a range."""
    tilt_sigma_rad: float = 0.003
    """Standard deviation of the roll and the pitch that the robot believes it has, each scan."""

    def __post_init__(self) -> None:
        if self.rings < 2 or self.azimuths < 4 or not self.low_rad < self.high_rad:
            raise ValueError(f"rings >= 2, azimuths >= 4, low < high wanted, got {self}")
        if min(self.range_m, self.height_m) <= 0 or min(self.sigma_m, self.tilt_sigma_rad) < 0:
            raise ValueError(f"range_m, height_m > 0 and sigmas >= 0 wanted, got {self}")

    @property
    def bearings(self) -> NDArray[np.float64]:
        """(azimuths,) rad; the first beam looks backwards."""
        step = 2 * np.pi / self.azimuths
        return np.asarray(-np.pi + step / 2 + step * np.arange(self.azimuths), np.float64)

    @property
    def directions_b(self) -> NDArray[np.float64]:
        """(rings, azimuths, 3) unit vectors in base_link, lowest ring first."""
        rise = np.linspace(self.low_rad, self.high_rad, self.rings)[:, None]
        turn = self.bearings[None]
        parts = np.cos(rise) * np.cos(turn), np.cos(rise) * np.sin(turn), np.sin(rise) + 0 * turn
        return np.stack(parts, axis=-1)


def terrain_spec(terrain: Terrain, robot: RobotSpec = JACKAL) -> mujoco.MjSpec:
    """The robot of :func:`sim.robots.robot_spec` on a terrain; the trunks are ``tree0..``.

    Its hull touches the ground too: a robot that tips over lies on it.
    """
    spec = robot_spec(robot)
    low, high = float(terrain.heights.min()), float(terrain.heights.max())
    rise = max(high - low, 1e-3)
    x0, y0, x1, y1 = terrain.bounds
    rows, columns = terrain.heights.shape
    spec.add_hfield(
        name="terrain", nrow=rows, ncol=columns, size=((x1 - x0) / 2, (y1 - y0) / 2, rise, 1.0),
        userdata=((terrain.heights - low) / rise).ravel(),
    )  # fmt: skip
    floor = spec.geom("floor")
    floor.type, floor.hfieldname = mujoco.mjtGeom.mjGEOM_HFIELD, "terrain"
    floor.pos = ((x0 + x1) / 2, (y0 + y1) / 2, low)
    hull = spec.add_pair(name="hull", geomname1="floor", geomname2="hull", condim=3)
    hull.solref = IMPACT
    for i, ((x, y, r), foot) in enumerate(zip(terrain.trees, terrain.foot_w, strict=True)):
        half = terrain.tree_m / 2 + 0.25  # it begins half a metre under the ground
        tree = spec.worldbody.add_geom(
            name=f"tree{i}", type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=(r, half, 0),
            pos=(x, y, foot + terrain.tree_m - half), group=GROUP_STATIC, contype=0, conaffinity=1,
            rgba=(0.36, 0.26, 0.18, 1),
        )  # fmt: skip
        tree.solref, tree.friction = IMPACT, [0.2, 0.005, 0.0001]
    return spec


class TerrainSim:
    """One robot on one terrain, stepped by 50 ms.

    Args:
        terrain: where.
        robot: which base; wheels of a skid steer grip the ground one by one.
        lidar: its rings.
        rollover_cos: it has rolled over once its z axis and the vertical have a smaller cosine.
        seed: of the noise.

    Raises:
        ValueError: rollover_cos is not in (0, 1).
    """

    def __init__(
        self, terrain: Terrain, robot: RobotSpec = JACKAL, lidar: RingLidar | None = None,
        rollover_cos: float = 0.5, seed: int = 0,
    ) -> None:  # fmt: skip
        if not 0 < rollover_cos < 1:
            raise ValueError(f"rollover_cos must be in (0, 1), got {rollover_cos}")
        self.terrain, self.robot, self.lidar = terrain, robot, lidar or RingLidar()
        self.rollover_cos = rollover_cos
        self.model = terrain_spec(terrain, robot).compile()
        self.data = mujoco.MjData(self.model)
        self._directions_b = self.lidar.directions_b.reshape(-1, 3)
        self._trunks = np.column_stack(
            [terrain.trees, terrain.foot_w - 0.5, terrain.foot_w + terrain.tree_m]
        )
        self._statics = np.flatnonzero(self.model.geom_group == GROUP_STATIC)
        hinge = mujoco.mjtJoint.mjJNT_HINGE
        self._wheels = self.model.jnt_dofadr[np.flatnonzero(self.model.jnt_type == hinge)]
        self.reset(seed)

    def reset(self, seed: int | None = None) -> None:
        """Put the robot to the start, at rest; with a seed, the noise begins anew."""
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        mujoco.mj_resetData(self.model, self.data)
        x, y, yaw = self.terrain.start_w
        around = self.terrain.height(
            self.terrain.start_w[:2] + self.robot.circumscribed_m * np.array(
                [[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1], [0.7, 0.7], [-0.7, 0.7], [0.7, -0.7],
                 [-0.7, -0.7]]
            )
        )  # fmt: skip
        self.data.qpos[:3] = x, y, around.max() + 0.02
        self.data.qpos[3:7] = np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)
        mujoco.mj_step(self.model, self.data, nstep=SETTLE)
        self.energy_j = 0.0
        """Positive mechanical work of the wheels since the reset. What braking takes from the robot
        is lost as heat, as it is in a drive that cannot store it."""
        self.driven_m = 0.0
        """Length of the way in space since the reset, m."""
        self.worst_tilt_rad = 0.0
        """Largest angle between the robot's z axis and the vertical since the reset."""
        self.touched = self.rolled_over = False
        self._read()

    def _read(self) -> None:
        """Take pose and speeds from the physics."""
        self.pos_w: NDArray[np.float64] = self.data.qpos[:3].copy()
        rot = np.empty(9)
        mujoco.mju_quat2Mat(rot, self.data.qpos[3:7])
        self.rot = rot.reshape(3, 3)
        """Axes of base_link as columns, in the world."""
        yaw = np.arctan2(self.rot[1, 0], self.rot[0, 0])
        self.pose_w: NDArray[np.float64] = np.array([*self.pos_w[:2], yaw])
        forward = self.rot[:, 0] @ self.data.qvel[:3]
        self.vel_b: NDArray[np.float64] = np.array([forward, self.data.qvel[5]])
        self.tilt_rad = float(np.arccos(np.clip(self.rot[2, 2], -1, 1)))
        self.worst_tilt_rad = max(self.worst_tilt_rad, self.tilt_rad)
        self.rolled_over |= bool(self.rot[2, 2] < self.rollover_cos)

    def step(self, command: ArrayLike) -> None:
        """Drive for 50 ms with a (2,) command, v m/s and w rad/s, cut to the robot's limits."""
        limits = self.robot.limits
        asked = np.asarray(command, np.float64)
        if asked.shape != (2,) or not np.isfinite(asked).all():
            raise ValueError(f"command must be 2 finite numbers, got {asked}")
        wanted = np.clip(asked, (limits.v_min, -limits.w_max), (limits.v_max, limits.w_max))
        model, data = self.model, self.data
        data.ctrl[:] = np.tile(wheel_speeds(self.robot, wanted), model.nu // 2)
        before = self.pos_w
        for _ in range(SUBSTEPS):
            mujoco.mj_step(model, data)
            power = data.actuator_force * data.qvel[self._wheels]
            self.energy_j += float(np.maximum(power, 0).sum()) * PHYSICS_DT
        self._read()
        self.driven_m += float(np.linalg.norm(self.pos_w - before))
        if data.ncon:
            self.touched |= bool(np.isin(data.contact.geom, self._statics).any())

    def scan(self) -> NDArray[np.float64]:
        """(rings, azimuths) m with noise; ``range_m`` where nothing is nearer."""
        mast_w = self.pos_w + self.rot @ np.array([0.0, 0.0, self.lidar.height_m])
        t = self.terrain
        ranges = cast(
            mast_w, self._directions_b @ self.rot.T, t.heights, (*t.origin_w, t.cell_m),
            self._trunks, self.lidar.range_m,
        )  # fmt: skip
        hit = ranges < self.lidar.range_m
        ranges[hit] += self.lidar.sigma_m * self.rng.standard_normal(int(hit.sum()))
        return np.clip(ranges, 0, self.lidar.range_m).reshape(self.lidar.rings, -1)

    def attitude(self) -> NDArray[np.float64]:
        """(3, 3) axes of base_link in the world as an inertial unit has them, with its noise."""
        a, b = self.lidar.tilt_sigma_rad * self.rng.standard_normal(2)
        skew = np.array([[0.0, 0.0, b], [0.0, 0.0, -a], [-b, a, 0.0]])
        return np.asarray(self.rot @ (np.eye(3) + skew), np.float64)
