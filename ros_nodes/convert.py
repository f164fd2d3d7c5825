"""Between ROS messages and the arrays that policies see: plain functions, no node, no clock.

Message classes are imported where a message is made, so this file imports without ROS, and reading
works on anything that has a message's fields.
"""

from __future__ import annotations

import math
from array import array
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnd_agv.grid import OccupancyGrid
from rnd_agv.observation import ScanSpec

MAX_BEAMS = 100_000
"""A longer scan is refused as malformed."""


def compose(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pose (3,) ``b`` given in frame ``a``, in the frame that ``a`` is given in."""
    c, s = np.cos(a[2]), np.sin(a[2])
    yaw = np.arctan2(np.sin(a[2] + b[2]), np.cos(a[2] + b[2]))
    return np.array([a[0] + c * b[0] - s * b[1], a[1] + s * b[0] + c * b[1], yaw])


def inverse(a: NDArray[np.float64]) -> NDArray[np.float64]:
    """The pose (3,) that undoes ``a``."""
    c, s = np.cos(a[2]), np.sin(a[2])
    return np.array([-c * a[0] - s * a[1], s * a[0] - c * a[1], -a[2]])


def seconds(stamp: Any) -> float:
    """builtin_interfaces/Time -> s."""
    return float(stamp.sec) + 1e-9 * float(stamp.nanosec)


def stamp_from_seconds(time_s: float) -> Any:
    """s -> builtin_interfaces/Time, rounded to ns."""
    from builtin_interfaces.msg import Time

    sec, nanosec = divmod(round(time_s * 1e9), 1_000_000_000)
    return Time(sec=sec, nanosec=nanosec)


def scan_from_msg(msg: Any) -> tuple[NDArray[np.float32], ScanSpec]:
    """sensor_msgs/LaserScan -> ranges (B,) float32 m and their layout, counter-clockwise.

    A clockwise scan (negative increment) is turned round. Values are left as they are: NaN is
    missing, inf is nothing hit, -inf is too close to measure (REP-117).

    Raises:
        ValueError: no or too many ranges, layout not finite, or a length that does not fit it.
    """
    ranges = np.asarray(msg.ranges, dtype=np.float32)
    low, high, step = float(msg.angle_min), float(msg.angle_max), float(msg.angle_increment)
    if not 1 <= len(ranges) <= MAX_BEAMS:
        raise ValueError(f"scan must have 1 to {MAX_BEAMS} ranges, got {len(ranges)}")
    if not np.isfinite([low, high, step, msg.range_min, msg.range_max]).all() or step == 0:
        raise ValueError(f"scan layout must be finite, increment not 0, got {low}, {high}, {step}")
    beams = (high - low) / step + 1
    if abs(beams - len(ranges)) > 1.5:  # some drivers count angle_max in, some do not
        raise ValueError(f"scan must have {beams:.0f} ranges for its angles, got {len(ranges)}")
    if step < 0:
        low, step, ranges = low + step * (len(ranges) - 1), -step, ranges[::-1]
    return ranges, ScanSpec(len(ranges), low, step, float(msg.range_min), float(msg.range_max))


def msg_from_scan(ranges: ArrayLike, scan: ScanSpec, time_s: float, frame: str) -> Any:
    """Ranges (B,) m -> sensor_msgs/LaserScan."""
    from sensor_msgs.msg import LaserScan

    msg = LaserScan()
    msg.header.stamp, msg.header.frame_id = stamp_from_seconds(time_s), frame
    msg.angle_min, msg.angle_increment = scan.angle_min, scan.angle_increment
    msg.angle_max = scan.angle_min + scan.angle_increment * (scan.beams - 1)
    msg.range_min, msg.range_max = scan.range_min, scan.range_max
    msg.scan_time = 0.1
    msg.ranges = array("f", np.ascontiguousarray(ranges, dtype=np.float32).tobytes())
    return msg


def pose_from_msg(pose: Any) -> NDArray[np.float64]:
    """geometry_msgs/Pose -> (3,) x, y, yaw, m and rad.

    Raises:
        ValueError: a value is not finite, or the quaternion is not of unit length (within 10 %).
    """
    p, q = pose.position, pose.orientation
    norm = math.sqrt(q.x**2 + q.y**2 + q.z**2 + q.w**2)
    if not (math.isfinite(p.x) and math.isfinite(p.y) and abs(norm - 1) < 0.1):
        raise ValueError(f"pose must be finite with a unit quaternion, got {p} {q}")
    yaw = math.atan2(2 * (q.w * q.z + q.x * q.y), 1 - 2 * (q.y**2 + q.z**2))
    return np.array([p.x, p.y, yaw])


def odometry_from_msg(msg: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """nav_msgs/Odometry -> pose (3,) x, y, yaw in its frame and velocity (2,) in base_link.

    Raises:
        ValueError: as :func:`pose_from_msg`, or a velocity is not finite.
    """
    velocity = np.array([msg.twist.twist.linear.x, msg.twist.twist.angular.z], dtype=np.float64)
    if not np.isfinite(velocity).all():
        raise ValueError(f"odometry twist must be finite, got {velocity}")
    return pose_from_msg(msg.pose.pose), velocity


def _fill_pose(pose: Any, pose_w: ArrayLike) -> None:
    x, y, yaw = np.asarray(pose_w, dtype=np.float64).tolist()
    pose.position.x, pose.position.y = x, y
    pose.orientation.z, pose.orientation.w = math.sin(yaw / 2), math.cos(yaw / 2)


def msg_from_odometry(
    pose_w: ArrayLike,
    vel_b: ArrayLike,
    time_s: float,
    frame: str = "odom",
    child: str = "base_link",
) -> Any:
    """Pose (3,) and velocity (2,) -> nav_msgs/Odometry."""
    from nav_msgs.msg import Odometry

    msg = Odometry()
    msg.header.stamp, msg.header.frame_id, msg.child_frame_id = (
        stamp_from_seconds(time_s),
        frame,
        child,
    )
    _fill_pose(msg.pose.pose, pose_w)
    v, w = np.asarray(vel_b, dtype=np.float64).tolist()
    msg.twist.twist.linear.x, msg.twist.twist.angular.z = v, w
    return msg


def msg_from_pose(pose_w: ArrayLike, time_s: float, frame: str) -> Any:
    """Pose (3,) x, y, yaw -> geometry_msgs/PoseStamped."""
    from geometry_msgs.msg import PoseStamped

    msg = PoseStamped()
    msg.header.stamp, msg.header.frame_id = stamp_from_seconds(time_s), frame
    _fill_pose(msg.pose, pose_w)
    return msg


def msg_from_transform(pose: ArrayLike, time_s: float, frame: str, child: str) -> Any:
    """Pose (3,) x, y, yaw of a child frame -> geometry_msgs/TransformStamped."""
    from geometry_msgs.msg import Pose, TransformStamped

    at, msg = Pose(), TransformStamped()
    _fill_pose(at, pose)
    msg.header.stamp, msg.header.frame_id = stamp_from_seconds(time_s), frame
    msg.child_frame_id = child
    msg.transform.translation.x, msg.transform.translation.y = at.position.x, at.position.y
    msg.transform.rotation = at.orientation
    return msg


def command_from_twist(msg: Any) -> NDArray[np.float64]:
    """geometry_msgs/Twist or TwistStamped -> (2,) v m/s, w rad/s as they came, finite or not."""
    twist = getattr(msg, "twist", msg)
    return np.array([twist.linear.x, twist.angular.z], dtype=np.float64)


def twist_from_command(
    command: ArrayLike, stamped: bool, time_s: float = 0.0, frame: str = "base_link"
) -> Any:
    """Command (2,) v m/s, w rad/s -> geometry_msgs/TwistStamped, or Twist if not ``stamped``."""
    from geometry_msgs.msg import Twist, TwistStamped

    v, w = np.asarray(command, dtype=np.float64).tolist()
    msg = TwistStamped() if stamped else Twist()
    twist = msg.twist if stamped else msg
    twist.linear.x, twist.angular.z = v, w
    if stamped:
        msg.header.stamp, msg.header.frame_id = stamp_from_seconds(time_s), frame
    return msg


def msg_from_path(points_w: ArrayLike, time_s: float, frame: str) -> Any:
    """Way points (L, 2) m -> nav_msgs/Path, each pose facing the next."""
    from nav_msgs.msg import Path

    points = np.asarray(points_w, dtype=np.float64).reshape(-1, 2)
    ahead = np.diff(points, axis=0)
    yaw = np.arctan2(ahead[:, 1], ahead[:, 0])
    yaw = np.append(yaw, yaw[-1:]) if len(yaw) else np.zeros(len(points))
    msg = Path()
    msg.header.stamp, msg.header.frame_id = stamp_from_seconds(time_s), frame
    poses = np.column_stack([points, yaw])
    msg.poses = [msg_from_pose(pose, time_s, frame) for pose in poses]
    return msg


def grid_from_msg(msg: Any) -> OccupancyGrid:
    """nav_msgs/OccupancyGrid -> grid.

    Raises:
        ValueError: size, resolution or origin is off, or the map is rotated.
    """
    info = msg.info
    pose = pose_from_msg(info.origin)
    if abs(pose[2]) > 1e-6:
        raise ValueError(f"map origin must have yaw 0, got {pose[2]:.4f} rad")
    data = np.frombuffer(bytes_of(msg.data), dtype=np.int8)
    if len(data) != info.width * info.height or len(data) == 0 or not info.resolution > 0:
        raise ValueError(
            f"map must have width * height > 0 cells of resolution > 0, "
            f"got {info.width} x {info.height}, {len(data)} cells, {info.resolution} m"
        )
    cells = data.reshape(info.height, info.width).copy()
    return OccupancyGrid(cells, float(info.resolution), (float(pose[0]), float(pose[1])))


def msg_from_grid(grid: OccupancyGrid, time_s: float, frame: str = "map") -> Any:
    """Grid -> nav_msgs/OccupancyGrid."""
    from nav_msgs.msg import OccupancyGrid as Message

    msg = Message()
    msg.header.stamp, msg.header.frame_id = stamp_from_seconds(time_s), frame
    msg.info.height, msg.info.width = grid.data.shape
    msg.info.resolution = float(grid.resolution)
    _fill_pose(msg.info.origin, (*grid.origin_w, 0.0))
    msg.data = array("b", np.ascontiguousarray(grid.data, dtype=np.int8).tobytes())
    return msg


def points_marker(
    points_w: ArrayLike, time_s: float, frame: str, name: str = "frontiers", kind: int = 8
) -> Any:
    """Points (K, 2) m -> visualization_msgs/Marker: POINTS (8), or LINE_LIST (5) of pairs.

    No points: a marker that deletes the one of that name.
    """
    from geometry_msgs.msg import Point
    from visualization_msgs.msg import Marker

    points = np.asarray(points_w, dtype=np.float64).reshape(-1, 2)
    msg = Marker(ns=name, type=kind, action=Marker.ADD if len(points) else Marker.DELETE)
    msg.header.stamp, msg.header.frame_id = stamp_from_seconds(time_s), frame
    msg.pose.orientation.w = 1.0
    msg.scale.x, msg.scale.y = (0.05, 0.0) if kind == Marker.LINE_LIST else (0.2, 0.2)
    red, green, blue = _COLOURS.get(name, (1.0, 1.0, 1.0))
    msg.color.r, msg.color.g, msg.color.b, msg.color.a = red, green, blue, 1.0
    msg.points = [Point(x=x, y=y) for x, y in points.tolist()]
    return msg


_COLOURS = {"frontiers": (0.9, 0.35, 0.05), "nodes": (0.15, 0.4, 0.9), "edges": (0.4, 0.55, 0.8)}


def bytes_of(data: Any) -> bytes:
    """The bytes of a message's array field (array.array, or bytes)."""
    return data.tobytes() if hasattr(data, "tobytes") else bytes(data)


_BYTES = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}
"""Bytes of a pixel."""
_CHANNELS = {
    "rgb8": [0, 1, 2], "bgr8": [2, 1, 0], "rgba8": [0, 1, 2], "bgra8": [2, 1, 0], "mono8": [0] * 3,
}  # fmt: skip


