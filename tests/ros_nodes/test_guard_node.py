"""The guard as a process: what the subscriber of cmd_vel sees when something fails."""

import math
import os
import signal
import time

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here: neither a distribution nor the wheels")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from geometry_msgs.msg import Twist, TwistStamped  # noqa: E402
from sensor_msgs.msg import LaserScan  # noqa: E402
from std_msgs.msg import Bool  # noqa: E402
from std_srvs.srv import SetBool, Trigger  # noqa: E402

from ros_nodes import convert  # noqa: E402


def speed(row):
    return float(abs(convert.command_from_twist(row[1])).max())


def moving(rows):
    return bool(rows) and speed(rows[-1]) > 0.05


def arm(probe, on=True):
    return probe.call(SetBool, "guard/arm", data=on)


@pytest.fixture
def armed(stage, probe):
    """Guard and feeder with the base moving; the recorded cmd_vel."""
    rows = probe.listen(TwistStamped, "cmd_vel")
    stage.node("guard")
    stage.feed()
    probe.until(lambda: arm(probe).success, what="arming")
    probe.until(lambda: moving(rows), what="a moving base")
    return rows


def test_a_disarmed_guard_sends_zeros_at_50_hz(stage, probe):
    rows = probe.listen(TwistStamped, "cmd_vel")
    stage.node("guard")
    answer = arm(probe)
    assert not answer.success and "no scan yet" in answer.message
    stage.feed()
    probe.until(lambda: rows, what="cmd_vel")
    probe.spin(3.0)
    assert all(speed(row) == 0 for row in rows)
    rate = (len(rows) - 1) / (rows[-1][0] - rows[0][0])
    assert 40 <= rate <= 55


def test_without_a_scan_the_base_stops_within_300_ms(stage, probe, armed, record_property):
    scans = probe.listen(LaserScan, "scan")
    taken = []
    for trial in range(6):
        number = signal.SIGKILL if trial % 2 else signal.SIGSTOP
        scans.clear()
        probe.until(lambda: moving(armed) and len(scans) > 5, what="a moving base")
        probe.spin(0.3 + 0.037 * trial)
        stage.kill("feeder", number)
        probe.spin(0.6)
        probe.until(lambda: speed(armed[-1]) == 0, what="a zero command")
        last = scans[-1][0]
        driven = max(row[0] for row in armed if speed(row) > 0)
        zero = next(row[0] for row in armed if row[0] > max(last, driven))  # zero from here on
        taken.append(zero - last)
        if number == signal.SIGSTOP:
            stage.kill("feeder", signal.SIGCONT)
        else:
            stage.feed()
    record_property("stop_ms", [round(1000 * t) for t in taken])
    print(f"ms from the last scan to zero: {[round(1000 * t) for t in taken]}")
    assert max(taken) <= 0.3


def test_a_scan_that_is_no_scan_stops_the_base(stage, probe):
    faults = ["nan", "contact", "empty", "length", "frozen", "future", "past"]
    rows = probe.listen(TwistStamped, "cmd_vel")
    stage.node("guard", autoarm="true")
    feeder = stage.feed(faults=",".join(faults))
    for fault in faults:
        probe.until(lambda: moving(rows), what=f"a moving base before {fault}")
        feeder.send_signal(signal.SIGUSR1)
        probe.until(lambda: speed(rows[-1]) == 0, 1.0, f"a zero for {fault}")
        at = len(rows)
        probe.spin(0.6)
        assert len(rows) > at and all(speed(row) == 0 for row in rows[at:]), fault
        feeder.send_signal(signal.SIGUSR1)


@pytest.mark.parametrize("fault", ["jump", "quaternion"])
def test_odometry_that_cannot_be_latches(stage, probe, fault):
    rows = probe.listen(TwistStamped, "cmd_vel")
    stage.node("guard", autoarm="true")
    feeder = stage.feed(faults=fault)
    probe.until(lambda: moving(rows), what="a moving base")
    feeder.send_signal(signal.SIGUSR1)
    probe.until(lambda: "stopped: " in stage.log("guard"), what="the latch")
    probe.spin(0.3)
    assert speed(rows[-1]) == 0
    answer = arm(probe)
    assert not answer.success and ("jumped" if fault == "jump" else "quaternion") in answer.message


def test_no_bad_number_ever_passes(stage, probe):
    rows = probe.listen(TwistStamped, "cmd_vel")
    stage.node("guard", bad_commands=100, autoarm="true")
    stage.feed(commands="wild")
    probe.until(lambda: moving(rows), what="a moving base")
    probe.spin(3.0)
    values = [convert.command_from_twist(msg) for _, msg in rows]
    assert any(v.any() for v in values)
    assert all(math.isfinite(v) and -0.5 <= v <= 1.5 for v, _ in values)
    assert all(math.isfinite(w) and abs(w) <= 1.5 for _, w in values)


