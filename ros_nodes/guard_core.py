"""What decides whether a base may move: the guard without ROS; its callers pass the time.

It does not replace a hardware emergency stop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rnd_agv.command import CommandLimits, limit_rate
from rnd_agv.observation import ScanSpec

DISARMED, ARMED, STOPPED = "disarmed", "armed", "stopped"
ZERO = np.zeros(2)


@dataclass(frozen=True)
class GuardConfig:
    """Limits and time-outs. Receive times are of a steady clock, stamps of ROS time."""

    v_min: float = field(default=-0.5, metadata={"range": (-5.0, 0.0)})
    """Most negative forward speed, m/s."""
    v_max: float = field(default=1.5, metadata={"range": (0.01, 5.0)})
    """Largest forward speed, m/s."""
    w_max: float = field(default=1.5, metadata={"range": (0.01, 10.0)})
    """Largest turn rate, rad/s."""
    accel_v: float = field(default=1.5, metadata={"range": (0.05, 50.0)})
    """Largest change of speed, m/s^2; also the braking that the base is trusted with."""
    accel_w: float = field(default=3.0, metadata={"range": (0.05, 100.0)})
    """Largest change of turn rate, rad/s^2."""
    scan_timeout_s: float = field(default=0.22, metadata={"range": (0.02, 1.0)})
    """A last good scan older than this stops the base; with period and transport under 0.3 s."""
    odom_timeout_s: float = field(default=0.22, metadata={"range": (0.02, 1.0)})
    """The same for odometry."""
    command_timeout_s: float = field(default=0.25, metadata={"range": (0.02, 1.0)})
    """A raw command older than this counts as zero."""
    stamp_skew_s: float = field(default=0.5, metadata={"range": (0.01, 10.0)})
    """A message whose stamp is off the node's clock by more is not used."""
    resume_scans: int = field(default=5, metadata={"range": (1, 100)})
    """Good scans in a row wanted before the base moves (again)."""
    missing_share: float = field(default=0.5, metadata={"range": (0.0, 1.0)})
    """A stop sector with more missing beams (NaN, below range_min) than this is blind."""
    sector_rad: float = field(default=0.6, metadata={"range": (0.05, 1.57)})
    """Half width of the stop sectors ahead and behind, rad."""
    blind_speed: float = field(default=0.2, metadata={"range": (0.0, 5.0)})
    """Largest speed in a direction that the lidar's field of view does not cover, m/s."""
    half_length_m: float = field(default=0.45, metadata={"range": (0.01, 5.0)})
    """Half length of the footprint."""
    half_width_m: float = field(default=0.3, metadata={"range": (0.01, 5.0)})
    """Half width of the footprint."""
    margin_m: float = field(default=0.03, metadata={"range": (0.0, 1.0)})
    """Room kept in front and at the sides when braking for what the scan shows."""
    reaction_s: float = field(default=0.15, metadata={"range": (0.0, 1.0)})
    """Time from a scan to the brakes, for the speed allowed before an obstacle."""
    lidar_x_m: float = field(default=0.0, metadata={"range": (-5.0, 5.0)})
    """Lidar mount in base_link."""
    lidar_yaw_rad: float = field(default=0.0, metadata={"range": (-3.15, 3.15)})
    """Lidar mount in base_link."""
    bad_commands: int = field(default=3, metadata={"range": (1, 100)})
    """Non-finite commands in a row that latch the stop."""

    def __post_init__(self) -> None:
        for name, spec in self.__dataclass_fields__.items():
            (low, high), value = spec.metadata["range"], getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} must be in [{low}, {high}], got {value}")

    @property
    def limits(self) -> CommandLimits:
        """The command limits as the planner's own record."""
        return CommandLimits(self.v_min, self.v_max, self.w_max, self.accel_v, self.accel_w)


