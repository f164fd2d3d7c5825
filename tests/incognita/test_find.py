"""The find benchmark at its smallest, and the simulated robot."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from incognita.bench import app
from incognita.bench.find import charged, paired, ratio, summary
from incognita.find import LIMIT_M, FindWalk, find_as_robot, quest
from sim.labels import LabelNoise
from toponav.prior import office_floor
from toponav.thing_search import SemanticExplorer


def walks(*driven):
    """Searches that drove so far; a negative one failed."""
    return [FindWalk(d > 0, "goal" if d > 0 else "complete", abs(d), 1.0) for d in driven]


def test_a_failure_is_charged_the_limit():
    assert charged(walks(10, -20)).tolist() == [10, LIMIT_M]
    assert ratio(walks(10, 30), walks(20, 60))["ratio"] == pytest.approx(0.5)
    low, high = ratio(walks(10, 30, 5), walks(20, 60, 5))["interval_95"]
    assert 0.5 <= low <= high <= 1.0


def test_ours_is_held_against_the_better_frontier_search():
    some = {"nearest": walks(50, 50), "utility": walks(20, 20), "semantic": walks(10, 10)}
    found = paired(some)
    assert found["better_frontier_search"] == "utility"
    assert found["semantic"]["ratio"] == pytest.approx(0.5)
    assert "shuffled" not in found


def test_the_summary_counts_successes_and_weighs_them_by_way():
    quests = [quest(5008), quest(5011)]
    out = summary(walks(2 * quests[0].shortest_m, -5), quests)
    assert out["success"] == 0.5 and out["spl"] == pytest.approx(0.25)
    assert out["reasons"] == {"complete": 1, "goal": 1}


def test_quests_are_the_same_for_the_same_seed_and_never_trivial():
    one, two = quest(5011), quest(5011)
    assert one.wanted == two.wanted and np.array_equal(one.start_w, two.start_w)
    assert one.building.room_at(one.start_w[:2]).type == "corridor"
    assert len(one.building.boxes_of(one.wanted)) > 0


def test_the_benchmark_runs_at_its_smallest(tmp_path):
    file = tmp_path / "find.json"
    done = CliRunner().invoke(app, ["find", "--smoke", "--json", str(file)])
    assert done.exit_code == 0, done.output
    result = json.loads(file.read_text())
    assert set(result["point"]) == {"nearest", "utility", "semantic"}
    assert result["paired"]["semantic"]["ratio"] > 0 and "machine" in result


def test_the_simulated_robot_finds_it_as_the_point_does():
    walk = find_as_robot(quest(5011), SemanticExplorer(office_floor()), LabelNoise())
    assert walk.success and 9 < walk.driven_m < 60 and walk.time_s < 150
