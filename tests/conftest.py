"""Settings that must stand before NumPy, MuJoCo and DDS are first imported."""

import os
from pathlib import Path

import pytest

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("MUJOCO_GL", "egl")
# DDS of these tests stays on this machine, away from other domains, and off shared memory, whose
# files a killed process would leave behind.
os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of nodes run one after another: their deadlines are measured in wall time."""
    nodes = ROOT / "tests" / "ros_nodes"
    for item in items:
        if item.path.is_relative_to(nodes) and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group("ros"))


@pytest.fixture
def lines():
    """What a check of ``incognita.bench.faults`` prints, if it is given ``emit=lines.append``."""
    return []


@pytest.fixture
def check():
    """Judge such a check: a line a case with the agreed keys, and nothing lost."""

    def judge(totals, lines, cases):
        keys = {"case", "seed", "injected", "survived", "lost", "worst_ms"}
        assert len([line for line in lines if keys <= line.keys()]) == totals["cases"] >= cases
        assert totals["passed"], [line for line in lines if line.get("lost")]

    return judge
