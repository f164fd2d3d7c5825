"""Tier M: the robots in MuJoCo with contacts, N at once on the thread pool of ``mujoco.batch``.

A robot can touch only what is near it, so a simulation holds a few obstacle slots instead of its
world: before every control period the statics and movers within reach are written into them by
``expand``. A step then costs the same in a maze and in a building, and a new layout costs nothing.
The midphase is off: ``expand`` cannot keep its bounding volumes right.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import mujoco
import numpy as np
from mujoco import batch as mjb
from numpy.typing import NDArray

from rnd_agv._jit import njit
from rnd_agv.robot import RobotSpec

from .backend import CONTROL_DT, PHYSICS_DT, Dynamics
from .bank import WorldBank
from .robots import (
    MOVER_MAX_M,
    PARKED_Z,
    WALL_M,
    add_obstacles,
    pair_friction,
    payload_inertia,
    robot_spec,
    wheel_speeds,
)
from .worlds import World

SUBSTEPS = round(CONTROL_DT / PHYSICS_DT)
MOVER_SLOTS = 4
"""Movers that one robot can touch in one period; of more, the nearest."""
REACH_MARGIN_M = 0.1
"""Slack beyond what the robot can cover in a period."""
JUMP_M = 1.0
"""A mover that goes farther in one period was put elsewhere: it appears there."""
MOCAP = int(mujoco.mjtState.mjSTATE_MOCAP_POS)
log = logging.getLogger(__name__)


class MujocoBatch:
    """N MuJoCo robots, see :class:`sim.backend.Backend`.

    Args:
        robot: which base; see :func:`sim.robots.robot_spec`.
        num_envs: N.
        bank: worlds shared with a lidar, or None for one of its own.
        n_movers: most movers a world may have; 0 leaves them out of the model.
        nthread: threads, 0 for all CPUs; results do not depend on it.

    Raises:
        ValueError: num_envs, n_movers or nthread is out of range.
    """

    def __init__(
        self,
        robot: RobotSpec,
        num_envs: int,
        bank: WorldBank | None = None,
        n_movers: int = 0,
        nthread: int = 0,
    ) -> None:
        if num_envs < 1 or n_movers < 0 or nthread < 0:
            raise ValueError(
                "num_envs must be >= 1, n_movers and nthread >= 0, "
                f"got {num_envs}, {n_movers}, {nthread}"
            )
        self.robot, self.num_envs, self.nthread = robot, num_envs, nthread
        self.bank = WorldBank() if bank is None else bank
        n = num_envs
        self.pose_w = np.zeros((n, 3))
        self.vel_b = np.zeros((n, 2))
        self.world = np.zeros(n, np.int32)
        self.slip = np.ones((n, 2))
        self.lag = np.full(n, 0.08)
        self.friction = np.full(n, 0.8)
        self.payload = np.zeros(n)
        self.movers = np.zeros((n, n_movers, 3))
        """Where movers were at the end of the last period; r = 0 before the first."""
        self._mover_slots = min(n_movers, MOVER_SLOTS)
        limits = robot.limits
        self._reach = robot.circumscribed_m + limits.v_max * CONTROL_DT + REACH_MARGIN_M
        self._rest = _rest_state(robot)
        self._build(boxes=8, discs=8)

    def _build(self, boxes: int, discs: int) -> None:
        """Compile the model with this many slots; on growth, keep the state."""
        spec = robot_spec(self.robot)
        add_obstacles(spec, boxes, discs, self._mover_slots)
        model = spec.compile()
        old = getattr(self, "batch", None)
        self.batch = mjb.Batch(model, self.num_envs, self.nthread)
        if old is not None:
            self.batch.state[:] = old.state
        b = self.batch
        self._qpos, self._qvel, self._ctrl = b.bind("qpos"), b.bind("qvel"), b.bind("ctrl")
        self._geom_pos, self._geom_size = b.expand("geom_pos"), b.expand("geom_size")
        self._geom_rbound = b.expand("geom_rbound")
        self._slots = np.array(
            [model.geom("box0").id, boxes, model.geom("disc0").id, discs]
            + ([model.geom("mover0").id] if self._mover_slots else [-1])
        )
        names = [model.pair(i).name for i in range(model.npair)]
        self._wheels = np.array(
            [i for i, name in enumerate(names) if not name.startswith("caster")]
        )
        self._payload_body = model.body("payload").id
        self._mocap = np.zeros((self.num_envs, SUBSTEPS, self._mover_slots, 3))
        self._count = np.zeros(2, np.int64)
        self._apply_dynamics(np.arange(self.num_envs))

    def _apply_dynamics(self, ids: NDArray[np.int64]) -> None:
        """Write the physical parameters of ``ids`` into their model fields."""
        b, nu = self.batch, self.batch.model.nu
        b.expand("actuator_dynprm")[ids, :nu, 0] = self.lag[ids, None]
        friction = pair_friction(self.friction[ids])[:, None]
        b.expand("pair_friction")[ids[:, None], self._wheels] = friction
        mass = np.maximum(self.payload[ids], 1e-6)
        b.expand("body_mass")[ids, self._payload_body] = mass
        inertia = mass[:, None] * payload_inertia(self.robot)
        b.expand("body_inertia")[ids, self._payload_body] = inertia
        # set_const also works out the bodies' bounding boxes: from the slots as compiled, which
        # hold any mover, not from what happens to be in them now
        self._geom_pos[ids], self._geom_size[ids] = b.model.geom_pos, b.model.geom_size
        self._geom_rbound[ids] = b.model.geom_rbound
        b.set_const(ids)

    def reset(
        self,
        ids: NDArray[np.int64],
        worlds: list[World],
        pose_w: NDArray[np.float64],
        dynamics: Dynamics,
    ) -> None:
        """See :meth:`sim.backend.Backend.reset`. ``ids`` must be sorted and unique."""
        ids, pose_w = np.asarray(ids, np.int64), np.asarray(pose_w, np.float64)
        k = len(ids)
        if len(worlds) != k or pose_w.shape != (k, 3) or not np.isfinite(pose_w).all():
            raise ValueError(
                f"worlds and pose_w must be {k} worlds and ({k}, 3) finite, "
                f"got {len(worlds)} and {pose_w.shape}"
            )
        if (dynamics.motor_lag_s <= 0).any() or (dynamics.friction <= 0).any():
            raise ValueError(f"motor_lag_s and friction must be > 0, got {dynamics}")
        if k == 0:
            return
        self.world[ids] = [self.bank.add(world) for world in worlds]
        self.slip[ids], self.lag[ids] = dynamics.slip, dynamics.motor_lag_s
        self.friction[ids], self.payload[ids] = dynamics.friction, dynamics.payload_kg
        self._apply_dynamics(ids)
        self.batch.reset(ids, stage=mujoco.mjtStage.mjSTAGE_NONE.value)
        self._qpos[ids] = self._rest
        self._qpos[ids, :2] = pose_w[:, :2]
        half = pose_w[:, 2] / 2
        c, s = np.cos(half), np.sin(half)
        w, x, y, z = self._rest[3:7]  # yaw * tilt at rest
        quat_wxyz = (c * w - s * z, c * x - s * y, c * y + s * x, c * z + s * w)
        self._qpos[ids, 3:7] = np.stack(quat_wxyz, axis=1)
        self.movers[ids] = 0.0
        self.pose_w[ids], self.vel_b[ids] = pose_w, 0.0
        self.pose_w[ids, 2] = np.arctan2(np.sin(pose_w[:, 2]), np.cos(pose_w[:, 2]))

    def step(self, command: NDArray[np.float64], movers: NDArray[np.float64]) -> None:
        """See :meth:`sim.backend.Backend.step`.

        Raises:
            ValueError: command is not (N, 2) and finite, or movers are too many.
            RuntimeError: a simulation diverged.
        """
        if command.shape != (self.num_envs, 2) or not np.isfinite(command).all():
            raise ValueError(f"command must be ({self.num_envs}, 2) and finite, got {command}")
        movers = self._padded(movers)
        self._fill(movers)
        sides = self.batch.model.nu // 2
        self._ctrl[:] = np.tile(wheel_speeds(self.robot, command) * self.slip, sides)
        if self._mover_slots:
            control = self._mocap.reshape(self.num_envs, SUBSTEPS, -1)
            self.batch.rollout(SUBSTEPS, control, MOCAP, record=())
        else:
            self.batch.step(nstep=SUBSTEPS)
        self.movers[:] = movers
        _measure(self._qpos, self._qvel, self.pose_w, self.vel_b)
        if not np.isfinite(self.pose_w).all():
            bad = np.flatnonzero(~np.isfinite(self.pose_w).all(axis=1))
            raise RuntimeError(f"simulations {bad.tolist()} diverged under commands {command[bad]}")

    def _padded(self, movers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Movers as (N, n_movers, 3); rows beyond are allowed if unused."""
        m = self.movers.shape[1]
        if movers.ndim != 3 or len(movers) != self.num_envs or movers.shape[2] != 3:
            raise ValueError(f"movers must be ({self.num_envs}, M, 3), got {movers.shape}")
        if movers.shape[1] > m and (movers[:, m:, 2] > 0).any():
            raise ValueError(f"movers must be at most {m}, got {movers.shape[1]}")
        if (movers[..., 2] > MOVER_MAX_M).any():
            raise ValueError(f"movers must have r <= {MOVER_MAX_M} m, got {movers[..., 2].max()}")
        out = np.zeros_like(self.movers)
        out[:, : movers.shape[1]] = movers[:, :m]
        return out

    def _fill(self, movers: NDArray[np.float64]) -> None:
        """Put the obstacles within reach into the slots, growing these where they do not do."""
        bank = self.bank
        _fill_slots(
            self.pose_w, self.world, bank.boxes, bank.nboxes, bank.discs, bank.ndiscs, self.movers,
            movers, self._reach, self._slots, self._geom_pos, self._geom_size, self._geom_rbound,
            self._mocap, self._count,
        )  # fmt: skip
        boxes, discs = int(self._slots[1]), int(self._slots[3])
        if self._count[0] > boxes or self._count[1] > discs:
            boxes, discs = (max(s, 2 * int(c)) if c > s else s for s, c in
                            ((boxes, self._count[0]), (discs, self._count[1])))  # fmt: skip
            log.info("obstacle slots grow to %d boxes and %d discs", boxes, discs)
            self._build(boxes, discs)
            self._fill(movers)

    _ARRAYS = ("pose_w", "vel_b", "slip", "lag", "friction", "payload", "movers")

    def state_dict(self) -> dict[str, Any]:
        """Everything the next step depends on but the worlds, which are the task's to restore.

        ``integration`` is mjSTATE_INTEGRATION of every simulation, (N, nstate).
        """
        out: dict[str, Any] = {name: getattr(self, name).copy() for name in self._ARRAYS}
        out["integration"] = self.batch.state.copy()
        return out

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on bit for bit from :meth:`state_dict`, the rows reset into their worlds before.

        Raises:
            ValueError: an array is missing or has another shape.
        """
        wanted = {name: getattr(self, name).shape for name in self._ARRAYS}
        wanted["integration"] = self.batch.state.shape
        got = {name: np.shape(value) for name, value in state.items()}
        if got != wanted:
            raise ValueError(f"state must have arrays of shapes {wanted}, got {got}")
        for name in self._ARRAYS:
            getattr(self, name)[:] = state[name]
        self._apply_dynamics(np.arange(self.num_envs))
        self.batch.state[:] = state["integration"]


def _rest_state(robot: RobotSpec) -> NDArray[np.float64]:
    """(nq,) qpos of the robot standing still at the origin, sunk into its contacts."""
    model = robot_spec(robot).compile()
    data = mujoco.MjData(model)
    mujoco.mj_step(model, data, 1000)
    qpos: NDArray[np.float64] = data.qpos.copy()
    w, x, y, z = qpos[3:7]
    yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    c, s = math.cos(-yaw / 2), math.sin(-yaw / 2)
    qpos[3:7] = c * w - s * z, c * x - s * y, c * y + s * x, c * z + s * w
    qpos[:2], qpos[7:] = 0.0, 0.0
    return qpos


@njit(cache=True)
def _measure(
    qpos: NDArray[Any], qvel: NDArray[Any], pose_w: NDArray[Any], vel_b: NDArray[Any]
) -> None:
    """Planar pose and body velocity of free joints, from state: derived fields lag a substep."""
    for i in range(len(qpos)):
        w, x, y, z = qpos[i, 3], qpos[i, 4], qpos[i, 5], qpos[i, 6]
        yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        pose_w[i, 0], pose_w[i, 1], pose_w[i, 2] = qpos[i, 0], qpos[i, 1], yaw
        vel_b[i, 0] = qvel[i, 0] * math.cos(yaw) + qvel[i, 1] * math.sin(yaw)
        vel_b[i, 1] = qvel[i, 5]


@njit(cache=True)
def _fill_slots(
    pose_w: NDArray[Any], world: NDArray[Any], boxes: NDArray[Any], nboxes: NDArray[Any],
    discs: NDArray[Any], ndiscs: NDArray[Any], before: NDArray[Any], movers: NDArray[Any],
    reach: float, slots: NDArray[Any], pos: NDArray[Any], size: NDArray[Any], rbound: NDArray[Any],
    mocap: NDArray[Any], count: NDArray[Any],
) -> None:  # fmt: skip
    """Write statics and movers within ``reach`` of each robot into its slots, in world order.

    Args:
        before, movers: (N, M, 3) at the start and the end of the period.
        slots: first box geom, boxes, first disc geom, discs, first mover geom.
        pos, size, rbound, mocap: out; mocap is (N, substeps, slots, 3), the movers' path.
        count: (2,) out, most boxes and discs that any robot needs.
    """
    box0, kb, disc0, kd, mover0 = slots[0], slots[1], slots[2], slots[3], slots[4]
    h = WALL_M / 2
    count[:] = 0
    chosen = np.empty(mocap.shape[2], np.int64)
    near = np.empty(mocap.shape[2])
    for i in range(len(pose_w)):
        px, py, w = pose_w[i, 0], pose_w[i, 1], world[i]
        used = 0
        for k in range(nboxes[w]):
            cx, cy = float(boxes[w, k, 0]), float(boxes[w, k, 1])
            hx, hy = float(boxes[w, k, 2]), float(boxes[w, k, 3])
            dx, dy = max(abs(px - cx) - hx, 0.0), max(abs(py - cy) - hy, 0.0)
            if dx * dx + dy * dy < reach * reach:
                if used < kb:
                    g = box0 + used
                    pos[i, g, 0], pos[i, g, 1], pos[i, g, 2] = cx, cy, h
                    size[i, g, 0], size[i, g, 1], size[i, g, 2] = hx, hy, h
                    rbound[i, g] = math.sqrt(hx * hx + hy * hy + h * h)
                used += 1
        count[0] = max(count[0], used)
        for k in range(used, kb):
            pos[i, box0 + k, 2] = PARKED_Z
        used = 0
        for k in range(ndiscs[w]):
            cx, cy = float(discs[w, k, 0]), float(discs[w, k, 1])
            r = float(discs[w, k, 2])
            if math.hypot(px - cx, py - cy) - r < reach:
                if used < kd:
                    g = disc0 + used
                    pos[i, g, 0], pos[i, g, 1], pos[i, g, 2] = cx, cy, h
                    size[i, g, 0], size[i, g, 1] = r, h
                    rbound[i, g] = math.sqrt(r * r + h * h)
                used += 1
        count[1] = max(count[1], used)
        for k in range(used, kd):
            pos[i, disc0 + k, 2] = PARKED_Z
        used = 0
        for m in range(movers.shape[1]):
            r = movers[i, m, 2]
            if r <= 0:
                continue
            gap = math.hypot(px - movers[i, m, 0], py - movers[i, m, 1]) - r
            if gap < reach + JUMP_M and (used < len(chosen) or gap < near.max()):
                slot = used if used < len(chosen) else int(near.argmax())
                chosen[slot], near[slot] = m, gap
                used = min(used + 1, len(chosen))
        steps = mocap.shape[1]
        for slot in range(len(chosen)):
            if slot >= used:
                mocap[i, :, slot, 0] = mocap[i, :, slot, 1] = 0.0
                mocap[i, :, slot, 2] = PARKED_Z
                continue
            m = chosen[slot]
            x, y, r = movers[i, m, 0], movers[i, m, 1], movers[i, m, 2]
            dx, dy = x - before[i, m, 0], y - before[i, m, 1]
            if before[i, m, 2] <= 0 or math.hypot(dx, dy) > JUMP_M:
                dx = dy = 0.0
            for t in range(steps):
                left = 1.0 - (t + 1) / steps
                mocap[i, t, slot, 0], mocap[i, t, slot, 1] = x - left * dx, y - left * dy
                mocap[i, t, slot, 2] = h
            size[i, mover0 + slot, 0], size[i, mover0 + slot, 1] = r, h
            rbound[i, mover0 + slot] = math.sqrt(r * r + h * h)
