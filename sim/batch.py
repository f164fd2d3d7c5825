"""The batch engine: N episodes of one task on one backend and one clock, resetting by themselves.

Row i depends on the seed and on i alone, never on N: a batch of one equals row 0 of a batch of 64.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from learning.vec_env import EXPLORE, EnvSpec, Step
from rnd_agv._jit import njit
from rnd_agv.command import command_from_action, limit_rate
from rnd_agv.grid import integrate_many
from rnd_agv.guide import Guide
from rnd_agv.kinematics import touching
from rnd_agv.observation import sector_min

from . import movers as moving
from .backend import CONTROL_DT, SCAN_EVERY, Backend
from .bank import WorldBank
from .kinematic import Kinematic
from .lidar import cast, cast_labelled
from .noise import scan_noise
from .randomization import NOMINAL, PARAMETERS, Randomization, delay_steps, dynamics
from .tasks.agv import AgvTask, Placement, State
from .worlds.world import PERSON

CONTACT_MARGIN_M = 0.005
LOCALIZATION_TAU_S = 5.0
"""Odometry drift is pulled back to the truth with this time constant, as a localiser does."""
MAX_ACTION_DELAY = 4
"""Control periods."""
VISITED = 1024
"""Cells of its own that an episode remembers."""
NOWHERE = np.iinfo(np.int32).min
Tier = Literal["kinematic", "mujoco"]
Rows = NDArray[np.int64] | slice


class BatchEnv:
    """N environments of one task; implements :class:`learning.vec_env.VecEnv`.

    Args:
        task: what is simulated.
        num_envs: N.
        tier: "kinematic" (K) or "mujoco" (M).
        seed: of everything drawn.
        randomization: ranges of the domain randomization, drawn per episode.
        threads: of tier M; results do not depend on it.
        first_row: number of row 0, so that several batches can share one seed.
    """

    def __init__(
        self,
        task: AgvTask,
        num_envs: int,
        tier: Tier = "kinematic",
        seed: int = 0,
        randomization: Randomization = NOMINAL,
        threads: int = 1,
        first_row: int = 0,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be >= 1, got {num_envs}")
        if tier not in ("kinematic", "mujoco"):
            raise ValueError(f'tier must be "kinematic" or "mujoco", got {tier!r}')
        self.task, self.tier, self.seed, self.first_row = task, tier, int(seed), int(first_row)
        self.randomization = randomization
        c = task.config
        self.config, self.robot, self.scan = c, task.robot, task.scan
        self.num_envs = n = num_envs
        self.bank = WorldBank()
        self.backend: Backend
        if tier == "kinematic":
            self.backend = Kinematic(task.robot, n, self.bank)
        else:
            from .mujoco_batch import MujocoBatch

            self.backend = MujocoBatch(task.robot, n, n_movers=c.max_movers, nthread=threads)
        self.spec = EnvSpec(n, c.observation.dim, 2, len(EXPLORE), CONTROL_DT, c.max_steps)
        self.guide = Guide(c.guide_config, task.robot, n) if c.guide != "none" else None
        shaped = bool(c.progress_reward)
        # the potential of the shaping is always the true map's, whatever the policy is shown
        self.oracle = (
            Guide(c.guide_config, task.robot, n) if shaped and c.guide != "known" else None
        )
        self._half = np.array(task.robot.half_extents)
        # how far the footprint reaches along each beam, m
        c_, s_ = np.abs(np.cos(self.scan.angles)), np.abs(np.sin(self.scan.angles))
        across = np.stack(
            [self._half[0] / np.maximum(c_, 1e-9), self._half[1] / np.maximum(s_, 1e-9)]
        )
        self._reach = across.min(axis=0).astype(np.float32)
        self.episode = np.zeros(n, np.int64)
        self.stream = np.zeros(n, np.uint64)
        self.layout = np.zeros(n, np.int64)
        self.world = np.zeros(n, np.int32)
        self.drawn = np.zeros((n, len(PARAMETERS)))
        self.action_delay = np.zeros(n, np.int64)
        self.scan_delay = np.zeros(n, np.int64)
        f, s = c.observation.frames, c.observation.sectors
        self.ring = np.ones((n, f + 1, s), np.float32)
        self.ranges = np.zeros((n, c.beams), np.float32)
        self.pending = np.zeros((n, MAX_ACTION_DELAY + 1, 2))
        m = c.max_movers + 1  # the last one is the moving target
        self.movers: dict[str, NDArray[Any]] = {
            name: np.stack([row] * n) for name, row in moving.place([], m).items()
        }
        self.target = np.zeros(n, bool)
        self.visited = np.full((n, VISITED if c.stale_steps else 0, 2), NOWHERE, np.int32)
        """(N, VISITED, 2) cells entered in the running episode, newest first."""
        self._no_movers = np.zeros((n, 0, 3))
        self.labels = np.full((n, c.beams if c.labels else 0), -1, np.int8)
        """(N, beams) index into ``worlds.LABELS`` of what each beam of the newest scan hit."""
        self.wanted = np.full(n, -1, np.int8)
        self.floor = np.ones(n)
        """(N,) free cells of the floor, where coverage is kept."""
        zero = np.zeros
        self.state = State(
            pose_w=zero((n, 3)), seen_pose_w=zero((n, 3)), vel_b=zero((n, 2)), goal_w=zero((n, 2)),
            frames=np.ones((n, f, s), np.float32), clearance_m=zero(n), last_command=zero((n, 2)),
            last_action=zero((n, 2)), action=zero((n, 2)), contact=zero((n, 3), bool),
            touches=zero(n, np.int64), cost_to_go=zero(n), last_cost_to_go=zero(n),
            seen_share=zero(n), last_seen_share=zero(n),
            wanted_m=np.full(n, np.inf), wanted_w=np.full((n, 2), np.nan),
            stale=zero(n, np.int64), guide_w=zero((n, 2)) if self.guide else None,
            t=zero(n, np.int64),
        )  # fmt: skip
        self.at_fault = np.zeros(n, bool)
        self.collided = np.zeros(n, bool)
        """Has the episode had what ends it in evaluation, see :meth:`AgvTask.collided`?"""
        self.path_m = np.zeros(n)
        self.placements: list[Placement | None] = [None] * n
        self.arrived_w = zero((n, 5))
        """(N, 5) true [x, y, yaw, goal x, goal y] that the last step led to, before any reset."""

    # the VecEnv contract

    def reset(self) -> NDArray[np.float32]:
        """Start the next episode of every row, so ``reset`` twice differs."""
        self._reset_rows(np.arange(self.num_envs))
        return self.task.observe(self.state)

    def step(self, action: NDArray[np.float32]) -> Step:
        """Advance all by one control period under (N, 2) actions in [-1, 1]."""
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (self.num_envs, 2):
            raise ValueError(f"action must be ({self.num_envs}, 2), got {action.shape}")
        s = self.state
        finite = action if np.isfinite(action.sum()) else np.nan_to_num(action)
        s.last_action, s.action = s.action, np.clip(finite, -1, 1)
        wanted = command_from_action(action, self.robot.limits)
        if self.action_delay.any():  # an episode with a delay starts from zeros, see _start
            self.pending = np.roll(self.pending, 1, axis=1)
            self.pending[:, 0] = wanted
            wanted = self.pending[np.arange(self.num_envs), self.action_delay]
        s.last_command = limit_rate(wanted, s.last_command, self.robot.limits, CONTROL_DT)
        s.last_seen_share[:] = s.seen_share
        self._advance()
        terms = self.task.reward(s)
        terminated, truncated, outcome = self.task.done(s)
        reward = np.sum(list(terms.values()), axis=0).astype(np.float32)
        explore = self.explore()
        self.arrived_w[:, :3], self.arrived_w[:, 3:] = s.pose_w, s.goal_w
        obs = self.task.observe(s)
        final_obs = obs
        done = terminated | truncated
        info: dict[str, NDArray[Any]] = {f"reward/{name}": value for name, value in terms.items()}
        info |= outcome | {"at_fault": self.at_fault.copy(), "path_m": self.path_m.copy()}
        info |= {"clean": outcome["success"] & ~self.collided, "episode_length": s.t.copy()}
        if done.any():
            final_obs = obs.copy()
            rows = np.flatnonzero(done)
            self._reset_rows(rows)
            obs[rows] = self.task.observe(s.rows(rows))
        return Step(obs, reward, terminated, truncated, final_obs, explore, info)

    def explore(self) -> NDArray[np.float32]:
        """(N, 6) novelty state, see :data:`learning.vec_env.EXPLORE`."""
        s = self.state
        out = np.empty((self.num_envs, len(EXPLORE)), np.float32)
        out[:, :3], out[:, 3:5], out[:, 5] = s.seen_pose_w, s.goal_w, self.layout
        return out

    # the clock

    def _advance(self) -> None:
        """One control period: things that move, the robot, the sensors."""
        s, bank = self.state, self.bank
        v = self.movers
        if self.config.max_movers or self.target.any():
            moving.step(
                v["xy"], v["vel"], v["radius"], v["kind"], v["speed"], v["way"], v["leg"],
                v["wait"], s.pose_w, self.robot.circumscribed_m, self.world, bank.boxes,
                bank.nboxes, bank.discs, bank.ndiscs, CONTROL_DT,
            )  # fmt: skip
            s.goal_w[self.target] = v["xy"][self.target, -1]
        before = s.pose_w.copy()
        discs = self.obstacles()
        self.backend.step(s.last_command, discs)
        s.pose_w[:], s.vel_b[:] = self.backend.pose_w, self.backend.vel_b
        touching(
            s.pose_w, s.last_command, self._half, self.world, bank.boxes, bank.nboxes, bank.discs,
            bank.ndiscs, discs, CONTACT_MARGIN_M, s.contact,
        )  # fmt: skip
        self.at_fault |= s.contact[:, 2]
        self.collided |= self.task.collided(s)
        s.touches += s.contact[:, 0] | s.contact[:, 1]
        dx, dy = (s.pose_w - before)[:, :2].T
        self.path_m += np.sqrt(dx * dx + dy * dy)
        self._localize(before)
        s.t += 1
        if self.config.stale_steps:
            _visit(s.pose_w, self.config.stale_cell_m, self.visited, s.stale)
        due = s.t % SCAN_EVERY == 0
        if due.any():
            self._sense(np.flatnonzero(due))
        self._plan()

    def obstacles(self) -> NDArray[np.float64]:
        """(N, max_movers, 3) moving discs [x, y, r]; the moving target is not among them."""
        m = self.config.max_movers
        if m == 0:
            return self._no_movers
        xy, radius = self.movers["xy"][:, :m], self.movers["radius"][:, :m]
        return np.concatenate([xy, radius[..., None]], axis=2)

    def _localize(self, before: NDArray[np.float64]) -> None:
        """Add this period's drifting odometry to the seen pose and pull it to the truth."""
        s = self.state
        drift = self.drawn[:, PARAMETERS.index("odometry_drift")]
        if not drift.any():
            s.seen_pose_w[:] = s.pose_w
            return
        move = s.pose_w - before
        move[:, 2] = _wrap(move[:, 2])
        turn = s.seen_pose_w[:, 2] - before[:, 2]
        c, n = np.cos(turn), np.sin(turn)
        scale = 1 + drift
        s.seen_pose_w[:, 0] += scale * (c * move[:, 0] - n * move[:, 1])
        s.seen_pose_w[:, 1] += scale * (n * move[:, 0] + c * move[:, 1])
        s.seen_pose_w[:, 2] += scale * move[:, 2]
        error = s.pose_w - s.seen_pose_w
        error[:, 2] = _wrap(error[:, 2])
        s.seen_pose_w += error * (CONTROL_DT / LOCALIZATION_TAU_S)
        s.seen_pose_w[:, 2] = _wrap(s.seen_pose_w[:, 2])

    def lidar_pose(self, rows: Rows, seen: bool = False) -> NDArray[np.float64]:
        """(k, 3) lidar poses in the world, true or as localisation has them."""
        base = self.state.seen_pose_w if seen else self.state.pose_w
        pose = base[rows].copy()
        pose[:, 0] += self.robot.lidar_x_m * np.cos(pose[:, 2])
        pose[:, 1] += self.robot.lidar_x_m * np.sin(pose[:, 2])
        return pose

    def _sense(self, rows: NDArray[np.int64], first: bool = False) -> None:
        """Take a scan for these rows and push it on their frame stacks."""
        s, bank, c = self.state, self.bank, self.config
        some: Rows = rows if len(rows) < self.num_envs else slice(None)  # all: views, no copies
        pose = self.lidar_pose(some)
        drawn = self.drawn[some]
        pose[:, 2] += drawn[:, PARAMETERS.index("lidar_yaw_rad")]
        ranges, stream = self.ranges[some], self.stream[some]
        geometry = (
            pose, self.scan.angle_min, self.scan.angle_increment, bank.boxes, bank.nboxes,
            bank.discs, bank.ndiscs, self.world[some], self.obstacles()[some], self.scan.range_max,
        )  # fmt: skip
        if c.labels:
            self._look(rows, some, geometry, ranges)
        else:
            cast(*geometry, ranges)
        scan_noise(
            ranges, stream, drawn[:, PARAMETERS.index("lidar_sigma_m")],
            drawn[:, PARAMETERS.index("lidar_dropout")], self.scan.range_max,
        )  # fmt: skip
        new = sector_min(ranges, self.scan, c.observation)
        if some is rows:
            self.ranges[rows], self.stream[rows] = ranges, stream
        _keep(
            rows, ranges, self._reach, new, self.scan_delay, first, s.clearance_m, self.ring,
            s.frames,
        )  # fmt: skip
        if self.guide is not None and c.guide == "built":
            self._map(rows)

    def _look(
        self, rows: NDArray[np.int64], some: Rows, geometry: Any, ranges: NDArray[np.float32]
    ) -> None:
        """Cast beams with labels, and note where the nearest thing is that is looked for."""
        s, bank = self.state, self.bank
        labels, discs = self.labels[some], geometry[8]
        people = np.full(discs.shape[:2], PERSON, np.int8)
        kinds = (bank.box_labels, bank.disc_labels, people)
        cast_labelled(*(*geometry, *kinds, ranges, labels))
        self.labels[some] = labels
        near = np.where(labels == self.wanted[some][:, None], ranges, np.inf)
        beam, k = near.argmin(axis=1), np.arange(len(rows))
        s.wanted_m[some] = near[k, beam]
        seen = np.isfinite(near[k, beam]) & (self.wanted[some] >= 0)
        s.wanted_m[rows[~seen]] = np.inf
        lidar = self.lidar_pose(rows, seen=True)[seen]
        angle = lidar[:, 2] + self.scan.angles[beam[seen]]
        away = near[k, beam][seen, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        s.wanted_w[rows[seen]] = lidar[:, :2] + away

    def _map(self, rows: NDArray[np.int64]) -> None:
        """Enter the newest scans into the maps that grow."""
        guide = self.guide
        assert guide is not None
        lidar = self.lidar_pose(rows, seen=True)
        limit = min(self.scan.range_max, self.config.observation.max_range)
        if len(rows) == self.num_envs:
            integrate_many(guide.data, guide.origin_w, guide.config.resolution, lidar,
                           self.ranges, self.scan.angles, limit)  # fmt: skip
        else:
            for k, row in enumerate(rows):
                one = slice(row, row + 1)
                integrate_many(
                    guide.data[one], guide.origin_w[one], guide.config.resolution,
                    lidar[k : k + 1], self.ranges[one], self.scan.angles, limit,
                )  # fmt: skip
        if self.config.coverage:
            free = np.array([np.count_nonzero(guide.data[row] == 0) for row in rows])
            self.state.seen_share[rows] = free / self.floor[rows]

    def _plan(self) -> None:
        """Refresh guide points and cost to go; plan anew where the map or the goal has changed."""
        s, guide = self.state, self.guide
        if guide is not None:
            period = guide.config.replan_steps
            moving_map = (self.config.guide == "built") | self.target
            for row in np.flatnonzero(moving_map & (s.t % period == 0)):
                guide.goal_w[row] = s.goal_w[row]
                guide.plan(int(row))
            s.guide_w = guide.points(s.seen_pose_w)
        truth = self.oracle or guide
        if truth is not None and self.config.progress_reward:
            s.last_cost_to_go[:] = s.cost_to_go
            s.cost_to_go[:] = truth.cost_to_go(s.pose_w)

    # episodes

    def _reset_rows(self, rows: NDArray[np.int64]) -> None:
        """Place the next episode of each row."""
        placed = []
        for row in rows:
            rng = np.random.default_rng(
                [self.seed, self.first_row + int(row), int(self.episode[row])]
            )
            self.episode[row] += 1
            placement = self.task.place(rng)
            placed.append(placement)
            self.drawn[row] = self.randomization.draw(rng)
            self.stream[row] = rng.integers(2**63, dtype=np.uint64)
            self._enter(int(row), placement)
        self._start(rows, placed)

    def _enter(self, row: int, placement: Placement) -> None:
        """Put one placement's world, goal, movers and plans into the row's slots."""
        s, c = self.state, self.config
        self.placements[row] = placement
        self.layout[row] = placement.layout
        self.world[row] = self.bank.add(placement.world)
        self.wanted[row] = placement.wanted
        if len(placement.movers) > c.max_movers:
            raise ValueError(
                f"a placement may have {c.max_movers} movers, got {len(placement.movers)}"
            )
        m = c.max_movers
        if m:
            for name, array in moving.place(placement.movers, m).items():
                self.movers[name][row, :m] = array
        if placement.target or self.target[row]:
            target = [placement.target] if placement.target else []
            for name, array in moving.place(target, 1).items():
                self.movers[name][row, m:] = array
            self.target[row] = placement.target is not None
        s.goal_w[row] = self.movers["xy"][row, -1] if placement.target else placement.goal_w
        known = self.task.planning(placement.world) if self.guide or self.oracle else None
        if c.coverage and known is not None:
            self.floor[row] = max(int((known[0].data == 0).sum()), 1)
        if self.guide is not None:
            shown = known if c.guide == "known" else None
            self.guide.reset(row, s.goal_w[row], known=shown, bounds=placement.world.bounds)
        if self.oracle is not None:
            self.oracle.reset(row, s.goal_w[row], known=known)

    def _start(self, rows: NDArray[np.int64], placed: list[Placement]) -> None:
        """Bring the rows' state to the start of their episodes and take the first scan."""
        s, drawn = self.state, self.drawn[rows]
        pose = np.array([p.start_w for p in placed], dtype=np.float64).reshape(len(rows), 3)
        self.action_delay[rows], self.scan_delay[rows] = delay_steps(drawn)
        self.backend.reset(
            rows, [p.world for p in placed], pose, dynamics(drawn, self.robot.payload_kg)
        )
        s.pose_w[rows] = s.seen_pose_w[rows] = self.backend.pose_w[rows]
        self.visited[rows] = NOWHERE
        s.stale[rows] = s.touches[rows] = 0
        s.vel_b[rows] = s.last_command[rows] = s.last_action[rows] = s.action[rows] = 0.0
        s.contact[rows] = False
        s.wanted_m[rows], s.wanted_w[rows] = np.inf, np.nan
        s.t[rows] = 0
        self.pending[rows] = 0.0
        self.at_fault[rows] = self.collided[rows] = False
        self.path_m[rows] = 0.0
        self._sense(rows, first=True)
        s.last_seen_share[rows] = s.seen_share[rows]
        if self.guide is not None and s.guide_w is not None:
            if self.config.guide == "built":
                for row in rows:
                    self.guide.plan(int(row))
            s.guide_w[rows] = self.guide.points(s.seen_pose_w)[rows]
        truth = self.oracle or self.guide
        if truth is not None and self.config.progress_reward:
            s.cost_to_go[rows] = truth.cost_to_go(s.pose_w)[rows]

    def episode_parameters(self, row: int) -> dict[str, float]:
        """What the domain randomization drew for the row's episode."""
        return dict(zip(PARAMETERS, self.drawn[row].tolist(), strict=True))

    # saving

    _SAVED = (
        "episode", "stream", "drawn", "ring", "ranges", "pending", "at_fault", "collided", "path_m",
        "visited", "labels",
    )  # fmt: skip
    _STATE = (
        "pose_w", "seen_pose_w", "vel_b", "goal_w", "frames", "clearance_m", "last_command",
        "last_action", "action", "contact", "touches", "cost_to_go", "last_cost_to_go", "stale",
        "t", "wanted_m", "wanted_w", "seen_share", "last_seen_share",
    )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on; worlds are not stored but drawn again."""
        out: dict[str, Any] = {name: getattr(self, name).copy() for name in self._SAVED}
        out["state"] = {name: getattr(self.state, name).copy() for name in self._STATE}
        out["movers"] = {name: array.copy() for name, array in self.movers.items()}
        out["backend"] = self.backend.state_dict()
        if self.state.guide_w is not None:
            out["guide_w"] = self.state.guide_w.copy()
        for name in ("guide", "oracle"):
            guide = getattr(self, name)
            if guide is not None:
                out[name] = guide.state_dict()
        return out | {"seed": self.seed, "first_row": self.first_row, "num_envs": self.num_envs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`, bit for bit."""
        for name in ("seed", "first_row", "num_envs"):
            if int(state[name]) != getattr(self, name):
                raise ValueError(
                    f"{name} must be {getattr(self, name)} as in this env, got {state[name]}"
                )
        rows = np.arange(self.num_envs)
        self.episode[:] = state["episode"] - 1
        self._reset_rows(rows)
        for name in self._SAVED:
            getattr(self, name)[:] = state[name]
        for name in self._STATE:
            getattr(self.state, name)[:] = state["state"][name]
        for name in self.movers:
            self.movers[name][:] = state["movers"][name]
        self.backend.load_state_dict(state["backend"])
        if self.state.guide_w is not None:
            self.state.guide_w = np.array(state["guide_w"])
        for name in ("guide", "oracle"):
            guide = getattr(self, name)
            if guide is not None:
                guide.load_state_dict(state[name], dict(guide._known))


@njit(cache=True)
def _keep(  # type: ignore[no-untyped-def]
    rows, ranges, reach, new, delay, first, clearance, ring, frames
):  # fmt: skip
    """Push the k newest scans on the rows' rings; write their clearances and what they see.

    Args:
        ranges: (k, beams) m; reach (beams,) of the footprint, m; new (k, S) sectors.
        delay: (N,) scans that a row is late; first: fill the whole ring.
        clearance: (N,) out; ring (N, F + 1, S), newest first; frames (N, F, S) out.
    """
    for k in range(len(rows)):
        i = rows[k]
        gap = np.float32(np.inf)
        for b in range(ranges.shape[1]):
            gap = min(gap, ranges[k, b] - reach[b])
        clearance[i] = gap
        for f in range(ring.shape[1] - 1, 0, -1):
            ring[i, f] = new[k] if first else ring[i, f - 1]
        ring[i, 0] = new[k]
        frames[i] = ring[i, delay[i] : delay[i] + frames.shape[1]]


@njit(cache=True)
def _visit(pose, cell_m, visited, stale):  # type: ignore[no-untyped-def]
    """Count the steps since each row's episode entered a cell new to it; note the cell if it is."""
    for i in range(len(pose)):
        x, y = int(math.floor(pose[i, 0] / cell_m)), int(math.floor(pose[i, 1] / cell_m))
        stale[i] += 1
        known = False
        for k in range(visited.shape[1]):
            known = visited[i, k, 0] == x and visited[i, k, 1] == y
            if known or visited[i, k, 0] == NOWHERE:
                break
        if not known:
            visited[i, 1:] = visited[i, :-1].copy()
            visited[i, 0, 0], visited[i, 0, 1], stale[i] = x, y, 0


def _wrap(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles in [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi
