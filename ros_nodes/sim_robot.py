"""A simulated robot that speaks ROS: publishes ``scan odom clock``, takes ``cmd_vel``.

One world may hold several robots, one per namespace; they see and touch each other as discs.
:class:`Fleet` is the world without ROS, :class:`SimRobot` its node. Two classes in one file, since
this is the one file of the room that may import the simulator.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .spin import INSTALL

try:
    from nav_msgs.msg import OccupancyGrid, Odometry
    from rclpy.clock import Clock, ClockType
    from rclpy.node import Node
    from rclpy.qos import QoSDurabilityPolicy, QoSProfile, qos_profile_sensor_data
    from rosgraph_msgs.msg import Clock as ClockMsg
    from sensor_msgs.msg import CompressedImage, LaserScan
    from std_msgs.msg import String
except ImportError:
    raise SystemExit(INSTALL) from None

from rnd_agv.kinematics import touching
from sim import movers as moving
from sim import tasks, worlds
from sim.arena import ArenaWorld
from sim.backend import CONTROL_DT, SCAN_EVERY, Backend, Dynamics
from sim.bank import WorldBank
from sim.kinematic import Kinematic
from sim.lidar import cast
from sim.mujoco_batch import MujocoBatch
from sim.noise import scan_noise
from sim.tasks.explore import Explore

from . import convert
from .parameters import declare
from .spin import run

UNMAPPED: dict[str, Any] = {"rooms": worlds.rooms, "maze": worlds.maze, "cave": worlds.cave}
"""Worlds to explore."""
WATCHDOG_S = 0.25
"""A base without a command for this long stops by itself."""


def task_of(world: str) -> tasks.AgvTask:
    """The task that ``world`` names: KIND:SEED, map:FILE.yaml, or a task's name.

    Kinds are warehouse, barn and arena, and rooms, maze and cave for a robot that is given no goal.

    Raises:
        ValueError: none of these.
        FileNotFoundError: the map is not there.
    """
    kind, _, rest = world.partition(":")
    if kind in ("warehouse", "barn") and rest.isdecimal():
        return tasks.make(f"agv-{kind}", layouts=1, first_layout=int(rest))
    if kind == "arena" and rest.isdecimal():
        return tasks.make("agv-arena", layouts=1, first_layout=int(rest))
    if kind in UNMAPPED and rest.isdecimal():
        return Explore(UNMAPPED[kind](seed=int(rest)))
    if kind == "map" and rest:
        return tasks.make("agv-ros-map", map_yaml=rest)
    if world in tasks.TASKS and world != "agv-ros-map":
        return tasks.make(world)
    kinds = ":SEED, ".join(("warehouse", "barn", "arena", *UNMAPPED))
    wanted = f"{kinds}:SEED, map:FILE.yaml or one of {sorted(tasks.TASKS)}"
    raise ValueError(f"world must be {wanted}, got {world!r}")


class Fleet:
    """Robots in one world under the clock of the simulator: control at 20 Hz, scans at 10 Hz.

    Args:
        task: says world, robot, start, goal and what moves.
        count: robots; the first is placed by the task, the others at random.
        tier: "mujoco" or "kinematic".
        seed: of placement and sensor noise.
        sigma_m: standard deviation of the lidar, m.
    """

    def __init__(
        self, task: tasks.AgvTask, count: int, tier: str, seed: int, sigma_m: float = 0.01
    ) -> None:
        if tier not in ("mujoco", "kinematic"):
            raise ValueError(f'tier must be "mujoco" or "kinematic", got {tier!r}')
        rng = np.random.default_rng(seed)
        self.task, self.robot, self.scan_spec, self.count = task, task.robot, task.scan, count
        self.placement = placed = task.place(rng)
        self.world, self.bank = placed.world, WorldBank()
        start, self.goal_w = self._places(rng)
        self._movers = {
            k: v[None] for k, v in moving.place(placed.movers, len(placed.movers)).items()
        }
        discs = len(placed.movers) + count
        self.backend: Backend = (
            Kinematic(self.robot, count, self.bank)
            if tier == "kinematic"
            else MujocoBatch(self.robot, count, n_movers=discs, nthread=1, bank=self.bank)
        )
        rows = np.arange(count)
        self.backend.reset(rows, [self.world] * count, start, Dynamics.nominal(count))
        self.rows = np.zeros(count, np.int32)
        self.contact = np.zeros((count, 3), bool)
        self.path_m = np.zeros(count)
        self.steps = 0
        self._sigma = np.full(count, sigma_m)
        self._stream = rng.integers(2**63, size=count, dtype=np.uint64)
        self._half = np.array(self.robot.half_extents)

    def _places(self, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Starts (count, 3) at least 2 m apart and goals (count, 2)."""
        start, goal = [np.asarray(self.placement.start_w)], [np.asarray(self.placement.goal_w)]
        clearance = self.robot.circumscribed_m + 0.1
        for _ in range(200 * (self.count - 1)):
            if len(start) == self.count:
                break
            a, b = self.world.free_points(rng, 2, clearance, from_xy=start[0][:2])
            if (
                min(np.hypot(*(a - other[:2])) for other in start) > 2.0
                and np.hypot(*(a - b)) > 4.0
            ):
                start.append(np.array([*a, rng.uniform(-np.pi, np.pi)]))
                goal.append(b)
        if len(start) < self.count:
            raise ValueError(f"namespaces must fit into the world, got {self.count} robots")
        return np.array(start, np.float64), np.array(goal, np.float64)

    @property
    def time_s(self) -> float:
        """Simulated time."""
        return self.steps * CONTROL_DT

    @property
    def pose_w(self) -> NDArray[np.float64]:
        """(count, 3) true poses."""
        return self.backend.pose_w

    @property
    def vel_b(self) -> NDArray[np.float64]:
        """(count, 2) measured forward speeds and turn rates."""
        return self.backend.vel_b

    def discs(self) -> NDArray[np.float64]:
        """(count, M, 3) moving discs that each robot meets: what walks about, then the others."""
        walkers = np.concatenate(
            [self._movers["xy"][0], self._movers["radius"][0][:, None]], axis=1
        )
        robots = np.column_stack([self.pose_w[:, :2], np.full(self.count, np.mean(self._half))])
        out = np.repeat(np.concatenate([walkers, robots])[None], self.count, axis=0)
        own = np.arange(self.count)
        out[own, len(walkers) + own] = (1e6, 1e6, 0.0)
        return out

    def step(self, command: NDArray[np.float64]) -> NDArray[np.float64]:
        """One control period under (count, 2) commands; returns them as the base took them."""
        limits, bank, v = self.robot.limits, self.bank, self._movers
        low, high = (limits.v_min, -limits.w_max), (limits.v_max, limits.w_max)
        taken = np.clip(np.where(np.isfinite(command), command, 0.0), low, high)
        before = self.pose_w[:, :2].copy()
        moving.step(  # people make room for the first robot
            v["xy"], v["vel"], v["radius"], v["kind"], v["speed"], v["way"], v["leg"], v["wait"],
            self.pose_w[:1], self.robot.circumscribed_m, self.rows[:1], bank.boxes, bank.nboxes,
            bank.discs, bank.ndiscs, CONTROL_DT,
        )  # fmt: skip
        discs = self.discs()
        self.backend.step(taken, discs)
        touching(
            self.pose_w, taken, self._half, self.rows, bank.boxes, bank.nboxes, bank.discs,
            bank.ndiscs, discs, 0.005, self.contact,
        )  # fmt: skip
        self.path_m += np.hypot(*(self.pose_w[:, :2] - before).T)
        self.steps += 1
        return taken

    def scan(self) -> NDArray[np.float32]:
        """(count, beams) ranges now, m."""
        pose, spec, bank = self.pose_w.copy(), self.scan_spec, self.bank
        pose[:, 0] += self.robot.lidar_x_m * np.cos(pose[:, 2])
        pose[:, 1] += self.robot.lidar_x_m * np.sin(pose[:, 2])
        out = np.empty((self.count, spec.beams), np.float32)
        cast(
            pose, spec.angle_min, spec.angle_increment, bank.boxes, bank.nboxes, bank.discs,
            bank.ndiscs, self.rows, self.discs(), spec.range_max, out,
        )  # fmt: skip
        scan_noise(out, self._stream, self._sigma, np.zeros(self.count), spec.range_max)
        return out

    def outcome(self, k: int, timeout_s: float) -> str:
        """How robot k's episode has ended: success, collision or timeout; "" while it runs."""
        if np.hypot(*(self.goal_w[k] - self.pose_w[k, :2])) < self.task.config.goal_radius_m:
            return "success"
        if self.contact[k, 0] or self.contact[k, 2]:
            return "collision"
        return "timeout" if self.time_s > timeout_s else ""