class GuardCore:
    """States disarmed, armed and stopped (latched until :meth:`reset`), and what holds a base.

    A *hold* (stale or bad sensor, no command) zeroes the command while it lasts; a *stop* latches.
    ``now`` is always a steady time, ``ros_now`` the ROS time that stamps are held against, s.
    """

    def __init__(self, config: GuardConfig) -> None:
        self.config = config
        self.state = DISARMED
        self.reason = ""
        """Why the stop is latched."""
        self.e_stop = False
        self.rivals: list[str] = []
        """Other publishers of the final command."""
        self.sent = ZERO.copy()
        self.counts = {"bad_command": 0, "bad_scan": 0, "bad_odom": 0, "stops": 0}
        self._command, self._command_at = ZERO, -math.inf
        self._bad_in_row = 0
        self._scan_at, self._scan_stamp, self._scan_fault = -math.inf, -math.inf, "no scan yet"
        self._good_scans = 0
        self._cap = np.zeros(2)  # speed allowed ahead and behind
        self._turn = False
        self._odom_at, self._odom_stamp, self._odom_fault = -math.inf, -math.inf, "no odometry yet"
        self._xy: NDArray[np.float64] | None = None
        self._xy_stamp = self._xy_at = 0.0
        self._ticked_at = -math.inf

    # -- what people do ----------------------------------------------------------------------------

    def arm(self, on: bool, now: float) -> tuple[bool, str]:
        """Arm or disarm; (done, why not). Arming wants a well base and no latched stop."""
        if not on:
            if self.state == ARMED:
                self.state = DISARMED
            return True, self.state
        problem = self.reason if self.state == STOPPED else self.blocker() or self.sensor_fault(now)
        if problem:
            return False, f"not armed: {problem}"
        self.state, self._command_at = (
            ARMED,
            -math.inf,
        )  # an older command never moves it
        return True, ARMED

    def reset(self) -> tuple[bool, str]:
        """Leave a latched stop for disarmed, if its cause is gone."""
        if problem := self.blocker():
            return False, f"not reset: {problem}"
        if self.state == STOPPED:
            self.state, self.reason, self._xy, self._bad_in_row = DISARMED, "", None, 0
        return True, self.state

    def press(self, pressed: bool) -> None:
        """Emergency stop button; releasing it does not clear the latched stop."""
        self.e_stop = bool(pressed)
        if pressed:
            self.stop("emergency stop")

    def stop(self, reason: str) -> None:
        """Latch a stop."""
        if self.state != STOPPED:
            self.state, self.reason = STOPPED, reason
            self.counts["stops"] += 1
        self.sent = ZERO.copy()

    # -- what comes in -----------------------------------------------------------------------------

    def on_rivals(self, names: list[str]) -> None:
        """Other publishers of the final command: latches an armed guard, bars arming."""
        self.rivals = names
        if names and self.state == ARMED:
            self.stop(f"second publisher of cmd_vel: {', '.join(names)}")

    def on_command(self, command: NDArray[np.float64], now: float) -> None:
        """Raw command (2,). Non-finite ones count as zero, and in a row latch the stop."""
        if np.shape(command) == (2,) and np.isfinite(command).all():
            self._command, self._command_at, self._bad_in_row = (
                np.array(command, np.float64),
                now,
                0,
            )
            return
        self._command, self._command_at = ZERO, now
        self.counts["bad_command"] += 1
        self._bad_in_row += 1
        if self._bad_in_row >= self.config.bad_commands and self.state == ARMED:
            self.stop(f"{self._bad_in_row} non-finite commands in a row")

    def on_scan(
        self,
        ranges: NDArray[np.floating],
        scan: ScanSpec,
        stamp_s: float,
        now: float,
        ros_now: float,
    ) -> None:
        """One scan, (B,) m. A bad one holds the base at once, a missing one after the time-out."""
        if stale := now - self._scan_at > self.config.scan_timeout_s:
            self._good_scans = 0
        last, self._scan_stamp = self._scan_stamp, stamp_s
        if abs(stamp_s - ros_now) > self.config.stamp_skew_s:
            return self.bad_scan(f"scan stamp off by {stamp_s - ros_now:+.2f} s")
        if stamp_s <= last:
            # a frozen or repeated scan ages out; a clock set back starts anew
            if stale:
                self._scan_fault = "scan stamp does not advance"
            return None
        ahead, behind, contact = self._sectors(ranges, scan)
        if math.isnan(ahead):
            return self.bad_scan("scan is blind ahead")
        self._cap = np.array([ahead, behind])
        self._turn = not contact
        self._scan_at, self._scan_fault = now, ""
        self._good_scans += 1
        return None

    def bad_scan(self, reason: str) -> None:
        """A scan that cannot be used: hold until good ones come again."""
        self.counts["bad_scan"] += 1
        self._good_scans, self._scan_fault, self._scan_at = 0, reason, -math.inf

    def on_odom(
        self, pose_w: NDArray[np.float64], stamp_s: float, now: float, ros_now: float
    ) -> None:
        """One pose (3,) in odom. A jump beyond 3 times the top speed latches the stop."""
        last, self._odom_stamp = self._odom_stamp, stamp_s
        if abs(stamp_s - ros_now) > self.config.stamp_skew_s:
            self.counts["bad_odom"] += 1
            self._odom_fault, self._odom_at = (
                f"odometry stamp off by {stamp_s - ros_now:+.2f} s",
                -math.inf,
            )
            return None
        if stamp_s <= last:
            return None
        xy = np.asarray(pose_w[:2], dtype=np.float64)
        if self._xy is not None:
            top = max(self.config.v_max, -self.config.v_min)
            dt = max(stamp_s - self._xy_stamp, now - self._xy_at, 0.02)
            jump, reach = float(np.hypot(*(xy - self._xy))), top * dt * 3
            if jump > reach:
                self._xy = None
                return self.bad_odom(
                    f"odometry jumped {jump:.2f} m, at most {reach:.2f} m expected"
                )
        self._xy, self._xy_stamp, self._xy_at = xy, stamp_s, now
        self._odom_at, self._odom_fault = now, ""
        return None

    def bad_odom(self, reason: str) -> None:
        """Odometry that cannot be right: latches an armed guard."""
        self.counts["bad_odom"] += 1
        self._odom_fault, self._odom_at = reason, -math.inf
        if self.state == ARMED:
            self.stop(reason)

    # -- what goes out -----------------------------------------------------------------------------

    def blocker(self) -> str:
        """What keeps the guard from reset and arming, or an empty string."""
        if self.e_stop:
            return "emergency stop is pressed"
        return f"second publisher of cmd_vel: {', '.join(self.rivals)}" if self.rivals else ""

    def sensor_fault(self, now: float) -> str:
        """What is wrong with scan or odometry, or an empty string."""
        config = self.config
        if (age := now - self._scan_at) > config.scan_timeout_s:
            return self._scan_fault or f"scan is stale ({age:.2f} s)"
        if self._good_scans < config.resume_scans:
            return f"waiting for scans ({self._good_scans} of {config.resume_scans})"
        if (age := now - self._odom_at) > config.odom_timeout_s:
            return self._odom_fault or f"odometry is stale ({age:.2f} s)"
        return ""

    def status(self, now: float) -> str:
        """One line: the state and, if the base is held or stopped, why."""
        if self.state == STOPPED:
            return f"{STOPPED}: {self.reason}"
        problem = self.blocker() or self.sensor_fault(now)
        if (
            not problem
            and self.state == ARMED
            and now - self._command_at > self.config.command_timeout_s
        ):
            problem = "no command"
        return f"{self.state}, held: {problem}" if problem else self.state

    def tick(self, now: float) -> NDArray[np.float64]:
        """The command to send now, (2,): zero in every state but armed and well."""
        dt, self._ticked_at = min(max(now - self._ticked_at, 0.0), 0.1), now
        fault = self.sensor_fault(now)
        late = now - self._command_at > self.config.command_timeout_s
        if self.state != ARMED or fault or late:
            self.sent = ZERO.copy()
            return self.sent.copy()
        wanted = limit_rate(self._command[None], self.sent[None], self.config.limits, dt)[0]
        wanted[0] = np.clip(wanted[0], -self._cap[1], self._cap[0])  # brakes harder than the ramp
        if not self._turn:
            wanted[1] = 0.0
        self.sent = np.where(np.isfinite(wanted), wanted, 0.0)
        return self.sent.copy()

    def _sectors(self, ranges: NDArray[np.floating], scan: ScanSpec) -> tuple[float, float, bool]:
        """Speed allowed ahead (NaN: blind) and behind, m/s, and whether anything touches."""
        c = self.config
        bearing = scan.angles + c.lidar_yaw_rad
        cos, sin = np.cos(bearing), np.sin(bearing)
        r = np.asarray(ranges, dtype=np.float64)
        touch = r == -np.inf
        missing = np.isnan(r) | ((r < scan.range_min) & ~touch)
        hit = ~missing & ~touch & (r < scan.range_max)
        r = np.where(hit, r, 0.0)
        x, y = c.lidar_x_m + r * cos, r * sin
        # returns well inside the footprint are parts of the robot itself
        own = hit & (np.abs(x) < c.half_length_m - 0.05) & (np.abs(y) < c.half_width_m - 0.05)
        swath = hit & ~own & (np.abs(y) <= c.half_width_m + c.margin_m)
        allowed = []
        for side, cap in ((1.0, c.v_max), (-1.0, -c.v_min)):
            sector = side * cos >= math.cos(c.sector_rad)
            facing = side * cos > 0
            if not sector.any():
                cap = min(cap, c.blind_speed)
            elif np.mean(missing[sector]) > c.missing_share:
                allowed.append(math.nan if side > 0 else 0.0)
                continue
            near = swath & (side * x > 0)
            if (touch & facing).any():
                cap = 0.0
            elif near.any():
                gap = max(float(np.min(side * x[near])) - c.half_length_m - c.margin_m, 0.0)
                at = c.accel_v * c.reaction_s
                cap = min(cap, math.sqrt(at**2 + 2 * c.accel_v * gap) - at)
            allowed.append(cap)
        return allowed[0], allowed[1], bool(touch.any())
