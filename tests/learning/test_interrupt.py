"""Ctrl-C: once saves and stops, twice stops at once and leaves the earlier checkpoint whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from learning import checkpoint

TRAIN = """
import os, runpy, sys, time
from learning.ppo import PPO, PPOConfig

env = runpy.run_path(sys.argv[1])["PointEnv"](8)
slow = float(sys.argv[3])

def step(action, plain=env.step):
    if ppo.updates >= 2:
        time.sleep(slow)
    return plain(action)

env.step = step
ppo = PPO(env, PPOConfig(num_steps=16, hidden=(16,)))

def report(metrics):
    print(int(metrics["updates"]), flush=True)

try:
    ppo.learn(10**9, report, checkpoints=sys.argv[2], checkpoint_every=2)
except KeyboardInterrupt:
    print("interrupted", ppo.updates, flush=True)
    os._exit(130)  # all is saved; tearing torch down may take seconds
"""


def start(folder: Path, slow: float) -> subprocess.Popen[str]:
    repository = Path(checkpoint.__file__).resolve().parents[1]
    helper = Path(__file__).parent / "conftest.py"
    child = subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(helper), str(folder), str(slow)],
        stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert child.stdout is not None
    for line in child.stdout:
        if line.strip() == "2":
            return child
    pytest.fail("training ended by itself")


def test_sigint_saves_and_ends_with_130(tmp_path):
    child = start(tmp_path, slow=0.02)
    time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=10)
    assert child.returncode == 130
    stopped = int(out.split("interrupted")[1])
    assert checkpoint.load(tmp_path)["updates"] == stopped >= 3


def test_a_second_sigint_ends_at_once(tmp_path):
    child = start(tmp_path, slow=1.0)  # an update now takes 16 s
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert child.poll() is None  # still in the update
    before = time.monotonic()
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=10)
    assert time.monotonic() - before < 1.0 and child.returncode == 130
    assert checkpoint.load(tmp_path)["updates"] == 2