@dataclass(frozen=True)
class SimRobotConfig:
    """What is simulated and how it is wired."""

    world: str = "warehouse:100000"
    """warehouse:SEED, barn:SEED, arena:SEED (coloured landmarks), rooms:SEED, maze:SEED, cave:SEED,
    map:FILE.yaml (a map_server map), or the name of a task."""
    tier: str = "mujoco"
    """mujoco (contacts) or kinematic."""
    namespaces: tuple[str, ...] = ("",)
    """One robot per namespace, below this node's own; an empty one is this node's own."""
    seed: int = field(default=0, metadata={"range": (0, 2**31 - 1)})
    """Of placement and sensor noise."""
    real_time_factor: float = field(default=1.0, metadata={"range": (0.1, 10.0)})
    """Simulated seconds per second, as far as the machine keeps up."""
    cmd_vel_stamped: bool = True
    """Take cmd_vel as TwistStamped and not Twist."""
    lidar_sigma_m: float = field(default=0.01, metadata={"range": (0.0, 0.2)})
    """Standard deviation of ranges."""
    publish_goal: bool = True
    """Publish the episode's goal as goal_pose, once a second until it ends."""
    publish_map: bool = True
    """Publish the floor plan as map, where the task gives it to the robot."""
    timeout_s: float = field(default=120.0, metadata={"range": (1.0, 36000.0)})
    """Simulated seconds until an episode is over."""
    exit_when_done: bool = False
    """End when every robot's episode is over."""
    episodes: str = ""
    """Folder of an episode store to record into; empty records nothing."""
    camera_hz: float = field(default=0.0, metadata={"range": (0.0, 20.0)})
    """Pictures per simulated second of a camera behind the robot, in an arena of the one on a mast
    (recorded, and published as camera/image_raw/compressed); 0 is no camera."""


