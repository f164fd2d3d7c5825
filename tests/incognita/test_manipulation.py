"""The benchmark of the long tasks, end to end on two short episodes."""

import json

import pytest
from typer.testing import CliRunner

pytest.importorskip("mujoco")

from incognita.bench import app  # noqa: E402


def test_bench_manipulation_counts_strict_and_weak_successes(tmp_path):
    file = tmp_path / "result.json"
    done = CliRunner().invoke(app, ["manipulation", "--smoke", "--json", str(file)])
    assert done.exit_code == 0, done.output
    result = json.loads(file.read_text())
    found = result["tasks"]["stack-cue"]
    assert result["passed"] == {"stack-cue": True}
    assert found["expert"]["strict"]["share"] == found["expert"]["weak"]["share"] == 1.0
    assert found["expert"]["steps_of_successes_5_50_95"][1] < 140
    assert 0 <= found["clumsy"]["strict"]["share"] <= 1 and found["clumsy"]["episodes"] == 2
    assert min(found["speed"].values()) > 0


def test_bench_manipulation_names_an_unknown_task():
    done = CliRunner().invoke(app, ["manipulation", "--smoke", "--task", "tower"])
    assert done.exit_code != 0 and "tower" in done.output
