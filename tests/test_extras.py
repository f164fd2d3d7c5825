"""Every room works without the extras that it does not need, and names the one that it lacks.

The packages of an extra are made truly absent: a child process runs with finders that do not
see any package outside the closure of the requirements that the test allows.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]

BLOCKER = """
import sys

class Without:
    def __init__(self, finder, absent):
        self.finder, self.absent = finder, absent

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.absent:
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

absent = frozenset(sys.argv.pop().split())
sys.meta_path[:] = [Without(finder, absent) for finder in sys.meta_path]
"""


def requirements(*extras: str) -> list[Requirement]:
    """Requirements of the base and of extras, as setup.py writes them."""
    found = []
    for text in metadata.requires("incognita") or []:
        need = Requirement(text)
        if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in ("", *extras)):
            found.append(need)
    return found


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def closure(*extras: str) -> frozenset[str]:
    """Installed distributions that the base and these extras need."""
    seen: set[str] = set()
    todo = requirements(*extras)
    while todo:
        need = todo.pop()
        name = canonical(need.name)
        if name in seen:
            continue
        try:
            below = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        seen.add(name)
        for text in below:
            child = Requirement(text)
            wanted = [{"extra": e} for e in ("", *need.extras)]
            if child.marker is None or any(child.marker.evaluate(w) for w in wanted):
                todo.append(child)
    return frozenset(seen)


@cache
def absent(*extras: str) -> frozenset[str]:
    """Top-level modules of this environment that a smaller install would not have."""
    keep = closure(*extras) | {"incognita"}
    return frozenset(
        module
        for module, owners in metadata.packages_distributions().items()
        if not keep & {canonical(owner) for owner in owners}
    )


def run(code: str, extras: Iterable[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run code where only the base and ``extras`` are installed."""
    return subprocess.run(
        [sys.executable, "-c", BLOCKER + code, " ".join(absent(*extras))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def modules(room: str) -> list[str]:
    """Dotted names of all files of a room."""
    files = sorted((ROOT / room).rglob("*.py"))
    dotted = [".".join(f.relative_to(ROOT).with_suffix("").parts) for f in files]
    return [name.removesuffix(".__init__") for name in dotted if not name.endswith("__main__")]


def test_the_blocker_removes_what_an_extra_brings_and_nothing_of_the_base() -> None:
    assert {"torch", "mujoco", "numba", "typer", "zarr", "pytest"} <= absent()
    assert not {"numpy", "cv2", "onnxruntime"} & absent()
    assert not {"torch", "mujoco", "numba", "typer", "zarr"} & absent("train")
    assert run("import numpy, cv2, onnxruntime").returncode == 0
    assert "No module named 'torch'" in run("import torch").stderr


TORCH = {"toponav.camera", "toponav.meta_net", "toponav.rewards"}
"""Of the camera tier, and of training."""
ROBOT = [
    *modules("rnd_agv"), *sorted(set(modules("toponav")) - TORCH), "evovla.pose", "evovla.scorer",
    "evovla.stage_metrics", "evovla.stage_reward", "evovla.stage_text", "evovla.stages",
    "evovla.triplets", "learning",
    "learning.policy_file", "learning.vec_env", "ros_nodes",
]  # fmt: skip


def test_the_robot_path_runs_on_the_base_alone() -> None:
    result = run(f"import {', '.join(ROBOT)}")
    assert result.returncode == 0, result.stderr


def test_planning_works_without_numba() -> None:
    code = """
import numpy as np
from rnd_agv.planner import astar
blocked = np.zeros((20, 20), bool)
blocked[10, :15] = True
path = astar(blocked, (2, 2), (18, 2))
assert tuple(path[0]) == (2, 2) and tuple(path[-1]) == (18, 2) and not blocked[tuple(path.T)].any()
assert "numba" not in sys.modules
"""
    result = run(code)
    assert result.returncode == 0, result.stderr


def test_exploring_works_without_numba() -> None:
    code = """
import numpy as np
from toponav.explorers import Nearest
from toponav.snapshot import Snapshot
grid = np.full((12, 12), -1, np.int8)
grid[4:8, 4:8] = 0
view = Snapshot(grid, (4, 4), 5.0)
assert Nearest().choose(view) >= 0 and view.frontiers.size.sum() == 12
assert "numba" not in sys.modules
"""
    result = run(code)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "room", ["curiosity", "episodes", "evovla", "learning", "rnd_agv", "sim", "toponav"]
)
def test_training_rooms_need_no_extra_but_train(room: str) -> None:
    result = run(f"import {', '.join(modules(room))}", ["train"])
    assert result.returncode == 0, result.stderr


def test_the_reward_clients_need_neither_torch_nor_a_server() -> None:
    names = ["rubric", "model", "wire", "results", "client", "async_client", "scoring", "local"]
    code = f"import {', '.join(f'reward_vlm.{name}' for name in names)}, sys"
    code += "\nassert not {'torch', 'fastapi', 'av', 'uvicorn'} & set(sys.modules)"
    result = run(code, ["client"])
    assert result.returncode == 0, result.stderr


def test_a_client_without_its_extra_says_what_to_install() -> None:
    result = run("import reward_vlm.client")
    assert "pip install 'incognita[client]'" in result.stderr


def test_the_front_door_needs_no_ros() -> None:
    result = run(
        "from incognita.cli import main\nsys.argv = ['incognita', '--help']\nmain()", ["train"]
    )
    assert result.returncode == 0, result.stderr
    assert "train" in result.stdout


def test_the_reward_service_needs_no_extra_but_its_own() -> None:
    code = "from incognita.cli import main\nsys.argv = ['incognita', 'serve', *%r]\nmain()"
    for arguments in (["--help"], ["--model", "gpt", "--keys", "/dev/null/keys", "--port", "0"]):
        result = run(code % arguments, ["serve"])
        assert "is missing" not in result.stderr, result.stderr
    assert "'gpt'" in result.stderr  # all is imported before a model is opened


def test_nodes_need_no_training_packages() -> None:
    pytest.importorskip("rclpy", reason="ROS 2 comes from the extra ros-wheels or a distribution")
    nodes = [name for name in modules("ros_nodes") if name != "ros_nodes.sim_robot"]
    result = run(f"import {', '.join(nodes)}", ["ros-wheels", "client"])
    assert result.returncode == 0, result.stderr


def entry_points() -> dict[str, str]:
    own = [
        e
        for e in metadata.entry_points(group="console_scripts")
        if e.dist and e.dist.name == "incognita"
    ]
    return {entry.name: entry.value for entry in own}


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("incognita", "train"),
        ("agv_planner", "ros-wheels"),
        ("guard", "ros-wheels"),
        ("reward_client", "client"),
        ("sim_robot", "ros-wheels"),
    ],
)
def test_a_command_without_its_extra_says_what_to_install(command: str, extra: str) -> None:
    module, _, function = entry_points()[command].partition(":")
    result = run(
        f"from {module} import {function}\nsys.argv = ['{command}']\nsys.exit({function}())"
    )
    assert result.returncode not in (0, None)
    assert f"pip install 'incognita[{extra}]'" in result.stderr
    assert "Traceback" not in result.stderr


INSTALL_LINE = re.compile(r"pip install 'incognita\[([a-z-]+)\]'")


def test_install_lines_name_extras_that_exist_and_hold_the_package() -> None:
    extras = set(metadata.metadata("incognita").get_all("Provides-Extra") or [])
    named = {
        extra
        for room in (
            "incognita",
            "curiosity",
            "episodes",
            "learning",
            "sim",
            "rnd_agv",
            "reward_vlm",
            "ros_nodes",
        )
        for file in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for extra in INSTALL_LINE.findall(node.value)
    }
    assert named and named <= extras