class Robot:
    """One robot's topics, last command and record."""

    def __init__(self, node: SimRobot, k: int, name: str) -> None:
        self.k, self.outcome, self.episode_id = k, "", ""
        self.frame = f"{name}/" if name else ""
        self.command, self.heard_at = np.zeros(2), -np.inf
        topic = f"{name}/".lstrip("/")
        kept = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
        create = node.create_publisher
        self.scan = create(LaserScan, f"{topic}scan", 5)
        self.odom = create(Odometry, f"{topic}odom", 10)
        from geometry_msgs.msg import PoseStamped, Twist, TwistStamped

        self.goal = create(PoseStamped, f"{topic}goal_pose", 1)
        self.map = create(OccupancyGrid, f"{topic}map", kept)
        self.instruction = create(String, f"{topic}instruction", kept)
        self.result = create(String, f"{topic}outcome", kept)
        self.camera = create(CompressedImage, f"{topic}camera/image_raw/compressed", 1)
        twist = TwistStamped if node.config.cmd_vel_stamped else Twist
        newest = qos_profile_sensor_data  # a lost command must not hold up the next ones
        node.create_subscription(twist, f"{topic}cmd_vel", self._on_command, newest)
        self.builder: Any = None

    def _on_command(self, msg: Any) -> None:
        command = convert.command_from_twist(msg)
        if np.isfinite(command).all():  # as diff_drive_controller: not a number is no command
            self.command, self.heard_at = command, time.monotonic()

    def wanted(self) -> NDArray[np.float64]:
        """The command that the base follows now."""
        return self.command if time.monotonic() - self.heard_at < WATCHDOG_S else np.zeros(2)