def test_sigint_sends_a_last_zero_and_exits_0(stage, probe, armed):
    for number in (signal.SIGINT, signal.SIGTERM):
        probe.until(lambda: moving(armed), what="a moving base")
        stage.processes["guard"].send_signal(number)
        begun = time.monotonic()
        probe.until(lambda: stage.processes["guard"].poll() is not None, 5.0, "the end")
        assert stage.processes["guard"].returncode == 0 and time.monotonic() - begun < 3.0
        probe.spin(0.2)
        assert speed(armed[-1]) == 0, stage.log("guard")
        if number == signal.SIGINT:
            stage.node("guard")  # comes back disarmed
            probe.until(lambda: arm(probe).success, 40.0, what="arming again")


def test_a_second_publisher_latches_within_a_second(stage, probe, armed):
    reports = probe.listen(DiagnosticArray, "diagnostics")
    begun = time.monotonic()
    rival = probe.node.create_publisher(TwistStamped, "cmd_vel", 1)
    probe.until(lambda: "second publisher" in stage.log("guard"), 5.0, "the latch")
    assert time.monotonic() - begun < 1.0
    reports.clear()
    probe.until(lambda: reports, 3.0, "diagnostics")
    status = reports[-1][1].status[0]
    assert status.level == DiagnosticStatus.ERROR and "/probe" in status.message
    assert not probe.call(Trigger, "guard/reset").success
    probe.node.destroy_publisher(rival)
    probe.until(lambda: probe.call(Trigger, "guard/reset").success, 10.0, "reset")
    probe.spin(0.3)
    assert speed(armed[-1]) == 0  # reset alone does not arm
    assert arm(probe).success
    probe.until(lambda: moving(armed), 5.0, "a moving base")


def test_the_stop_button_latches(stage, probe, armed):
    button = probe.node.create_publisher(Bool, "e_stop", 1)
    probe.until(lambda: button.get_subscription_count() == 2, what="discovery")
    probe.spin(0.5)
    begun = time.monotonic()
    button.publish(Bool(data=True))
    probe.until(lambda: speed(armed[-1]) == 0, 2.0, "zero")
    assert time.monotonic() - begun < 0.3
    assert "emergency stop is pressed" in probe.call(Trigger, "guard/reset").message
    button.publish(Bool(data=False))
    probe.spin(0.3)
    assert speed(armed[-1]) == 0
    assert probe.call(Trigger, "guard/reset").success and arm(probe).success


def test_malformed_scans_end_no_guard(stage, probe):
    rows = probe.listen(TwistStamped, "cmd_vel")
    guard = stage.node("guard")
    out = probe.node.create_publisher(LaserScan, "scan", 5)
    probe.until(lambda: out.get_subscription_count() == 1, what="discovery")
    before = memory_mib(guard.pid)
    for k in range(300):
        msg = LaserScan(
            angle_increment=math.nan if k % 3 else 0.01, angle_max=float(k), range_max=1.0
        )
        msg.ranges = [math.nan] * (200_000 if k % 50 == 0 else k)
        out.publish(msg)
        probe.executor.spin_once(timeout_sec=0.002)
    probe.spin(0.5)
    rows.clear()
    probe.until(lambda: len(rows) > 10, what="zeros")
    assert guard.poll() is None and memory_mib(guard.pid) - before < 50


def memory_mib(pid):
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_a_base_of_the_older_kind_gets_twists(stage, probe):
    rows = probe.listen(Twist, "r1/cmd_vel")
    stage.node("guard", "-r", "__ns:=/r1", cmd_vel_stamped="false")
    probe.until(lambda: rows, what="cmd_vel as Twist in a namespace")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (dict(scan_timeot_s=0.2), "scan_timeot_s is not a parameter"),
        (dict(scan_timeout_s=3.0), "scan_timeout_s must be in [0.02, 1.0], got 3.0"),
        (dict(autoarm="maybe"), "autoarm must be bool, got 'maybe'"),
    ],
)
def test_a_wrong_parameter_is_an_error_that_names_it(stage, given, words):
    guard = stage.node("guard", **given)
    assert guard.wait(20.0) == 2
    assert words in stage.log("guard") and "Traceback" not in stage.log("guard")


def test_a_whole_number_does_for_a_float_and_parameters_say_what_they_are(stage, probe):
    from rcl_interfaces.srv import DescribeParameters, GetParameters

    stage.node("guard", v_max=1)
    value = probe.call(GetParameters, "guard/get_parameters", names=["v_max"]).values[0]
    assert value.double_value == 1.0
    names = ["v_max", "scan_timeout_s", "autoarm"]
    told = probe.call(DescribeParameters, "guard/describe_parameters", names=names).descriptors
    assert all(d.description and d.read_only for d in told)
    assert told[0].floating_point_range[0].to_value == 5.0
