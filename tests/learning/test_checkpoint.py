"""Checkpoints: exact, atomic under kill -9, and never a way to run somebody's code."""

from __future__ import annotations

import json
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from learning import checkpoint
from learning.checkpoint import CheckpointError

STATE = {
    "tensor": torch.arange(6.0).reshape(2, 3).t(),
    "empty": torch.zeros(0, 3),
    "array": np.array([[1, 2]], np.int16),
    "flag": np.array([True, False]),
    "scalar": np.float32(0.1),
    "rng": np.random.default_rng(3).bit_generator.state,  # holds 128-bit integers
    "list": [1, 2.5, None, "x", (True, b"\x00\xff")],
    "numbered": {0: "a", 1: torch.ones(1)},
    "odd": [float("inf"), 1e-320, 0.1 + 0.2],
}


def test_every_value_comes_back_exactly(tmp_path):
    checkpoint.save(tmp_path, STATE)
    got = checkpoint.load(tmp_path)
    assert torch.equal(got["tensor"], STATE["tensor"]) and got["empty"].shape == (0, 3)
    assert got["array"].dtype == np.int16 and got["flag"].tolist() == [True, False]
    assert got["scalar"] == np.float32(0.1) and isinstance(got["scalar"], np.float32)
    for key in ("rng", "list", "odd"):
        assert got[key] == STATE[key]
    assert got["numbered"][0] == "a" and got["numbered"][1].item() == 1
    got["array"][0, 0] = 7  # writable
    nan = checkpoint.load(checkpoint.save(tmp_path / "nan", {"x": float("nan")}))["x"]
    assert nan != nan


@pytest.mark.parametrize("value", [object(), {"f": len}, np.array(["a"], object), {1.5: 0}])
def test_what_needs_pickle_is_refused_and_nothing_is_written(tmp_path, value):
    with pytest.raises(TypeError):
        checkpoint.save(tmp_path, {"x": value})
    assert list(tmp_path.iterdir()) == []


def test_keeps_the_newest_three_and_sweeps_what_a_kill_left(tmp_path):
    (tmp_path / ".tmp-dead").mkdir()
    for i in range(5):
        checkpoint.save(tmp_path, {"i": i})
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint-000003", "checkpoint-000004", "checkpoint-000005",
    ]  # fmt: skip
    assert checkpoint.load(tmp_path)["i"] == 4
    assert checkpoint.load(tmp_path / "checkpoint-000003")["i"] == 2


def flip(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize("name", ["state.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
def test_a_damaged_newest_falls_back_to_the_one_before_and_says_so(tmp_path, caplog, name, damage):
    for i in range(3):
        checkpoint.save(tmp_path, {"i": i, "x": torch.ones(50)})
    damage(tmp_path / "checkpoint-000003" / name)
    with caplog.at_level(logging.WARNING):
        assert checkpoint.load(tmp_path)["i"] == 1
    assert "skipping damaged checkpoint: checkpoint-000003" in caplog.text
    for old in ("checkpoint-000002", "checkpoint-000001"):
        damage(tmp_path / old / name)
    with pytest.raises(CheckpointError, match="no valid checkpoint"):
        checkpoint.load(tmp_path)


def test_no_flipped_byte_passes(tmp_path):
    path = checkpoint.save(tmp_path, {"x": torch.ones(8), "y": 1})
    for file in path.iterdir():
        whole = file.read_bytes()
        for at in range(0, len(whole), 7):
            flipped = bytearray(whole)
            flipped[at] ^= 4
            file.write_bytes(flipped)
            with pytest.raises(CheckpointError):
                checkpoint.load(path)
        file.write_bytes(whole)
    assert checkpoint.load(path)["y"] == 1


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_hostile_pickle_is_never_run(tmp_path):
    canary = tmp_path / "canary"
    folder = tmp_path / "runs" / "checkpoint-000001"
    folder.mkdir(parents=True)
    for name in ("state.safetensors", "manifest.json", "optimizer.pt"):
        torch.save(Canary(canary), folder / name)
    (folder / "more.pkl").write_bytes(pickle.dumps(Canary(canary)))
    for where in (folder, folder.parent):
        with pytest.raises(CheckpointError):
            checkpoint.load(where)
    assert not canary.exists()
    pickle.loads((folder / "more.pkl").read_bytes())  # the canary does sing
    assert canary.exists()


KILLER = """
import json, os, random, signal, sys, tempfile, time
from pathlib import Path
import torch
from learning import checkpoint

torch.set_num_threads(1)
mode, kills, seed, root = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
random.seed(seed)
state = {"x": torch.ones(200_000)}

def write(folder, i):
    if mode == "ours":
        checkpoint.save(folder, {**state, "i": i})
    else:  # the control: in place, as most training code does
        torch.save({**state, "i": i}, folder / "last.pt")

def read(folder):
    if mode == "ours":
        return checkpoint.load(folder)["i"]
    return torch.load(folder / "last.pt", weights_only=True)["i"]

for case in range(kills):
    folder = root / str(case)
    folder.mkdir()
    get, put = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(get)
        for i in range(1_000_000):
            write(folder, i)
            os.write(put, i.to_bytes(4, "little"))  # acknowledged, on a pipe of its own
    os.close(put)
    os.read(get, 4)
    time.sleep(random.uniform(0.0, 0.05))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    acked = 0
    while block := os.read(get, 4):
        acked = int.from_bytes(block, "little")
    os.close(get)
    try:
        found = read(folder)
    except Exception as error:
        found = -1
    print(json.dumps({"case": case, "seed": seed, "acked": acked, "found": found}))
"""


def kill_while_saving(mode: str, kills: int, root: Path) -> list[dict[str, int]]:
    root.mkdir()
    repository = Path(checkpoint.__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", KILLER, mode, str(kills), "0", str(root)],
        capture_output=True, text=True, timeout=120, check=True,
        env={**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_kill_9_while_saving_loses_nothing_acknowledged(tmp_path):
    cases = kill_while_saving("ours", 30, tmp_path / "ours")
    assert len(cases) == 30
    assert [c for c in cases if c["found"] < c["acked"]] == []
    control = kill_while_saving("in place", 30, tmp_path / "control")
    assert any(c["found"] < 0 for c in control), "the harness must catch an in-place torch.save"
