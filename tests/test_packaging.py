"""What an install brings: the wheel, the ROS 2 package, the locked environment."""

import ast
import email
import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from datetime import date, timedelta
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
NODES = ("agv_planner", "guard", "sim_robot")
ROOMS = (
    "curiosity", "episodes", "evovla", "incognita", "learning", "reward_vlm", "rnd_agv",
    "ros_nodes", "sim", "toponav",
)  # fmt: skip


def clean_environment(**more: str) -> dict[str, str]:
    """Environment for a Python of another environment: without what the ROS wheels set for ours."""
    drop = ("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "LD_LIBRARY_PATH", "PYTHONPATH")
    return {key: value for key, value in os.environ.items() if key not in drop} | more


def run(*command: str | Path, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean_environment(**more),
        capture_output=True,
        text=True,
        timeout=150,
    )


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout without build outputs."""
    copy = tmp_path_factory.mktemp("source") / "incognita"
    ignore = shutil.ignore_patterns(
        ".*", "build", "dist", "runs", "report", "docs", "tests", "__pycache__", "*.egg-info"
    )
    shutil.copytree(ROOT, copy, ignore=ignore)
    return copy


@pytest.fixture(scope="session")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    built = run(sys.executable, "-m", "pip", "wheel", *options, tree, cwd=folder)
    assert built.returncode == 0, built.stderr
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="session")
def empty(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment that holds the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("empty") / "env"
    venv.create(folder, with_pip=False, symlinks=True)
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin/python")
    installed = run(*pip, "install", "--quiet", "--no-deps", wheel, cwd=folder)
    assert installed.returncode == 0, installed.stderr
    return folder


def test_the_wheel_holds_the_rooms_and_what_ros_looks_for(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    packages = {name.split("/")[0] for name in names if name.endswith("/__init__.py")}
    assert packages == set(ROOMS)
    assert {f"{room}/py.typed" for room in ROOMS} <= names
    data = "incognita-0.1.0.data/data/"
    assert data + "share/ament_index/resource_index/packages/incognita" in names
    assert data + "share/incognita/package.xml" in names
    assert {f"{data}lib/incognita/{node}" for node in NODES} <= names
    for file in (*ROOT.glob("launch/*.launch.py"), *ROOT.glob("launch/params/*.yaml")):
        assert f"{data}share/incognita/{file.relative_to(ROOT)}" in names


def test_the_wheel_holds_every_shipped_policy(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = [f for f in (ROOT / "incognita/policies").rglob("*") if f.is_file()]
    shipped = [f for f in shipped if f.suffix != ".pyc"]
    assert {str(file.relative_to(ROOT)) for file in shipped} <= names


def test_the_wheel_requires_the_small_base_alone(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (file,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    message = email.message_from_bytes(archive.read(file))
    needs = [Requirement(text) for text in message.get_all("Requires-Dist", [])]
    base = {n.name for n in needs if n.marker is None or "extra" not in str(n.marker)}
    assert base == {"numpy", "opencv-python", "onnxruntime"}
    ros = [n for n in needs if n.name.startswith("ros-")]
    assert len(ros) > 10
    for need in ros:
        assert 'extra == "ros-wheels"' in str(need.marker)
        assert not need.marker.evaluate(
            {"extra": "ros-wheels", "platform_machine": "aarch64", "platform_system": "Linux"}
        )
        assert [spec.operator for spec in need.specifier] == ["=="]


def test_an_empty_environment_imports_the_rooms_and_says_what_it_lacks(empty: Path) -> None:
    python = empty / "bin/python"
    code = "import incognita, ros_nodes, learning; print(incognita.__file__)"
    imported = run(python, "-c", code, cwd=empty)
    assert imported.returncode == 0, imported.stderr
    assert Path(imported.stdout.strip()).is_relative_to(empty)
    command = run(empty / "bin/incognita", "--help", cwd=empty)
    assert command.returncode == 1
    assert "pip install 'incognita[train]'" in command.stderr


ROBOT = """
import json, pathlib, sys
import numpy as np
import incognita
from learning.policy_file import OnnxPolicy
from rnd_agv.planner import astar
from toponav.meta import MetaExplorer
from toponav.snapshot import Snapshot

assert len(astar(np.zeros((9, 9), bool), (0, 0), (8, 8))) == 9
driven = []
for folder in sorted(pathlib.Path(incognita.__file__).parent.glob("policies/*/manifest.json")):
    if "ranges of the sensor" in json.loads(folder.read_text())["action"].get("unit", ""):
        explorer = MetaExplorer(folder.parent)
        grid = np.full((60, 60), -1, np.int8)
        grid[25:35, 20:40] = 0
        grid[24, 20:40] = 100
        assert np.isfinite(explorer.costs(Snapshot(grid, (30, 30), 20.0))).all()
        driven.append(folder.parent.name)
        continue
    policy = OnnxPolicy(folder.parent)
    action = policy(np.zeros((1, policy.obs_dim), np.float32))
    assert np.isfinite(action).all() and np.abs(action).max() <= 1
    driven.append(folder.parent.name)
assert not {"torch", "numba", "mujoco"} & set(sys.modules)
print(json.dumps(driven))
"""


def test_a_robot_with_the_base_alone_plans_and_runs_every_shipped_policy(empty: Path) -> None:
    (site,) = empty.glob("lib/python3*/site-packages")
    for name in ("numpy", "opencv-python", "onnxruntime", "flatbuffers", "protobuf", "packaging"):
        files = metadata.files(name) or []
        for top in {file.parts[0] for file in files if ".." not in file.parts}:
            source = Path(metadata.distribution(name).locate_file(top))
            if not (site / top).exists():
                (site / top).symlink_to(source)
    driven = run(empty / "bin/python", "-c", ROBOT, cwd=empty)
    assert driven.returncode == 0, driven.stderr
    shipped = (ROOT / "incognita/policies").glob("*/manifest.json")
    assert json.loads(driven.stdout) == sorted(file.parent.name for file in shipped)


def test_ros2_run_finds_executables_after_pip(empty: Path) -> None:
    for node in NODES:
        file = empty / "lib/incognita" / node
        assert os.access(file, os.X_OK)
        assert (empty / "bin" / node).is_file()
        assert f"from ros_nodes.{node} import main" in file.read_text()
    assert (empty / "share/ament_index/resource_index/packages/incognita").is_file()


def test_package_xml_is_one_that_colcon_understands() -> None:
    # A malformed manifest does not fail a colcon build: the package turns into plain Python.
    from catkin_pkg.package import parse_package

    warnings: list[str] = []
    package = parse_package(str(ROOT / "package.xml"), warnings=warnings)
    package.validate(warnings=warnings)
    assert not warnings
    assert (package.name, package.package_format) == ("incognita", 3)
    assert package.version == metadata.version("incognita")
    assert package.licenses == ["Apache-2.0"]
    assert [export.content for export in package.exports] == ["ament_python"]


def test_package_xml_names_every_ros_package_that_nodes_and_launch_files_import() -> None:
    from catkin_pkg.package import parse_package

    declared = {d.name for d in parse_package(str(ROOT / "package.xml")).exec_depends}
    used = set()
    for file in (*ROOT.glob("ros_nodes/*.py"), *ROOT.glob("launch/*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                used.add(node.module.partition(".")[0])
            elif isinstance(node, ast.Import):
                used |= {alias.name.partition(".")[0] for alias in node.names}
    ros = {name for name in used if name.endswith(("_msgs", "_srvs", "_interfaces"))}
    ros |= used & {"rclpy", "launch", "launch_ros", "ament_index_python", "tf2_ros"}
    assert ros
    assert ros <= declared


@pytest.mark.skipif(shutil.which("colcon") is None, reason="colcon is not installed (apt: colcon)")
def test_colcon_builds_a_ros_package(tree: Path, tmp_path: Path) -> None:
    colcon = (shutil.which("colcon") or "", "--log-base", tmp_path / "log", "build")
    built = run(
        *colcon,
        *("--base-paths", tree, "--build-base", tmp_path / "build"),
        *("--install-base", tmp_path / "install"),
        cwd=tmp_path,
        PATH="/usr/local/bin:/usr/bin:/bin",
    )
    assert built.returncode == 0, built.stderr
    prefix = tmp_path / "install/incognita"
    # The hook is there only if colcon took it for an ament package.
    assert (prefix / "share/incognita/hook/ament_prefix_path.sh").is_file()
    assert (prefix / "share/ament_index/resource_index/packages/incognita").is_file()
    for node in NODES:
        assert os.access(prefix / "lib/incognita" / node, os.X_OK)


def audit(*arguments: str | Path, **more: str) -> tuple[int, list[dict[str, object]]]:
    done = run(sys.executable, ROOT / "scripts/audit.py", *arguments, cwd=ROOT, **more)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_what_is_installed_is_what_is_locked_and_above_the_floors() -> None:
    code, rows = audit("--offline", "--lock", ROOT / "requirements/ci.lock")
    failed = [row for row in rows if row.get("ok") is False]
    assert (code, failed) == (0, [])
    cases = {row.get("case") for row in rows}
    assert {"lock/ci.lock/hashes", "floor/torch", "bundled/opencv-python/libavcodec"} <= cases


def test_the_audit_fails_where_the_index_of_advisories_is_absent(tmp_path: Path) -> None:
    lock = tmp_path / "one.lock"
    line = f"packaging=={metadata.version('packaging')}"
    lock.write_text(f"{line} \\\n    --hash=sha256:{'0' * 64}\n")
    code, rows = audit("--lock", lock, HTTPS_PROXY="http://127.0.0.1:9", NO_PROXY="")
    assert code == 1
    assert [row["case"] for row in rows if row.get("ok") is False] == ["advisories/one.lock"]


def test_the_audit_fails_without_a_hash_and_for_another_version(tmp_path: Path) -> None:
    lock = tmp_path / "bad.lock"
    lock.write_text("numpy==1.0\n")
    code, rows = audit("--offline", "--lock", lock)
    assert code == 1
    failed = {row["case"] for row in rows if row.get("ok") is False}
    assert failed == {"lock/bad.lock/hashes", "lock/bad.lock/installed"}


def test_a_waiver_ends_on_its_date(tmp_path: Path) -> None:
    below = [
        row["case"]
        for row in audit("--offline", "--lock", ROOT / "requirements/ci.lock")[1]
        if "waived" in str(row.get("note"))
    ]
    assert below, "no wheel here is below a floor: drop the waivers"
    waivers = json.loads((ROOT / "requirements/waivers.json").read_text())
    yesterday = (date.today() - timedelta(days=1)).isoformat()
    old = tmp_path / "waivers.json"
    old.write_text(json.dumps([waiver | {"until": yesterday} for waiver in waivers]))
    code, rows = audit("--offline", "--lock", ROOT / "requirements/ci.lock", "--waivers", old)
    assert code == 1
    assert [row["case"] for row in rows if row.get("ok") is False] == below


@pytest.mark.parametrize("lock", ["ci.lock", "ros.lock"])
def test_no_lock_brings_torch_or_cuda(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text()
    names = {line.split("==")[0] for line in text.splitlines() if "==" in line}
    assert len(names) > 50
    assert not [n for n in names if n in ("torch", "triton") or n.startswith(("nvidia", "cuda"))]


def test_every_requirement_of_the_tests_is_locked() -> None:
    locks = (ROOT / "requirements/ci.lock", ROOT / "requirements/ros.lock")
    pinned = {
        line.split("==")[0]: line.split("==")[1].split()[0]
        for lock in locks
        for line in lock.read_text().splitlines()
        if "==" in line and not line.startswith(" ")
    }
    needs = [Requirement(text) for text in metadata.requires("incognita") or []]
    wanted = [
        need
        for need in needs
        if need.marker is None
        or any(need.marker.evaluate({"extra": e}) for e in ("", "dev", "ros-wheels"))
    ]
    assert len(wanted) > 30
    for need in wanted:
        name = need.name.lower().replace("_", "-")
        if name != "torch":
            assert pinned[name] in need.specifier, need
