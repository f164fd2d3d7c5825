"""Nodes as real processes over DDS: a test has a domain of its own and ends what it started."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FEEDER = Path(__file__).with_name("feeder.py")
COUNTER = itertools.count(os.getpid() * 17)


def pytest_configure(config):
    config.addinivalue_line("markers", "kilted: makes an environment with the Kilted wheels")


class Stage:
    """Processes and one probe node in a DDS domain of their own."""

    def __init__(self, folder):
        self.domain = 1 + next(COUNTER) % 100
        self.folder = folder
        self.processes = {}
        self.probe = None

    def env(self):
        return os.environ | {
            "ROS_DOMAIN_ID": str(self.domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "FASTDDS_BUILTIN_TRANSPORTS": "UDPv4",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }

    def start(self, name, *line):
        """Start a process in a session of its own; its output goes to a file."""
        with open(self.folder / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, *map(str, line)],
                env=self.env(),
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.processes[name]

    def node(self, name, *arguments, **parameters):
        """Start a node of ours with parameters."""
        given = [w for key, value in parameters.items() for w in ("-p", f"{key}:={value}")]
        return self.start(name, "-m", f"ros_nodes.{name}", "--ros-args", *arguments, *given)

    def feed(self, name="feeder", **options):
        """Start a process that plays a robot's sensors and planner, see feeder.py."""
        return self.start(name, FEEDER, *(f"--{key}={value}" for key, value in options.items()))

    def log(self, name):
        return (self.folder / f"{name}.log").read_text()

    def kill(self, name, number=signal.SIGKILL):
        """Signal the whole group of a process."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.processes[name].pid, number)

    def end(self, name, number=signal.SIGINT, within=3.0):
        """Signal the process itself, as ros2 launch does; its exit code and time taken."""
        process, begun = self.processes[name], time.monotonic()
        process.send_signal(number)
        return process.wait(within + 10.0), time.monotonic() - begun

    def close(self):
        if self.probe is not None:
            self.probe.close()
        for name, process in self.processes.items():
            self.kill(name)
            process.wait(10.0)


class Probe:
    """A node of the test's own: what it hears comes with the time it came."""

    def __init__(self, domain):
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("probe", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.heard = {}

    def listen(self, kind, topic, qos=None):
        """Record (monotonic time, message) of a topic; best effort: none waits for another."""
        from rclpy.qos import QoSProfile, QoSReliabilityPolicy

        if qos is None:
            qos = QoSProfile(depth=100, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        rows = self.heard[topic] = []
        self.node.create_subscription(
            kind, topic, lambda msg: rows.append((time.monotonic(), msg)), qos
        )
        return rows

    def spin(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=max(end - time.monotonic(), 0.0))

    def until(self, condition, within=15.0, what="the condition"):
        """Spin until ``condition()`` holds; how long it took."""
        begun = time.monotonic()
        while not condition():
            if time.monotonic() - begun > within:
                pytest.fail(f"{what} did not come within {within} s")
            self.executor.spin_once(timeout_sec=0.02)
        return time.monotonic() - begun

    def call(self, kind, service, within=15.0, **fields):
        """Call a service and wait for the answer; ask again if none comes.

        A server drops its answer where it has not discovered the client's reader yet, though the
        client sees the server already (ros2/rmw_fastrtps pull request 467).
        """
        client = self.node.create_client(kind, service)
        self.until(client.service_is_ready, within, service)
        asked = []

        def answered():
            if len(asked) <= (time.monotonic() - begun) // 5:
                asked.append(client.call_async(kind.Request(**fields)))
            return any(future.done() for future in asked)

        begun = time.monotonic()
        self.until(answered, within, service)
        return next(future for future in asked if future.done()).result()

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def stage(tmp_path):
    """Processes without a probe."""
    stage = Stage(tmp_path)
    yield stage
    stage.close()


@pytest.fixture
def probe(stage):
    """A probe on the stage's domain."""
    pytest.importorskip("rclpy", reason="no ROS 2 here: neither a distribution nor the wheels")
    stage.probe = Probe(stage.domain)
    return stage.probe
