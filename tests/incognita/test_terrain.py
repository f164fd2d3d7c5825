"""Crossing a terrain end to end, and what its benchmark makes of crossings."""

import json

import numpy as np
import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner  # noqa: E402

from incognita.bench import app  # noqa: E402
from incognita.bench.terrain import compare, saved  # noqa: E402
from incognita.terrain import DriveConfig, cross  # noqa: E402
from sim.worlds.terrain import TerrainConfig, terrain  # noqa: E402

SMALL = TerrainConfig(side_m=16.0, hills=(2, 3), ridges=(0, 1), trees=(4, 8), distance_m=(8, 12))


def test_a_robot_crosses_a_terrain_and_learns_its_heights():
    field = terrain(2, SMALL)
    walk = cross(field, seed=2)
    assert walk.success and not walk.rolled_over and not walk.touched
    assert (
        walk.left_m < 0.5 and walk.driven_m >= np.hypot(*(field.goal_w - field.start_w[:2])) - 0.5
    )
    surface = walk.mind.surface
    near = [xyz for xyz in walk.track_w if np.isfinite(surface.height[surface.cell(xyz)])]
    wrong = [surface.height[surface.cell(p)] - field.height(p[:2]) for p in near]
    assert len(near) > 10 and np.abs(wrong).mean() < 0.05
    assert len(walk.mind.graph) >= 4 and walk.mind.model.samples > 5


def test_time_that_is_too_short_is_no_success():
    walk = cross(terrain(2, SMALL), drive=DriveConfig(limit_s=1.0))
    assert not walk.success and walk.left_m > 5 and walk.time_s == pytest.approx(1.0)


def test_savings_by_hand():
    found = saved(np.array([80.0, 60.0, 90.0, 70.0]), np.array([100.0] * 4))
    assert found["saved"] == pytest.approx(0.25) and found["better_on"] == 1.0
    assert found["interval_95"][0] < 0.25 < found["interval_95"][1]
    rows = [
        {"method": m, "seed": s, "success": ok, "energy_j": j}
        for m, s, ok, j in (
            ("energy", 0, True, 50.0), ("calm", 0, True, 100.0),
            ("energy", 1, True, 1.0), ("calm", 1, False, 100.0),
        )
    ]  # fmt: skip
    found = compare(rows, "energy", "calm")
    assert found["worlds"] == 1 and found["saved"] == pytest.approx(0.5)  # a failure is no pair
    assert compare(rows[2:], "energy", "calm") is None


def test_the_benchmark_runs_in_smoke_size(tmp_path):
    file = tmp_path / "result.json"
    outcome = CliRunner().invoke(
        app, ["terrain", "--smoke", "--first", "5", "--json", str(file)], catch_exceptions=False
    )
    assert outcome.exit_code == 0
    result = json.loads(file.read_text())
    assert {"command", "machine", "seeds", "energy", "passed", "methods"} <= result.keys()
    assert [row["method"] for row in result["crossings"]] == ["energy", "shortest"] * 2
    assert all(row["energy_j"] > 0 and row["driven_m"] > 5 for row in result["crossings"])


def test_an_unknown_opponent_is_refused():
    assert CliRunner().invoke(app, ["terrain", "--against", "nobody"]).exit_code != 0