class SimRobot(Node):
    """Steps a :class:`Fleet` in real time and publishes what its robots see."""

    def __init__(self) -> None:
        super().__init__("sim_robot")
        self.config = c = declare(self, SimRobotConfig)
        self.finished: int | None = None
        """Exit code, once the node wants to end."""
        self.fleet = Fleet(task_of(c.world), len(c.namespaces), c.tier, c.seed, c.lidar_sigma_m)
        self._warm_up()
        self.robots = [Robot(self, k, name) for k, name in enumerate(c.namespaces)]
        self._clock = self.create_publisher(ClockMsg, "/clock", 10)
        self._tf = _tf_publisher(self)
        self._view: Any = _view_of(self.fleet) if c.camera_hz else None
        self._ranges = self.fleet.scan()
        self._begin_episodes()
        self._publish_maps()
        for robot in self.robots:
            robot.instruction.publish(String(data=self.fleet.placement.instruction))
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(CONTROL_DT / c.real_time_factor, self._step, clock=steady)
        self.get_logger().info(
            f"{self.fleet.world.name}: {len(self.robots)} x {c.tier} robot, ready"
        )

    def _warm_up(self) -> None:
        """Compile what is compiled at first use, before anyone waits for a scan."""
        c = self.config
        Fleet(self.fleet.task, 1, "kinematic", c.seed).scan()
        self.fleet.step(np.zeros((self.fleet.count, 2)))
        self.fleet.steps = 0

    def _begin_episodes(self) -> None:
        if not self.config.episodes:
            return
        from episodes import EpisodeWriter

        self._writer = EpisodeWriter(self.config.episodes)
        fleet, attrs = self.fleet, {"world": self.config.world, "tier": self.config.tier}
        for robot in self.robots:
            robot.builder = self._writer.episode(
                task=fleet.task.name,
                instruction=fleet.placement.instruction,
                attrs=attrs | {"seed": self.config.seed, "robot": fleet.robot.name,
                               "namespace": self.config.namespaces[robot.k],
                               "goal_w": fleet.goal_w[robot.k].tolist()},
            )  # fmt: skip

    def _publish_maps(self) -> None:
        if self.config.publish_map and self.fleet.task.config.guide == "known":
            grid = self.fleet.world.grid(self.fleet.task.config.guide_config.resolution)
            for robot in self.robots:
                robot.map.publish(convert.msg_from_grid(grid, 0.0))

    def _step(self) -> None:
        fleet, c = self.fleet, self.config
        taken = fleet.step(np.array([robot.wanted() for robot in self.robots]))
        now = fleet.time_s
        self._clock.publish(ClockMsg(clock=convert.stamp_from_seconds(now)))
        if fleet.steps % SCAN_EVERY == 0:
            self._ranges = fleet.scan()
        second = fleet.steps % round(1 / CONTROL_DT) == 1
        shot = c.camera_hz > 0 and fleet.steps % max(round(1 / CONTROL_DT / c.camera_hz), 1) == 1
        for robot in self.robots:
            k, odom = robot.k, f"{robot.frame}odom"
            where, speed = fleet.pose_w[k], fleet.vel_b[k]
            msg = convert.msg_from_odometry(where, speed, now, odom, f"{robot.frame}base_link")
            robot.odom.publish(msg)
            self._tf(msg)
            if fleet.steps % SCAN_EVERY == 0:
                frame = f"{robot.frame}lidar"
                robot.scan.publish(
                    convert.msg_from_scan(self._ranges[k], fleet.scan_spec, now, frame)
                )
            if second and c.publish_goal and not robot.outcome:
                goal = (*fleet.goal_w[k], 0.0)
                robot.goal.publish(convert.msg_from_pose(goal, now, odom))
            picture = self._picture(robot) if shot and not robot.outcome else None
            self._record(robot, taken[k], picture)
        if c.exit_when_done and all(robot.outcome for robot in self.robots):
            self.finished = 0

    def _picture(self, robot: Robot) -> NDArray[np.uint8]:
        import cv2

        fleet, k = self.fleet, robot.k
        if isinstance(self._view, ArenaWorld):
            rgb = self._view.frame(fleet.pose_w[k])
        else:
            rgb = self._view.frame(fleet.pose_w[k], fleet.discs()[k], "chase", fleet.goal_w[k])
        if robot.camera.get_subscription_count():
            msg = CompressedImage(format="jpeg")
            msg.header.stamp = convert.stamp_from_seconds(fleet.time_s)
            msg.header.frame_id = f"{robot.frame}camera"
            msg.data = cv2.imencode(".jpg", rgb[..., ::-1])[1].tobytes()
            robot.camera.publish(msg)
        return rgb

    def _record(self, robot: Robot, taken: NDArray[np.float64], picture: Any) -> None:
        """Add the step to the record; end the episode where it ends."""
        if robot.outcome:
            return
        fleet, k = self.fleet, robot.k
        if robot.builder is not None:
            step = {
                "time_s": np.float64(fleet.time_s),
                "command": taken.astype(np.float32),
                "pose_w": fleet.pose_w[k],
                "vel_b": fleet.vel_b[k].astype(np.float32),
                "contact": fleet.contact[k],
                "scan": self._ranges[k],
                "discs": fleet.discs()[k].astype(np.float32),
            }
            camera = "mast" if isinstance(self._view, ArenaWorld) else "chase"
            robot.builder.append(step, {} if picture is None else {camera: picture})
        if outcome := fleet.outcome(k, self.config.timeout_s):
            self._finish(robot, outcome)

    def _finish(self, robot: Robot, outcome: str) -> None:
        """Store the episode and say how it ended, as JSON on ``outcome``."""
        fleet, k = self.fleet, robot.k
        robot.outcome = outcome
        result = {
            "outcome": outcome,
            "time_s": round(fleet.time_s, 3),
            "path_m": round(float(fleet.path_m[k]), 3),
            "goal_w": fleet.goal_w[k].tolist(),
            "world": self.config.world,
        }
        if robot.builder is not None and len(robot.builder):
            robot.episode_id = robot.builder.finish(result)
            result["episode"] = robot.episode_id
        robot.result.publish(String(data=json.dumps(result)))
        self.get_logger().info(f"{self.config.namespaces[k] or 'robot'}: {json.dumps(result)}")

    def close(self) -> None:
        """Store what was recorded so far."""
        for robot in self.robots:
            if not robot.outcome:
                self._finish(robot, "interrupted")
        if self.config.episodes:
            self._writer.close()
        if self._view is not None:
            self._view.close()
        time.sleep(0.1)  # for the last messages to leave


