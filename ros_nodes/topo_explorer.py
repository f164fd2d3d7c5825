"""Explores by publishing sub-goals: for our planner, for Nav2, for anyone who takes ``goal_pose``.

In: ``scan``, ``odom``, optional (a localiser's) ``pose``; ``explore/resume`` as of explore_lite;
``explore/visit``, places to go to once all is seen.
Out: ``goal_pose``, ``~/map``, ``~/plan``, ``~/graph``, ``~/frontiers``, ``~/state``.
With ``localize`` scans correct odometry: sub-goals stay in the odometry frame, what is drawn is in
the map frame, and map -> odom goes out on ``/tf``.
Services (Trigger): ``~/pause``, ``~/resume``, ``~/return_home``, ``~/save_map``.
It never moves the robot itself, and nothing but sub-goals tells whoever does.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnd_agv.grid import OccupancyGrid as Grid
from rnd_agv.observation import ScanSpec
from toponav import io
from toponav.exploration import Decision, Exploration, ExplorationConfig, Task
from toponav.localizer import transform
from toponav.meta import explorer_of
from toponav.tracker import Tracker

from . import convert
from .parameters import declare
from .spin import INSTALL, run

try:
    from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
    from nav_msgs.msg import OccupancyGrid, Odometry
    from nav_msgs.msg import Path as PathMsg
    from rclpy.node import Node
    from rclpy.qos import QoSDurabilityPolicy, QoSProfile, qos_profile_sensor_data
    from sensor_msgs.msg import LaserScan
    from std_msgs.msg import Bool, String
    from std_srvs.srv import Trigger
    from visualization_msgs.msg import Marker, MarkerArray
except ImportError:
    raise SystemExit(INSTALL) from None

PERIOD_S = 0.5
"""Time between two decisions."""


@dataclass(frozen=True)
class ExplorerConfig:
    """How the explorer is wired, and its robot."""

    explorer: str = "utility"
    """Folder of an explorer's policy file; or utility, nearest, next-best-view, tour."""
    frame: str = "odom"
    """Frame of the map and of what is published: odom, or map where a localiser corrects it."""
    use_pose: bool = False
    """Correct odometry by a localiser's poses on the topic pose; nothing before the first."""
    localize: bool = False
    """Correct odometry by matching scans, find the robot again when it is lost. Not with use_pose;
    wants a lidar that sees all round."""
    map_frame: str = "map"
    """Frame of the map, with localize."""
    lidar_b: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Pose of the lidar on the base: x, y, yaw, m and rad."""
    radius_m: float = field(default=0.3, metadata={"range": (0.05, 2.0)})
    """Radius of the robot, m."""
    range_m: float = field(default=8.0, metadata={"range": (0.5, 100.0)})
    """Scans are entered up to this far, m."""
    resolution_m: float = field(default=0.1, metadata={"range": (0.02, 1.0)})
    """Side of a cell of the map, m."""
    max_time_s: float = field(default=3600.0, metadata={"range": (1.0, 1e6)})
    """Time for all of it, the way home included, s."""
    return_home: bool = True
    """Drive home at the end."""
    visit: str = ""
    """Places to go to once all is seen, before home: x,y or x,y;x,y and so on, m, in ``frame``."""
    autostart: bool = True
    """Explore at once; else wait for ~/resume."""
    save_at_end: bool = False
    """Do as ~/save_map does once it is done."""
    folder: str = "maps"
    """Where ~/save_map writes exploration.yaml, .pgm, .json, .geojson and, with localize,
    .npz."""

    def __post_init__(self) -> None:
        if self.localize and self.use_pose:
            raise ValueError("localize must be false where use_pose is true: one of them corrects")


def pose_at(
    track: Sequence[tuple[float, NDArray[np.float64]]], stamp: float
) -> NDArray[np.float64]:
    """Pose (3,) at a time within a track of (time, pose), interpolated; at 4 rad/s a scan that is
    entered 50 ms late is turned by 11 degrees."""
    k = next(k for k, (time_s, _) in enumerate(track) if time_s >= stamp)
    (t0, a), (t1, b) = track[max(k - 1, 0)], track[k]
    share = 1.0 if t1 <= t0 else (stamp - t0) / (t1 - t0)
    step = b - a
    step[2] = (step[2] + np.pi) % (2 * np.pi) - np.pi
    return np.asarray(a + share * step, np.float64)


def place_of(text: str) -> NDArray[np.float64]:
    """(2,) of "x,y".

    Raises:
        ValueError: it is not two numbers.
    """
    parts = text.split(",")
    try:
        return np.array([float(parts[0]), float(parts[1])] if len(parts) == 2 else parts, float)
    except ValueError as error:
        raise ValueError(f"visit must be x,y or x,y;x,y and so on, got {text!r}") from error


def moved(decision: Decision, by: NDArray[np.float64]) -> Decision:
    """A decision in a frame in which the origin of its own has pose ``by`` (3,)."""
    if not by.any():
        return decision
    target, path, heading = decision.target_w, decision.path_w, decision.heading_w
    return Decision(
        decision.task,
        None if target is None else transform(by, target[None])[0],
        None if path is None else transform(by, path),
        None if heading is None else heading + float(by[2]),
    )


class TopoExplorer(Node):
    """One decision each half second; the map from every scan."""

    def __init__(self) -> None:
        super().__init__("topo_explorer")
        self.config = c = declare(self, ExplorerConfig)
        self.mind = Exploration(
            ExplorationConfig(
                radius_m=c.radius_m, range_m=c.range_m, resolution_m=c.resolution_m,
                max_time_s=c.max_time_s, return_home=c.return_home,
            ),
            explorer_of(c.explorer), tracker=Tracker() if c.localize else None,
        )  # fmt: skip
        self._drawn_in = c.map_frame if c.localize else c.frame
        self._tf = _tf_publisher(self) if c.localize else None
        self._running, self._said = c.autostart, ""
        self._odom: NDArray[np.float64] | None = None
        self._track: deque[tuple[float, NDArray[np.float64]]] = deque(maxlen=100)
        self._scan: tuple[float, NDArray[np.float32], ScanSpec] | None = None
        self._map_from_odom = None if c.use_pose else np.zeros(3)
        self._goal: NDArray[np.float64] | None = None
        latest, sensor = QoSProfile(depth=1), qos_profile_sensor_data
        kept = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
        self._goals = self.create_publisher(PoseStamped, "goal_pose", latest)
        self._map = self.create_publisher(OccupancyGrid, "~/map", kept)
        self._plan = self.create_publisher(PathMsg, "~/plan", kept)
        self._graph = self.create_publisher(MarkerArray, "~/graph", kept)
        self._frontiers = self.create_publisher(MarkerArray, "~/frontiers", kept)
        self._state = self.create_publisher(String, "~/state", kept)
        self.create_subscription(LaserScan, "scan", self._on_scan, sensor)
        self.create_subscription(Odometry, "odom", self._on_odom, sensor)
        if c.use_pose:
            self.create_subscription(PoseWithCovarianceStamped, "pose", self._on_pose, latest)
        self.create_subscription(Bool, "explore/resume", self._on_resume, latest)
        self.create_subscription(PoseStamped, "explore/visit", self._on_visit, latest)
        for place in filter(None, c.visit.split(";")):
            self.mind.visit(place_of(place))
        for name, act in (
            ("pause", self._pause), ("resume", self._resume), ("return_home", self._home),
            ("save_map", self._save),
        ):  # fmt: skip
            self.create_service(Trigger, f"~/{name}", self._service(act))
        self.create_timer(PERIOD_S, self._tick)
        self.create_timer(2.0, self._show)

    # in

    def _on_odom(self, msg: Odometry) -> None:
        try:
            self._odom = convert.odometry_from_msg(msg)[0]
            stamp = convert.seconds(msg.header.stamp)
            if self._track and stamp <= self._track[-1][0]:
                self._track.clear()  # the clock went back
            self._track.append((stamp, self._odom))
        except ValueError as error:
            self.get_logger().warning(f"odom: {error}", throttle_duration_sec=5.0)
        self._enter()

    def _on_pose(self, msg: PoseWithCovarianceStamped) -> None:
        try:
            pose = convert.pose_from_msg(msg.pose.pose)
            if self._odom is not None:
                self._map_from_odom = convert.compose(pose, convert.inverse(self._odom))
        except ValueError as error:
            self.get_logger().warning(f"pose: {error}", throttle_duration_sec=5.0)

    def _on_scan(self, msg: LaserScan) -> None:
        try:
            ranges, spec = convert.scan_from_msg(msg)
            self._scan = convert.seconds(msg.header.stamp), ranges, spec
        except ValueError as error:
            self.get_logger().warning(f"scan: {error}", throttle_duration_sec=5.0)
        self._enter()

    def _enter(self) -> None:
        """Enter the newest scan once odometry says where the robot was when it was taken."""
        if self._scan is None or self._map_from_odom is None or not self._track:
            return
        stamp, ranges, spec = self._scan
        if self._track[-1][0] < stamp:
            return  # odometry is yet to come
        self._scan = None
        if stamp < self._track[0][0]:
            return
        pose = convert.compose(self._map_from_odom, pose_at(self._track, stamp))
        near = np.where(ranges < spec.range_min, np.nan, ranges)
        self.mind.observe(
            time.monotonic(), pose, near, spec.angles, spec.range_max, self.config.lidar_b
        )

    def _on_visit(self, msg: PoseStamped) -> None:
        try:
            self.mind.visit(convert.pose_from_msg(msg.pose)[:2])
        except ValueError as error:
            self.get_logger().warning(f"explore/visit: {error}")

    def _on_resume(self, msg: Bool) -> None:
        self._resume() if msg.data else self._pause()

    # services

    def _service(self, act: Any) -> Any:
        def serve(_: Any, answer: Any) -> Any:
            try:
                answer.message, answer.success = act() or "", True
            except (OSError, ValueError) as error:
                answer.message, answer.success = str(error), False
            return answer

        return serve

    def _pause(self) -> str:
        self._running, self._goal = False, None
        self._stand()
        return "paused"

    def _resume(self) -> str:
        self._running = True
        return "exploring"

    def _home(self) -> str:
        self.mind.go_home()
        self._running = True
        return "driving home"

    def _save(self) -> str:
        if self.mind.map is None:
            raise ValueError("there is no map yet, no scan has come")
        stem, belief = Path(self.config.folder) / "exploration", self.mind.map
        cells = np.where(belief.data >= 65, 100, np.where(belief.data < 0, -1, 0)).astype(np.int8)
        saved = io.save_map(stem, cells, belief.resolution, belief.origin_w)
        io.save_graph(stem.with_suffix(".json"), self.mind.graph)
        if self.mind.tracker is not None:
            io.save_scans(stem.with_suffix(".npz"), self.mind.tracker.localizer)
        if any(True for _ in self.mind.graph.edges()):
            io.export_geojson(stem.with_suffix(".geojson"), self.mind.graph, time.monotonic())
        return str(saved.resolve())

    # out

    def _say(self, line: str) -> None:
        if line != self._said:
            self._said = line
            self.get_logger().info(line)
            self._state.publish(String(data=line))

    def _stamp(self) -> float:
        return 1e-9 * float(self.get_clock().now().nanoseconds)

    def _stand(self) -> None:
        """A sub-goal where the robot is: whoever drives stops there. Poses that go out are in the
        frame of odometry, or in that of the localiser's poses."""
        if self._odom is not None and self._map_from_odom is not None:
            pose = convert.compose(self._map_from_odom, self._odom)
            self._goals.publish(convert.msg_from_pose(pose, self._stamp(), self.config.frame))

    def _tick(self) -> None:
        if self.mind.map is None:
            return self._say("waiting for a scan")
        if not self._running:
            return self._say("paused")
        before = self.mind.decision
        if before.task == Task.DONE:
            return None
        decision = self.mind.decide(time.monotonic())
        if self._tf is not None:
            stamp, frames = self._stamp(), (self._drawn_in, self.config.frame)
            self._tf(convert.msg_from_transform(self.mind.map_from_odom, stamp, *frames))
        if decision.task == Task.DONE:
            self._stand()
            if self.config.save_at_end:
                self._save()
            went, not_ = len(self.mind.visited), len(self.mind.missed)
            visits = f", {went} of {went + not_} places visited" if went + not_ else ""
            return self._say(f"done: {self.mind.reason}{visits}")
        self._send(decision)
        reason = f": {self.mind.reason}" if self.mind.reason else ""
        return self._say(f"{decision.task}{reason}")

    def _send(self, decision: Decision) -> None:
        """Publish the sub-goal if it is another one, or twice a second's time has passed."""
        assert self._odom is not None and self._map_from_odom is not None
        here = convert.compose(self._map_from_odom, self._odom)
        decision = moved(decision, convert.inverse(self.mind.map_from_odom))
        if decision.target_w is not None and decision.path_w is not None:
            ahead = decision.path_w[-1] - decision.path_w[max(len(decision.path_w) - 3, 0)]
            goal = np.array([*decision.target_w, math.atan2(ahead[1], ahead[0])])
            self._plan.publish(
                convert.msg_from_path(decision.path_w, self._stamp(), self.config.frame)
            )
        elif decision.heading_w is not None:
            goal = np.array([here[0], here[1], decision.heading_w])
        else:  # back up
            goal = convert.compose(here, np.array([-BACK_M, 0.0, 0.0]))
        if self._goal is None or np.hypot(*(goal - self._goal)[:2]) > 0.05:
            self._goal = goal
        self._goals.publish(convert.msg_from_pose(self._goal, self._stamp(), self.config.frame))

    def _show(self) -> None:
        """The map and markers, for people."""
        belief, stamp, frame = self.mind.map, self._stamp(), self._drawn_in
        if belief is None:
            return
        grid = Grid(belief.data, belief.resolution, belief.origin_w)
        self._map.publish(convert.msg_from_grid(grid, stamp, frame))
        self._frontiers.publish(
            MarkerArray(markers=[convert.points_marker(self.mind.frontiers_w, stamp, frame)])
        )
        state = self.mind.graph.arrays()
        nodes = state["pose_w"][:, :2]
        lines = nodes[state["edge_index"]].reshape(-1, 2)
        self._graph.publish(
            MarkerArray(markers=[
                convert.points_marker(nodes, stamp, frame, "nodes"),
                convert.points_marker(lines, stamp, frame, "edges", Marker.LINE_LIST),
            ])
        )  # fmt: skip

    def close(self) -> None:
        """Have whoever drives stop here."""
        if self._running and self.mind.decision.task != Task.DONE:
            self._stand()


def _tf_publisher(node: Node) -> Callable[[Any], None]:
    """A function that broadcasts a TransformStamped where tf2_msgs exists, else does nothing."""
    try:
        from tf2_msgs.msg import TFMessage
    except ImportError:
        node.get_logger().info("tf is off: tf2_msgs is not installed")
        return lambda _: None
    publisher = node.create_publisher(TFMessage, "/tf", 100)

    def send(transform: Any) -> None:
        publisher.publish(TFMessage(transforms=[transform]))

    return send


BACK_M = 0.4
"""A robot that is to back up is sent this far back."""


def main() -> int:
    """``python -m ros_nodes.topo_explorer``"""
    return run(TopoExplorer)


if __name__ == "__main__":
    raise SystemExit(main())
