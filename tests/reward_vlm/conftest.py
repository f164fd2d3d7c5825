"""Servers as processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def start_fault_server():
    """Start one: (process, URL). All that were started end with the session."""
    started = []

    def start(port=0):
        line = [sys.executable, Path(__file__).with_name("fault_server.py"), str(port)]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(line, stdout=subprocess.PIPE, env=env, text=True)
        started.append(process)
        return process, f"http://127.0.0.1:{int(process.stdout.readline())}"

    yield start
    for process in started:
        process.kill()
        process.wait(10)
        process.stdout.close()


@pytest.fixture(scope="session")
def faulty(start_fault_server):
    """URL of a service that misbehaves as the task says, see fault_server.py."""
    return start_fault_server()[1]
