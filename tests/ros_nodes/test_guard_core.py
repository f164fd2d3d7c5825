"""The guard's decisions on numbers worked by hand, with time passed in."""

import dataclasses
import math

import numpy as np
import pytest

from rnd_agv.observation import full_circle
from ros_nodes.guard_core import ARMED, DISARMED, STOPPED, GuardConfig, GuardCore

SCAN = full_circle(360, 10.0, 0.05)
FREE = np.full(360, np.inf, np.float32)


class Rig:
    """A guard on its own clock: scans at 10 Hz, odometry and commands at 25, ticks at 50."""

    def __init__(self, **overrides):
        self.core = GuardCore(GuardConfig(**overrides))
        self.t, self.x, self.ranges, self.command = 100.0, 0.0, FREE, np.array([1.0, 0.2])
        self.feed = {"scan", "odom", "command"}
        self.skew = 0.0

    def run(self, seconds):
        """Advance, returning every command that went out."""
        out = []
        for _ in range(round(seconds / 0.02)):
            step = round(self.t / 0.02)
            if "scan" in self.feed and step % 5 == 0:
                self.core.on_scan(self.ranges, SCAN, self.t + self.skew, self.t, self.t)
            if "odom" in self.feed and step % 2 == 0:
                self.core.on_odom(np.array([self.x, 0, 0]), self.t, self.t, self.t)
            if "command" in self.feed and step % 2 == 0:
                self.core.on_command(self.command, self.t)
            out.append(self.core.tick(self.t))
            self.t += 0.02
        return np.array(out)


@pytest.fixture
def rig():
    rig = Rig()
    rig.run(0.6)
    assert rig.core.arm(True, rig.t) == (True, ARMED)
    return rig


def test_a_well_base_drives_and_a_disarmed_one_never_does():
    rig = Rig()
    assert not rig.core.arm(True, rig.t)[0]  # no scan yet
    assert not rig.run(2.0).any()
    assert rig.core.arm(True, rig.t)[0]
    np.testing.assert_allclose(rig.run(2.0)[-1], [1.0, 0.2])
    rig.core.arm(False, rig.t)
    assert not rig.run(1.0).any() and rig.core.state == DISARMED


def test_the_ramp_is_the_limit(rig):
    out = rig.run(0.5)
    # accel 1.5 m/s^2 at 50 Hz: 0.03 m/s a tick, the first within a tick of arming
    np.testing.assert_allclose(np.diff(out[2:20, 0]), 0.03, atol=1e-9)
    rig.command = np.array([1e9, -1e9])
    out = rig.run(3.0)
    np.testing.assert_allclose(out[-1], [1.5, -1.5])
    assert np.abs(np.diff(out[:, 0])).max() <= 0.03 + 1e-9


@pytest.mark.parametrize("lost", ["scan", "odom", "command"])
def test_silence_stops_within_300_ms_and_heals(rig, lost):
    rig.run(1.0)
    rig.feed.discard(lost)
    out = rig.run(1.0)
    still = np.flatnonzero(~out.any(axis=1))
    assert still[0] * 0.02 <= 0.28 and not out[still[0] :].any()
    rig.feed.add(lost)
    assert rig.run(1.0)[-1, 0] > 0.5


def test_after_a_gap_five_good_scans_come_first(rig):
    rig.feed.discard("scan")
    rig.run(1.0)
    rig.feed.add("scan")
    moving = np.flatnonzero(rig.run(1.0).any(axis=1))
    assert 0.38 <= moving[0] * 0.02 <= 0.54


@pytest.mark.parametrize("ranges", [np.full(360, np.nan), np.full(360, -np.inf), np.zeros(360)])
def test_a_scan_that_sees_nothing_or_touches_stops(rig, ranges):
    rig.run(1.0)
    rig.ranges = ranges
    out = rig.run(1.0)
    assert not out[6:].any()


def test_contact_ahead_leaves_only_the_way_back(rig):
    rig.ranges = FREE.copy()
    rig.ranges[180] = -np.inf  # straight ahead
    assert not rig.run(0.5).any()
    rig.command = np.array([-0.3, 0.5])
    np.testing.assert_allclose(rig.run(1.0)[-1], [-0.3, 0.0])


@pytest.mark.parametrize("skew", [3600.0, -3600.0])
def test_a_scan_stamped_in_another_hour_stops(rig, skew):
    rig.run(1.0)
    rig.skew = skew
    assert not rig.run(1.0)[15:].any()


def test_a_frozen_stamp_ages_out(rig):
    rig.run(1.0)
    rig.feed.discard("scan")
    frozen = rig.t
    out = []
    for _ in range(20):
        rig.core.on_scan(FREE, SCAN, frozen, rig.t, rig.t)
        out.append(rig.run(0.02)[0])
    assert np.array(out)[:10].any() and not np.array(out)[13:].any()


def test_a_clock_set_back_resumes(rig):
    rig.run(1.0)
    rig.skew = -0.4  # stamps go back, within the skew
    rig.run(0.6)
    assert rig.run(0.6)[-1, 0] > 0


