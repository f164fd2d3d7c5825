"""The import table of the rooms, checked from the syntax tree of every file."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

MESSAGES = {
    "action_msgs",
    "builtin_interfaces",
    "diagnostic_msgs",
    "geometry_msgs",
    "lifecycle_msgs",
    "nav_msgs",
    "rcl_interfaces",
    "rosgraph_msgs",
    "sensor_msgs",
    "std_msgs",
    "std_srvs",
    "tf2_msgs",
    "trajectory_msgs",
    "visualization_msgs",
}


@dataclass(frozen=True)
class Room:
    """What the files of one room may import."""

    rooms: frozenset[str] = frozenset()
    """Rooms on the floors below."""
    packages: frozenset[str] = frozenset()
    """Packages from outside, in any file."""
    doors: dict[str, frozenset[str]] = field(default_factory=dict)
    """Path in the room, a file or a folder -> what may be imported there besides."""


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


GROUND = names("curiosity episodes")
ISLANDS = GROUND | names("learning rnd_agv toponav evovla reward_vlm")

TABLE = {
    "curiosity": Room(packages=names("numpy torch")),
    "episodes": Room(packages=names("numpy zarr numcodecs cv2 simplejpeg av pyarrow filelock")),
    "learning": Room(
        rooms=GROUND,
        packages=names("numpy torch"),
        doors={
            "checkpoint.py": names("safetensors"),
            "policy_file.py": names("safetensors onnx onnxruntime"),
            "sb3_adapter.py": names("stable_baselines3 gymnasium"),
        },
    ),
    # No torch: this room runs on the robot. Nor numba but through the file that does without.
    "rnd_agv": Room(
        rooms=GROUND | {"learning"},
        packages=names("numpy cv2"),
        doors={"_jit.py": names("numba")},
    ),
    "toponav": Room(
        rooms=GROUND | {"learning"},
        packages=names("numpy cv2"),
        doors={
            "_jit.py": names("numba"),
            "camera.py": names("torch transformers safetensors"),
            "meta_net.py": names("torch"),
        },
    ),
    "evovla": Room(
        rooms=GROUND | {"learning"},
        packages=names("numpy torch"),
        doors={
            "adapters/backbones.py": names("transformers"),
            "adapters/files.py": names("safetensors"),
            "clip_scorer.py": names("transformers"),
            "tiny_scorer.py": names("safetensors"),
        },
    ),
    "reward_vlm": Room(
        rooms=GROUND | {"learning"},
        packages=names("numpy pydantic"),
        doors={
            "annotate.py": names("torch"),
            "async_client.py": names("httpx"),
            "caption_wrapper.py": names("stable_baselines3"),
            "decode.py": names("av cv2"),
            "gym_wrapper.py": names("gymnasium"),
            "training.py": names("stable_baselines3"),
            "backends/small_net.py": names("torch safetensors"),
            "backends/small.py": names("torch safetensors cv2"),
            "backends/qwen.py": names("torch transformers"),
            "backends/qwen_files.py": names("huggingface_hub"),
            "backends/qwen_input.py": names("torch"),
            "backends/openai.py": names("cv2"),
            "backends/engine_http.py": names("httpx"),
            "gateway": names("fastapi starlette uvicorn h11 prometheus_client"),
        },
    ),
    "sim": Room(
        rooms=ISLANDS,
        packages=names("numpy mujoco gymnasium gymnasium_robotics cv2 yaml"),
        doors={"faces": names("torch stable_baselines3 rl_games rsl_rl tensordict")},
    ),
    "ros_nodes": Room(
        rooms=ISLANDS,
        packages=names("numpy cv2 rclpy tf2_ros ament_index_python") | MESSAGES,
        doors={"sim_robot.py": names("sim")},
    ),
    "incognita": Room(
        rooms=ISLANDS | names("sim ros_nodes"),
        packages=names(
            "numpy torch cv2 mujoco gymnasium gymnasium_robotics stable_baselines3 zarr av "
            "numcodecs simplejpeg pyarrow safetensors onnx onnxruntime numba matplotlib "
            "tensorboard typer rich click rclpy httpx uvicorn transformers pydantic"
        )
        | MESSAGES,
    ),
}


def imports(tree: ast.AST) -> Iterator[tuple[int, int, str]]:
    """(line, level, module) of every import, in functions and type-checking blocks too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, 0, alias.name
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.level, node.module or ""
        elif isinstance(node, ast.Call) and node.args:
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            name = node.args[0]
            if called in ("import_module", "__import__") and isinstance(name, ast.Constant):
                yield node.lineno, 0, str(name.value)


