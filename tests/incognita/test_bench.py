"""The speed benchmarks: both sides do the same work, and every command runs in smoke size."""

import json
import os
import time

import numpy as np
import pytest

pytest.importorskip("typer")
pytest.importorskip("stable_baselines3")

import typer  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

import sim.batch  # noqa: E402
from incognita.bench import COMMANDS, app  # noqa: E402
from incognita.bench.lidar import Scans  # noqa: E402
from incognita.bench.maze import (  # noqa: E402
    BOXES,
    PLAIN,
    RAYS,
    MazeEnv,
    MazeTask,
    maze,
    scan_every_step,
)
from incognita.bench.paired import Report, Timing, alternate, cpu_s, quartiles  # noqa: E402
from rnd_agv.robot import AGV  # noqa: E402
from sim.batch import BatchEnv  # noqa: E402


def test_a_maze_has_sixty_boxes_and_is_one_place() -> None:
    world = maze(3)
    assert world.boxes.shape == (BOXES, 4)
    assert world.reachable_share(AGV.circumscribed_m) > 0.99
    assert not np.array_equal(maze(4).boxes, world.boxes)


def test_the_baseline_sees_and_does_what_our_engine_does() -> None:
    task = MazeTask(0)
    with scan_every_step():
        ours = BatchEnv(task, 4, "mujoco", 5, PLAIN)
        obs = ours.reset()
        theirs = [MazeEnv(0) for _ in range(4)]
        for row, env in enumerate(theirs):
            first = env.start(ours.state.pose_w[row], ours.state.goal_w[row])
            np.testing.assert_allclose(first, obs[row], atol=1e-5)
        rng = np.random.default_rng(0)
        for _ in range(20):
            action = rng.uniform(-1, 1, (4, 2)).astype(np.float32)
            step = ours.step(action)
            for row, env in enumerate(theirs):
                seen, reward, terminated, truncated, _ = env.step(action[row])
                assert (terminated, truncated) == (step.terminated[row], step.truncated[row])
                # the baseline starts on the floor, ours sunk into its contacts by a hair
                np.testing.assert_allclose(seen[RAYS:], step.final_obs[row, RAYS:], atol=0.02)
                near = np.abs(seen[:RAYS] - step.final_obs[row, :RAYS]) < 0.01
                assert near.mean() > 0.95  # beams beside an edge may slip past it
                assert reward == pytest.approx(float(step.reward[row]), abs=0.06)  # 0.05: touch
    assert sim.batch.SCAN_EVERY == 2


def test_scans_agree_with_mujoco_below_a_millimetre() -> None:
    job = Scans(1, 64, 128)
    job.multi_ray()
    job.caster()()
    error, grazing = job.errors_mm()
    assert error.max() < 1.0 and grazing <= 2
    job.mine += 0.002  # the check can fail
    assert job.errors_mm()[0].max() > 1.0


def test_rounds_hold_every_configuration_once_and_ratios_are_taken_within() -> None:
    ran: list[str] = []

    def work(name: str, seconds: float) -> int:
        ran.append(name)
        until = time.process_time() + seconds
        while time.process_time() < until:
            pass
        return 10

    timings: dict[str, Timing] = {}
    works = {"slow": lambda: work("slow", 0.02), "fast": lambda: work("fast", 0.005)}
    alternate(works, 5, 0, timings)
    assert sorted(ran[2:4]) == ["fast", "slow"] and len(ran) == 12
    assert any(ran[k : k + 2] != ran[2:4] for k in range(4, 12, 2))
    report = Report("nothing", 1, "busy loops")
    report.ratio("slow", "fast", timings, 3.0)
    row = report.result["targets"][0]
    assert row["clock"] == "cpu" and row["passed"] and 3.0 < row["median"] < 5.0
    report.target("share", [0.3], 0.2, most=True)
    assert report.result["targets"][-1]["passed"] is False
    with pytest.raises(typer.Exit) as stop:
        report.finish(None, smoke=False)
    assert stop.value.exit_code == 1


def test_cpu_time_counts_workers_that_are_alive() -> None:
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    before = cpu_s()
    worker = context.Process(target=time.sleep, args=(30,))
    worker.start()
    try:
        until = time.time() + 20
        own = time.process_time()
        while cpu_s() - before - (time.process_time() - own) < 0.005 and time.time() < until:
            time.sleep(0.05)
        assert cpu_s() - before - (time.process_time() - own) >= 0.005  # it has started Python
    finally:
        worker.terminate()
        worker.join()


def test_quartiles_of_hand_counted_numbers() -> None:
    assert quartiles([1, 2, 3, 4, 5]) == [2.0, 3.0, 4.0]


SMOKE = {
    "nav": ["nav"],
    "nav-kinematic": ["nav", "--kinematic"],
    "lidar": ["lidar"],
    "store": ["store"],
    "rnd": ["rnd"],
    "ppo-kinematic": ["ppo", "--kinematic"],
}


def smoke(arguments: list[str], tmp_path) -> dict:  # type: ignore[no-untyped-def]
    file = tmp_path / "result.json"
    command = [*arguments, "--smoke", "--seeds", "1", "--json", str(file)]
    outcome = CliRunner().invoke(app, command, catch_exceptions=False)
    assert outcome.exit_code == 0
    return json.loads(file.read_text())


@pytest.mark.parametrize("name", SMOKE)
def test_a_benchmark_runs_and_prints_both_clocks(name: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    result = smoke(SMOKE[name], tmp_path)
    assert {"command", "machine", "seeds", "load_before", "core_hours"} <= result.keys()
    assert {"cpu", "wall"} <= {row["clock"] for row in result["targets"]}
    assert any(row["target"] is not None for row in result["targets"])
    for row in result["configurations"].values():
        assert row["cpu_us"][1] > 0 and row["wall_per_s"][1] > 0


def test_the_ppo_race_reports_both_runs(tmp_path) -> None:  # type: ignore[no-untyped-def]
    result = smoke(["ppo"], tmp_path)
    assert [len(runs) for runs in result["runs"].values()] == [1, 1]
    assert all(run["samples"] > 0 for runs in result["runs"].values() for run in runs)


def test_rendering_runs_where_there_is_off_screen_gl(tmp_path) -> None:  # type: ignore[no-untyped-def]
    os.environ.setdefault("MUJOCO_GL", "egl")
    mujoco = pytest.importorskip("mujoco")
    try:
        mujoco.GLContext(8, 8).free()
    except (RuntimeError, ImportError, AttributeError, OSError) as error:
        pytest.skip(f"no off-screen OpenGL: {error}")
    result = smoke(["render"], tmp_path)
    assert len(result["configurations"]) == 3


def test_help_lists_every_command_without_importing_any() -> None:
    import subprocess
    import sys

    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom incognita.bench import app\n"
        "print(CliRunner().invoke(app, ['--help']).output)\n"
        "assert not {'torch', 'mujoco'} & set(sys.modules), 'too much was imported'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)
