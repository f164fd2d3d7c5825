"""Packaging of Incognita: one distribution, one regular package per room."""

from pathlib import Path

from setuptools import find_packages, setup

VERSION = "0.1.0"

ROOMS = (
    "incognita", "curiosity", "episodes", "learning", "sim", "rnd_agv", "toponav", "evovla",
    "reward_vlm", "ros_nodes",
)  # fmt: skip

NODES = (
    "agv_planner", "episode_recorder", "guard", "reward_client", "sim_robot", "topo_explorer",
)  # fmt: skip
"""Executables of `ros2 run incognita <name>`, one file of that name in ros_nodes/ each."""

# What a robot needs. Everything else is an extra, so that a robot installs in seconds.
BASE = ["numpy>=1.26", "opencv-python>=4.9", "onnxruntime>=1.18"]

TRAIN = [
    "torch>=2.10",
    "safetensors>=0.5",
    "onnx>=1.17",
    "mujoco>=4.0",
    "gymnasium>=1.4",
    "gymnasium-robotics>=1.4.2",
    "stable-baselines3>=2.9",
    "numba>=0.61",
    "zarr>=3.1",
    "numcodecs>=0.16.6",  # older ones run a pickle codec found in a store
    "simplejpeg>=1.8",
    "av>=14",
    "pyarrow>=18",
    "filelock>=3.16",
    "matplotlib>=3.9",
    "tensorboard>=2.18",
    "typer>=0.15",
    "rich>=13.9",
    "pyyaml>=6",
]

SERVE = [
    "fastapi>=0.115",
    "uvicorn>=0.32",
    "httptools>=0.6.4",  # uvicorn's parser in C: a body of 250 kB costs 2 ms less than with h11
    "httpx>=0.28",
    "prometheus-client>=0.21",
    "pydantic>=2.10",
    "numpy>=1.26",
    "starlette>=1.3.1",
    "python-multipart>=0.0.27",
    "pillow>=12.2",
    "websockets>=14",
    "av>=14",
    "safetensors>=0.5",
    "torch>=2.10",
    "typer>=0.15",
    "rich>=13.9",
]

# What calls the service, on a robot or in a training: neither torch nor FastAPI.
CLIENT = ["httpx>=0.28", "pydantic>=2.10"]

# transformers 5.3 fails on videos of Qwen3-VL; 5.4 and 5.24 give the same scores.
VLM = ["torch>=2.10", "transformers>=5.4", "safetensors>=0.5"]

GPU = ["mujoco-warp>=4.0", "warp-lang>=1.19"]

# The wheels of ROS 2 Jazzy, for machines without a ROS distribution. Pinned exactly (a young
# project, and its newest releases are another ROS), only for the platform that they are built
# for, and never a plain requirement: their .pth restarts every Python of the environment and
# must not meet a sourced distribution.
ROS_WHEELS = [
    f"ros-{name}; platform_system == 'Linux' and platform_machine == 'x86_64'"
    for name in (
        "rclpy==7.1.6",
        "rmw-fastrtps-cpp==8.4.3",
        "builtin-interfaces==2.0.3",
        "diagnostic-msgs==5.3.6",
        "geometry-msgs==5.3.6",
        "lifecycle-msgs==2.0.3",
        "nav-msgs==5.3.6",
        "rcl-interfaces==2.0.3",
        "rosgraph-msgs==2.0.3",
        "sensor-msgs==5.3.6",
        "std-msgs==5.3.6",
        "std-srvs==5.3.6",
        "trajectory-msgs==5.3.6",
        "visualization-msgs==5.3.6",
        "wheels-bootstrapper==0.1.2",
    )
]

DEV = [
    "pytest>=8.3",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "hypothesis>=6.120",
    "mypy>=1.14",
    "ruff>=0.9",
    "pre-commit>=4",
    "types-PyYAML",
    "pip-audit>=2.9",
    "catkin-pkg>=1",
    "setuptools>=77",
    "wheel>=0.45",
    "rl-games==1.6.5",  # unmodified trainers that our VecTask face is tested with
    "rsl-rl-lib==5.5.1",
    "schemathesis>=4",
]


def files(pattern: str) -> list[str]:
    """Files of this checkout that match a glob, sorted, relative to it."""
    return sorted(str(path) for path in Path().glob(pattern) if path.is_file())


setup(
    name="incognita",
    version=VERSION,
    description="Exploration for robots: trained in MuJoCo, driven over ROS 2",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    maintainer="The Incognita authors",
    maintainer_email="incognita@example.org",
    python_requires=">=3.11,<3.14",
    package_dir={"": "."},
    packages=find_packages(include=[p for room in ROOMS for p in (room, f"{room}.*")]),
    package_data={
        "": ["py.typed", "*.xml", "*.yaml"],
        "incognita": ["policies/**/*"],
        "reward_vlm": ["weights/**/*"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/incognita"]),
        ("share/incognita", ["package.xml"]),
        ("share/incognita/launch", files("launch/*.launch.py")),
        ("share/incognita/launch/params", files("launch/params/*.yaml")),
        # pip ignores setup.cfg's install_scripts; `ros2 run` looks here whoever installed.
        ("lib/incognita", [f"scripts/{node}" for node in NODES]),
    ],
    install_requires=BASE,
    extras_require={
        "train": TRAIN,
        "client": CLIENT,
        "serve": SERVE,
        "vlm": VLM,
        "gpu": GPU,
        "ros-wheels": ROS_WHEELS,
        "dev": TRAIN + SERVE + VLM + DEV,
    },
    entry_points={
        "console_scripts": [
            "incognita = incognita.cli:main",
            *(f"{node} = ros_nodes.{node}:main" for node in NODES),
        ],
    },
    zip_safe=False,
)