@pytest.mark.parametrize("bad", [[math.nan, 0], [0, math.inf], [-math.inf, math.nan]])
def test_one_bad_command_is_zero_and_three_latch(rig, bad):
    rig.run(1.0)
    rig.feed.discard("command")
    rig.core.on_command(np.array(bad), rig.t)
    out = rig.run(0.2)
    assert rig.core.state == ARMED and out[-1, 0] < out[0, 0] and np.isfinite(out).all()
    rig.core.on_command(np.array([1.0, 0.0]), rig.t)  # a good one starts the count anew
    for _ in range(3):
        assert rig.core.state == ARMED
        rig.core.on_command(np.array(bad), rig.t)
    assert rig.core.state == STOPPED and rig.core.counts["bad_command"] == 4
    rig.feed.add("command")
    assert not rig.run(1.0).any()
    assert rig.core.arm(True, rig.t)[0] is False
    assert rig.core.reset() == (True, DISARMED)
    assert not rig.run(0.1).any()
    assert rig.core.arm(True, rig.t)[0] and rig.run(1.0)[-1, 0] > 0.9


def test_ten_thousand_wild_commands_pass_no_bad_value(rig):
    rng = np.random.default_rng(0)
    wild = [math.nan, math.inf, -math.inf, 1e9, -1e9, 1e308, 0.5, -0.1]
    rig.feed.discard("command")
    for _ in range(10_000):
        rig.core.on_command(rng.choice(wild, 2), rig.t)
        if rig.core.state == STOPPED:
            rig.core.reset()
            rig.core.arm(True, rig.t)
        v, w = rig.run(0.02)[0]
        assert -0.5 <= v <= 1.5 and abs(w) <= 1.5


def test_a_command_of_a_wrong_shape_counts_as_bad(rig):
    rig.core.on_command(np.zeros(3), rig.t)
    assert rig.core.counts["bad_command"] == 1


def test_a_jump_of_odometry_latches_and_ordinary_motion_does_not(rig):
    for _ in range(20):
        rig.x += 0.06  # 1.5 m/s
        rig.run(0.04)
    assert rig.core.state == ARMED
    rig.x += 5.0
    assert not rig.run(0.1)[2:].any()
    assert rig.core.state == STOPPED and "jumped 5.00 m" in rig.core.reason


def test_the_same_way_after_a_long_gap_is_no_jump(rig):
    rig.feed.discard("odom")
    rig.run(2.0)
    rig.x += 2.0
    rig.feed.add("odom")
    rig.run(0.1)
    assert rig.core.state == ARMED


def test_the_button_latches_and_reset_waits_for_its_release(rig):
    rig.core.press(True)
    assert not rig.run(0.5).any()
    assert rig.core.reset()[0] is False
    rig.core.press(False)
    assert rig.core.state == STOPPED and rig.core.reset()[0]


def test_a_rival_publisher_latches(rig):
    rig.core.on_rivals(["/other"])
    assert rig.core.state == STOPPED and "/other" in rig.core.status(rig.t)
    assert rig.core.reset()[0] is False
    rig.core.on_rivals([])
    assert rig.core.reset()[0]


def test_speed_before_a_wall_is_what_the_brakes_can_take(rig):
    rig.run(1.5)
    bearing = SCAN.angles
    for distance in (1.0, 0.6, 0.48, 0.42):
        rig.ranges = np.where(np.abs(bearing) < 0.2, distance / np.cos(bearing), np.inf)
        v = rig.run(0.2)[-1, 0]
        gap = max(distance - 0.45 - 0.03, 0)  # half length and margin
        # v = sqrt((a t)^2 + 2 a g) - a t with a = 1.5, t = 0.15
        wanted = math.sqrt(0.225**2 + 3.0 * gap) - 0.225
        assert v == pytest.approx(min(wanted, 1.0), abs=1e-6)


def test_walls_beside_the_robot_do_not_slow_it(rig):
    angle = SCAN.angles
    with np.errstate(divide="ignore"):
        rig.ranges = np.minimum(0.5 / np.abs(np.sin(angle)), np.inf)  # an aisle 1 m wide
    assert rig.run(1.5)[-1, 0] == pytest.approx(1.0)


def test_backwards_out_of_sight_is_slow():
    rig = Rig(half_length_m=0.2, half_width_m=0.15, blind_speed=0.1)
    front = dataclasses.replace(SCAN, beams=180, angle_min=-math.pi / 2)
    rig.command = np.array([-0.5, 0.0])
    rig.feed.discard("scan")
    for _ in range(20):
        rig.core.on_scan(FREE[:180], front, rig.t, rig.t, rig.t)
        rig.core.arm(True, rig.t)
        out = rig.run(0.1)
    assert out[-1, 0] == pytest.approx(-0.1)


def test_config_names_what_is_out_of_range():
    with pytest.raises(ValueError, match="scan_timeout_s must be in .* got 5"):
        GuardConfig(scan_timeout_s=5.0)