def rgb_from_msg(msg: Any, most_pixels: int = 4096 * 2304) -> NDArray[np.uint8]:
    """sensor_msgs/Image (rgb8, bgr8, rgba8, bgra8, mono8) or CompressedImage -> (H, W, 3) RGB.

    Raises:
        ValueError: another encoding, sizes that do not fit, or no JPEG or PNG.
    """
    import cv2

    from reward_vlm.decode import MediaError, image_size

    data = bytes_of(msg.data)
    if hasattr(msg, "format"):
        try:
            width, height = image_size(data.rstrip(b"\0"))  # some cameras pad
        except MediaError as error:
            raise ValueError(f"image must be a JPEG or PNG: {error.detail}") from None
        if not 0 < width * height <= most_pixels:  # before it is decoded
            raise ValueError(f"image must have 1 to {most_pixels} pixels, got {width} x {height}")
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if bgr is None:
            raise ValueError(f"image must be a whole JPEG or PNG, got {len(data)} bytes")
        return np.ascontiguousarray(bgr[..., ::-1])
    if msg.encoding not in _CHANNELS:
        raise ValueError(f"encoding must be one of {list(_CHANNELS)}, got {msg.encoding!r:.40}")
    order = _CHANNELS[msg.encoding]
    row = msg.width * _BYTES[msg.encoding]
    if not (0 < msg.width * msg.height <= most_pixels and row <= msg.step):
        raise ValueError(f"image must be at most {most_pixels} pixels with step >= {row}, "
                         f"got {msg.width} x {msg.height}, {msg.step}")  # fmt: skip
    if len(data) != msg.step * msg.height:
        raise ValueError(f"image must have {msg.step * msg.height} bytes, got {len(data)}")
    rows = np.frombuffer(data, np.uint8).reshape(msg.height, msg.step)[:, :row]
    return np.ascontiguousarray(rows.reshape(msg.height, msg.width, -1)[..., order])