def violations(path: Path, source: str) -> list[str]:
    """Imports of one file, ``path`` relative to the checkout, that the table does not allow."""
    name, *inside = path.parts
    room = TABLE[name]
    allowed = room.rooms | room.packages | sys.stdlib_module_names
    for door, extra in room.doors.items():
        if inside[: len(Path(door).parts)] == list(Path(door).parts):
            allowed |= extra
    found = []
    for line, level, module in imports(ast.parse(source)):
        top = module.partition(".")[0]
        if level >= len(path.parts):
            found.append(f"{path}:{line}: a relative import leaves {name}/")
        elif level == 0 and top == name:
            found.append(f"{path}:{line}: {module} is in the same room: import it relatively")
        elif level == 0 and top not in allowed:
            found.append(f"{path}:{line}: {name}/ may not import {top}")
    return found


def rooms() -> list[str]:
    """The rooms that setup.py lists."""
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ROOMS":
            return list(ast.literal_eval(node.value))
    raise AssertionError("setup.py has no ROOMS")


@pytest.mark.parametrize("room", rooms())
def test_a_room_imports_only_what_the_table_allows(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    found = [v for f in files for v in violations(f.relative_to(ROOT), f.read_text("utf-8"))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("rnd_agv/policy.py", "import sim"),
        ("rnd_agv/policy.py", "from ros_nodes.convert import x"),
        ("rnd_agv/policy.py", "def f():\n    import torch"),
        ("rnd_agv/grid.py", "from numba import njit"),
        ("rnd_agv/grid.py", "from rnd_agv.robot import AGV"),
        ("rnd_agv/grid.py", "from ..sim import batch"),
        ("curiosity/rnd.py", "import learning"),
        ("episodes/writer.py", "import importlib; importlib.import_module('curiosity')"),
        ("evovla/stages.py", "import httpx"),
        ("evovla/stage_reward.py", "from transformers import CLIPModel"),
        ("learning/ppo.py", "import stable_baselines3"),
        ("learning/ppo.py", "import onnx.helper"),
        ("ros_nodes/agv_planner.py", "from sim.worlds import warehouse"),
        ("ros_nodes/guard.py", "if TYPE_CHECKING:\n    import torch"),
        ("sim/batch.py", "import torch"),
        ("sim/batch.py", "import ros_nodes"),
        ("sim/tasks/agv.py", "from ...learning import ppo"),
    ],
)
def test_the_check_sees_a_forbidden_import(file: str, source: str) -> None:
    assert len(violations(Path(file), source)) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("ros_nodes/sim_robot.py", "from sim.worlds import warehouse"),
        ("rnd_agv/_jit.py", "from numba import njit"),
        ("learning/sb3_adapter.py", "import stable_baselines3"),
        ("sim/faces/sb3.py", "import torch"),
        ("sim/tasks/agv.py", "from ..worlds import hall\nfrom . import base\nimport math"),
    ],
)
def test_the_named_doors_are_open(file: str, source: str) -> None:
    assert violations(Path(file), source) == []


def test_setup_lists_exactly_the_rooms_that_exist() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages == set(rooms()) == set(TABLE)


def test_every_folder_of_a_room_with_code_is_a_regular_package() -> None:
    folders = {file.parent for room in rooms() for file in (ROOT / room).rglob("*.py")}
    assert [f.relative_to(ROOT) for f in folders if not (f / "__init__.py").is_file()] == []


@pytest.mark.parametrize("folder", ["launch", "tests"])
def test_launch_and_tests_are_never_packages(folder: str) -> None:
    # launch/__init__.py would hide ROS's own `launch`, and tests/sim/__init__.py our sim.
    assert list((ROOT / folder).rglob("__init__.py")) == []


@pytest.mark.parametrize("folder", ["", "tests", "launch"])
def test_a_room_resolves_to_our_file_wherever_python_starts(folder: str) -> None:
    code = (
        "import importlib.util, sys\n"
        "for room in sys.argv[1:]: print(importlib.util.find_spec(room).origin)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *rooms()],
        cwd=ROOT / folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == [str(ROOT / room / "__init__.py") for room in rooms()]
