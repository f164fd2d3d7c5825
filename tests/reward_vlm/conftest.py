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


@pytest.fixture(scope="session")
def start_gray_server(tmp_path_factory):
    """Start the real gateway with the model of gray_server.py: (process, URL, key)."""
    started = []

    def start(*options):
        folder = tmp_path_factory.mktemp("gray")
        line = [sys.executable, Path(__file__).with_name("gray_server.py"), folder, *options]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [str(word) for word in line], stdout=subprocess.PIPE, env=env, text=True
        )
        started.append(process)
        url = process.stdout.readline().split()[-1]
        return process, url, (folder / "key").read_text()

    yield start
    for process in started:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
        process.stdout.close()


@pytest.fixture(scope="session")
def gray(start_gray_server):
    """(URL, key) of the real gateway with a model that can be worked by hand."""
    return start_gray_server()[1:]
