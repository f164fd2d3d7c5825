"""Searches for a goal in simulation: the measure, the drives, the baseline, the benchmark."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

pytest.importorskip("typer")

import typer  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from incognita.bench import goal as bench  # noqa: E402
from incognita.go_explore import ACTIONS, RandomBody, restarting  # noqa: E402
from incognita.goal import DrivePrimitives, Search, in_sight, placed, search, shortest_m  # noqa: E402
from incognita.recipes import JOBS, HdqnRecipe, run_job  # noqa: E402
from incognita.recipes.h_dqn import WEIGHTS, HdqnTrainer, load_h_dqn  # noqa: E402
from rnd_agv.robot import JACKAL  # noqa: E402
from sim.tasks import TEST_LAYOUTS, make  # noqa: E402
from sim.worlds.world import WALL, Draft  # noqa: E402
from toponav.go_explore import GoExplore  # noqa: E402
from toponav.h_dqn import Hdqn, HdqnConfig  # noqa: E402
from toponav.hodat import TO_GOAL, Hodat  # noqa: E402


def hall(wall=True):
    draft = Draft(10.0, 10.0)
    if wall:
        draft.add(WALL, -0.1, -5.0, 0.1, 1.0)
    return draft.world("hall", 0)


def test_the_shortest_way_is_straight_or_taut_round_the_corner():
    ends = (-3.0, -2.0, 0.0), (3.0, -2.0)
    assert shortest_m(hall(False), *ends, JACKAL) == pytest.approx(6.0, abs=0.1)
    # round a wall of 0.2 m whose corners a disc of .26 m keeps its distance from
    r = JACKAL.circumscribed_m
    leg = np.hypot(3.0 - 0.1 - r / np.sqrt(2), 3.0 + r / np.sqrt(2))
    way = shortest_m(hall(), *ends, JACKAL)
    assert 2 * leg < way < 2 * leg + 1.1
    assert way < 2 * np.hypot(3.0, 3.0 + r) + 0.4  # not a way along the grid


def test_a_goal_is_in_sight_within_range_with_nothing_between():
    assert in_sight(hall(False), (-3, 0, 0), (3, 0), 8.0)
    assert not in_sight(hall(False), (-3, 0, 0), (3, 0), 5.0)
    assert not in_sight(hall(), (-3, 0, 0), (3, 0), 8.0)


def test_success_is_weighted_by_the_way():
    row = Search(True, 10.0, 8.0, 6.0, 0.5, False, "goal")
    assert row.spl == 0.75
    assert replace(row, success=False).spl == 0.0
    assert replace(row, path_m=5.0).spl == 1.0


def test_every_search_of_a_layout_begins_the_same():
    task = make("goal")
    a, b = placed(task, TEST_LAYOUTS), placed(make("goal"), TEST_LAYOUTS)
    assert a.start_w.tolist() == b.start_w.tolist() and a.goal_w.tolist() == b.goal_w.tolist()
    assert a.world.name == "maze" and placed(task, TEST_LAYOUTS + 1).world.name == "rooms"
    assert np.hypot(*(a.goal_w - a.start_w[:2])) >= task.least_m


def test_a_goal_in_rooms_is_found_told_or_not():
    task = make("goal", max_steps=1500)
    told = search(task, 3, Hodat(TO_GOAL))
    assert told.success and not told.touched and told.reason == "goal"
    assert told.shortest_m < told.path_m * 1.05 and 0 < told.coverage < 1
    blind = search(task, 3, Hodat(), limit_s=5.0, no_goal=True)
    assert not blind.success and blind.time_s == pytest.approx(5.0, abs=0.1)


def test_the_baseline_trains_and_what_it_saves_drives(tmp_path):
    recipe = HdqnRecipe(steps=800, num_envs=2, layouts=2, batch=2, replay=200, max_steps=60,
                        pretrain=0.1, net=HdqnConfig(hidden=(8, 8)))  # fmt: skip
    options = {"console": None, "quiet": True}
    result = run_job(recipe, tmp_path / "run", **options)
    assert result["steps"] == 800
    lines = [json.loads(s) for s in (tmp_path / "run" / "curve.jsonl").read_text().splitlines()]
    logged = set().union(*lines)
    assert {"sub/subgoal", "sub/progress", "sub/collision", "sub/visits", "meta/goal", "meta/time",
            "meta/node", "meta/area", "meta/closed", "sub/loss"} <= logged  # fmt: skip
    agent = load_h_dqn(tmp_path / "run")
    again = HdqnTrainer(recipe)
    while again.steps < recipe.steps:
        again.round()
    for name, weight in again.weights().items():
        np.testing.assert_array_equal(weight, agent.weights[name])  # same seed, same nets
    row = search(make("goal", max_steps=60), 3, agent, drive=lambda _: DrivePrimitives(agent))
    assert row.path_m > 0 or row.time_s >= 3
    with pytest.raises(ValueError, match="cannot be resumed"):
        run_job(recipe, tmp_path / "run", resume=True, **options)
    with pytest.raises(FileExistsError):
        run_job(recipe, tmp_path / "run", **options)
    assert JOBS[recipe.name].name == recipe.name


def test_epsilons_fall_after_their_phases():
    recipe = HdqnRecipe(steps=1000, pretrain=0.2, explore=0.5, meta_epsilon=0.1, sub_epsilon=0.0)
    assert recipe.epsilons(0) == (1.0, 1.0)
    assert recipe.epsilons(200)[0] == 1.0
    assert recipe.epsilons(250)[1] == pytest.approx(0.5)
    assert recipe.epsilons(900) == pytest.approx((0.1, 0.0))


def test_going_back_restores_the_robot_to_the_bit():
    task = make("goal")
    body = RandomBody(task, placed(task, 0))
    explorer = GoExplore(body, ACTIONS, seed=1)
    explorer.run(60)
    cell = next(iter(explorer.archive.values()))
    body.go_back(cell, None)
    first = [body.act(0)[0], *body.pose_w()]
    body.go_back(cell, None)
    assert [body.act(0)[0], *body.pose_w()] == first
    assert restarting(RandomBody(task, placed(task, 0)), 10, 30, 4.0) == (False, 30)


def test_gains_are_paired_over_layouts():
    def row(success, time_s):
        return Search(success, time_s, 10.0, 5.0, 0.5, False, "")

    found = bench.gains([row(True, 10.0), row(True, 20.0)], [row(True, 20.0), row(False, 100.0)])
    assert found["success_points"]["value"] == 50.0
    assert found["time_saved"]["value"] == pytest.approx(1 - 30 / 120)
    both = found["time_saved_where_both_arrive"]
    assert both["value"] == 0.5 and both["layouts"] == 1


def test_the_bench_runs_in_smoke_size(tmp_path):
    save_file(small_weights(), tmp_path / WEIGHTS)
    (tmp_path / "recipe.json").write_text(json.dumps({"net": {"hidden": [4]}}))
    (tmp_path / "result.json").write_text(json.dumps({"steps": 0}))
    app = typer.Typer()
    bench.register(app)
    app.callback()(lambda: None)
    file = tmp_path / "out.json"
    done = CliRunner().invoke(
        app, ["goal", "--smoke", "--weights", str(tmp_path), "--json", str(file)]
    )
    assert done.exit_code == 0, done.output
    result = json.loads(file.read_text())
    assert set(result["told"]) == {"hodat", "h-dqn", "gains_over"}
    assert {"untold", "cover", "go_explore", "targets", "machine"} <= set(result)
    bad = CliRunner().invoke(app, ["goal", "--part", "nonsense"])
    assert bad.exit_code == 2


def small_weights():
    config = HdqnConfig(hidden=(4,))
    rng = np.random.default_rng(0)
    weights = {k: rng.normal(size=s).astype(np.float32) for k, s in config.shapes().items()}
    return Hdqn(weights, config).weights