def _view_of(fleet: Fleet) -> Any:
    """What draws the camera's pictures."""
    from sim.render import RobotView

    if isinstance(fleet.placement, tasks.ArenaPlacement) and fleet.placement.arena is not None:
        view = ArenaWorld()
        view.dress(fleet.placement.arena)
        return view
    return RobotView(fleet.world, fleet.robot, 320, 240, fleet.discs().shape[1])


def _tf_publisher(node: Node) -> Any:
    """A function that broadcasts Odometry as tf where tf2_msgs exists, else does nothing."""
    try:
        from geometry_msgs.msg import TransformStamped
        from tf2_msgs.msg import TFMessage
    except ImportError:
        node.get_logger().info("tf is off: tf2_msgs is not installed")
        return lambda _: None
    publisher = node.create_publisher(TFMessage, "/tf", 100)

    def send(odom: Odometry) -> None:
        msg = TransformStamped(header=odom.header, child_frame_id=odom.child_frame_id)
        at, pose = msg.transform, odom.pose.pose
        at.translation.x, at.translation.y, at.rotation = (
            pose.position.x,
            pose.position.y,
            pose.orientation,
        )
        publisher.publish(TFMessage(transforms=[msg]))

    return send


def main() -> int:
    """``python -m ros_nodes.sim_robot``"""
    return run(SimRobot)


if __name__ == "__main__":
    raise SystemExit(main())
