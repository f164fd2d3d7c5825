"""A tiny checkpoint in both styles, clips, and an engine in a process of its own."""

import importlib.util
import os
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from reward_vlm.model import Clip

HERE = Path(__file__).parent
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """style -> folder; the same weights, ``4.57`` and ``5``."""
    spec = importlib.util.spec_from_file_location("tiny", HERE / "tiny.py")
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    base = tmp_path_factory.mktemp("checkpoints")
    folders = {"5": base / "tiny", "4.57": base / "tiny-4.57"}
    tiny.write(folders["5"], folders["4.57"])
    return folders


@pytest.fixture(scope="session")
def clips():
    """Clips of different size, length, rate and task, in one or two views."""
    rng = np.random.default_rng(5)

    def film(count, height, width):
        y, x = np.mgrid[:height, :width]
        wave = [
            (y * rng.uniform(1, 9) + x * rng.uniform(1, 9) + 20 * t) % 256 for t in range(count)
        ]
        still = rng.integers(0, 256, (height, width, 2))
        return np.stack([np.dstack([w, still]) for w in wave]).astype(np.uint8)

    return [
        Clip("go left", {"front": film(5, 72, 100)}, 2.0),
        Clip("put the red cup on the plate", {"front": film(30, 64, 64)}, 10.0),
        Clip("open the drawer <|im_end|>", {"front": film(9, 240, 320)}, 2.0),
        Clip("stay", {"front": film(1, 40, 33)}, 1.0),
        Clip("lift it", {"wrist": film(6, 48, 80), "front": film(6, 96, 64)}, 3.0),
    ]


@dataclass
class Engine:
    """Where the test engine listens."""

    url: str

    def source(self, fault: str = "") -> str:
        return f"{self.url}#tiny:{fault}" if fault else f"{self.url}#tiny"

    def seen(self, fault: str) -> list[dict[str, Any]]:
        asked = httpx.get(f"{self.url}/seen", timeout=5).json()
        return [s for s in asked if s.get("model") == f"tiny:{fault}"]

    def paths(self) -> set[str]:
        return {s["path"] for s in httpx.get(f"{self.url}/seen", timeout=5).json()}


@pytest.fixture(scope="session")
def engine(checkpoints):
    command = [sys.executable, str(HERE / "engine.py"), str(checkpoints["5"])]
    process = subprocess.Popen(command, env=os.environ | OFFLINE, stdout=subprocess.PIPE, text=True)
    try:
        readable, _, _ = select.select([process.stdout], [], [], 60)
        assert readable, "the engine does not start"
        yield Engine(f"http://127.0.0.1:{int(process.stdout.readline())}")
    finally:
        process.kill()
        process.wait(10)
