"""One suite over every registered task, in both tiers."""

import json

import mujoco
import numpy as np
import pytest

from learning.vec_env import EXPLORE
from sim import worlds
from sim.backend import CONTROL_DT
from sim.batch import BatchEnv
from sim.randomization import TRAINING
from sim.registration import NAMES, env_id
from sim.tasks import TASKS, make

SHORT = 12
"""Steps after which the episodes here are cut, so that every run holds resets."""
OPTIONS = {
    "agv-warehouse": {"layouts": 2, "progress_reward": 1.0},
    "agv-barn": {"layouts": 2, "progress_reward": 1.0, "near_reward": -0.1},
    "coverage": {"layouts": 2},
    "goal": {"layouts": 2},
    "find": {"layouts": 2},
    "lifelong": {"layouts": 2, "size_m": (11.0, 8.0)},
    "patrol": {"layouts": 2, "size_m": (11.0, 8.0)},
    "agv-ros-map": {"map_yaml": worlds.hall(12.0, "simple"), "people": 2},
}
EACH = pytest.mark.parametrize("name", sorted(TASKS))
TIERS = pytest.mark.parametrize("tier", ["kinematic", "mujoco"])


def batch(name, tier, num_envs=3, seed=5, max_steps=SHORT, **options):
    task = make(name, max_steps=max_steps, **OPTIONS.get(name, {}))
    return BatchEnv(task, num_envs, tier, seed, TRAINING, **options)


def actions(steps, seed=0):
    """(steps, 1, 2): the same for every row, mostly forward, so that things are hit."""
    rng = np.random.default_rng(seed)
    return rng.uniform([-0.2, -1], [1, 1], (steps, 1, 2)).astype(np.float32)


def run(env, wanted):
    """Everything that the steps gave, one flat list of arrays."""
    seen = []
    for action in wanted:
        step = env.step(np.repeat(action, env.num_envs, axis=0))
        seen += [step.obs, step.reward, step.terminated, step.truncated, step.final_obs]
        seen += [step.explore, env.arrived_w, env.ranges.copy(), *step.terms.values()]
    return seen


def same(a, b):
    """Bit for bit."""
    return len(a) == len(b) and all(
        x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(a, b, strict=True)
    )


def test_every_task_has_an_id():
    assert sorted(NAMES.values()) == sorted(TASKS)
    assert env_id("AgvBarn") == "Incognita/AgvBarn-v0"


@EACH
@TIERS
def test_the_spec_is_kept_and_values_are_finite(name, tier):
    env = batch(name, tier)
    spec = env.spec
    assert (spec.num_envs, spec.action_dim, spec.dt) == (3, 2, CONTROL_DT)
    assert (spec.explore_dim, spec.max_episode_steps) == (len(EXPLORE), SHORT)
    obs = env.reset()
    assert obs.shape == (3, spec.obs_dim) and obs.dtype == np.float32 and np.isfinite(obs).all()
    ends = 0
    for action in actions(2 * SHORT + 1):
        step = env.step(np.repeat(action, 3, axis=0))
        assert step.obs.shape == step.final_obs.shape == (3, spec.obs_dim)
        assert step.obs.dtype == step.final_obs.dtype == step.reward.dtype == np.float32
        assert step.terminated.dtype == step.truncated.dtype == np.bool_
        assert step.explore.shape == (3, spec.explore_dim) and env.arrived_w.shape == (3, 5)
        floats = [step.obs, step.final_obs, step.reward, step.explore, env.arrived_w]
        floats += list(step.terms.values())
        assert all(np.isfinite(x).all() and len(x) == 3 for x in floats)
        assert not (step.terminated & step.truncated).any()
        terms = [term for key, term in step.terms.items() if key.startswith("reward/")]
        np.testing.assert_allclose(step.reward, np.sum(terms, axis=0), rtol=1e-6, atol=1e-7)
        done = step.terminated | step.truncated
        assert (env.state.t[done] == 0).all() and (env.state.t[~done] > 0).all()
        assert np.array_equal(step.obs[~done], step.final_obs[~done])
        ends += int(done.sum())
    assert ends >= 6


@EACH
@TIERS
def test_a_robot_told_to_go_ahead_moves_and_one_told_nan_stands(name, tier):
    env = batch(name, tier, num_envs=2, max_steps=1000)
    env.reset()
    start = env.state.pose_w.copy()
    for _ in range(20):
        env.step(np.array([[1.0, 1.0], [np.nan, 0.5]], np.float32))
    gone = np.abs(env.state.pose_w - start)
    assert gone[0].max() > 0.1
    # somebody may push the one that stands, but it does not drive
    assert gone[1].max() < 0.05 or env.state.contact[1, 1]


@EACH
@TIERS
def test_the_same_seed_gives_the_same_trajectory_and_another_seed_another(name, tier):
    wanted = actions(2 * SHORT + 3)
    one, two, other = batch(name, tier), batch(name, tier), batch(name, tier, seed=6)
    first = [one.reset(), *run(one, wanted)]
    assert same(first, [two.reset(), *run(two, wanted)])
    assert not same(first, [other.reset(), *run(other, wanted)])


@EACH
@TIERS
def test_a_batch_of_one_equals_its_row_of_a_batch_of_64(name, tier):
    many = batch(name, tier, num_envs=64)
    first, last = batch(name, tier, num_envs=1), batch(name, tier, num_envs=1, first_row=63)
    wanted = actions(SHORT + 3, seed=1)
    everything = [many.reset(), *run(many, wanted)]
    for row, one in ((0, first), (63, last)):
        assert same([x[row : row + 1] for x in everything], [one.reset(), *run(one, wanted)])


@EACH
@TIERS
def test_going_on_from_a_saved_state_is_bit_exact(name, tier):
    wanted = actions(4 * SHORT, seed=2)
    env = batch(name, tier)
    env.reset()
    run(env, wanted[: SHORT + 7])  # in the middle of the second episode, between two scans
    saved = env.state_dict()
    assert plain(saved)
    ahead = run(env, wanted[SHORT + 7 :])
    fresh = batch(name, tier)
    fresh.load_state_dict(saved)
    assert same(ahead, run(fresh, wanted[SHORT + 7 :]))
    # and the env that has moved on can go back
    env.load_state_dict(saved)
    assert same(ahead, run(env, wanted[SHORT + 7 :]))


@EACH
@TIERS
def test_both_hold_while_robots_push_at_walls(name, tier):
    ahead = np.float32([0.9, 0.0]) + np.float32(0.1) * actions(120, seed=3)
    env = batch(name, tier, num_envs=6, max_steps=105)
    one = batch(name, tier, num_envs=1, first_row=5, max_steps=105)
    env.reset()
    one.reset()
    touched = 0
    for action in ahead[:95]:
        obs = env.step(np.repeat(action, 6, axis=0)).obs
        assert np.array_equal(obs[5], one.step(action).obs[0])
        touched += int(env.state.contact.any(axis=1).sum())
    assert touched > 50 or name == "agv-arena"  # which has no walls
    saved = env.state_dict()
    fresh = batch(name, tier, num_envs=6, max_steps=105)
    fresh.load_state_dict(saved)
    assert same(run(env, ahead[95:]), run(fresh, ahead[95:]))


def plain(state):
    """Arrays, numbers, strings and dicts of these, so that a checkpoint can hold it."""
    if isinstance(state, dict):
        return all(isinstance(key, str) and plain(value) for key, value in state.items())
    return isinstance(state, np.ndarray | int | float | str | bool)


def test_the_saved_state_of_mujoco_is_its_integration_state():
    env = batch("agv-simple-static", "mujoco")
    env.reset()
    model = env.backend.batch.model
    size = mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_INTEGRATION.value)
    assert env.state_dict()["backend"]["integration"].shape == (3, size)


def test_a_state_of_another_env_is_refused():
    state = batch("agv-simple-static", "kinematic", seed=5).state_dict()
    with pytest.raises(ValueError, match="seed must be 6"):
        batch("agv-simple-static", "kinematic", seed=6).load_state_dict(state)
    with pytest.raises(ValueError, match="num_envs must be 2"):
        batch("agv-simple-static", "kinematic", num_envs=2).load_state_dict(state)


def test_what_randomization_drew_is_told_and_can_be_written_down():
    env = batch("agv-simple-static", "kinematic")
    env.reset()
    drawn = [env.episode_parameters(row) for row in range(3)]
    assert json.loads(json.dumps(drawn)) == drawn
    assert drawn[0] != drawn[1]


def test_wrong_names_are_refused_by_name():
    with pytest.raises(ValueError, match="agv-barn.*got 'agv-moon'"):
        make("agv-moon")
    with pytest.raises(ValueError, match='tier must be "kinematic" or "mujoco", got \'x\''):
        batch("agv-barn", "x")
    with pytest.raises(ValueError, match=r"action must be \(3, 2\), got \(2, 2\)"):
        batch("agv-simple-static", "kinematic").step(np.zeros((2, 2), np.float32))


@TIERS
def test_an_episode_that_enters_no_new_cell_is_over(tier):
    task = make("agv-simple-static", stale_steps=30, stale_cell_m=1.0)
    env = BatchEnv(task, 2, tier, 5)
    env.reset()
    stand = np.tile(np.float32([-0.5, 0.0]), (2, 1))  # v = 0
    ends = [env.step(stand) for _ in range(31)]
    assert [step.terminated.any() for step in ends] == [False] * 30 + [True]
    assert ends[-1].terminated.all() and not ends[-1].terms["success"].any()
    # a circle of half a metre enters new cells until it closes, however long it goes on
    circle = np.tile(np.float32([0.0, 1.0]), (2, 1))
    first, closed = [], np.zeros(2, bool)
    for t in range(200):
        closed |= env.step(circle).terminated
        if closed.all():
            break
        first.append(t)
    assert closed.all() and 31 < len(first) < 150


def test_what_is_stale_survives_saving():
    task = make("agv-simple-static", stale_steps=40, max_steps=200)
    env, fresh = (BatchEnv(task, 3, "kinematic", 5, TRAINING) for _ in range(2))
    env.reset()
    run(env, actions(60, seed=4))
    saved = env.state_dict()
    fresh.load_state_dict(saved)
    assert same(run(env, actions(80, seed=6)), run(fresh, actions(80, seed=6)))
    with pytest.raises(ValueError, match="stale_steps >= 0"):
        make("agv-simple-static", stale_steps=-1)


@TIERS
def test_a_touch_more_costs_less_and_less(tier):
    env = BatchEnv(make("agv-simple-static", touch_reward=-1.0), 2, tier, 5)
    env.reset()
    ahead = np.tile(np.float32([1.0, 0.1]), (2, 1))
    paid = np.array([env.step(ahead).terms["reward/touch"] for _ in range(300)])
    for row in paid.T:
        touches = row[row < 0]
        assert len(touches) > 20, "it slides along a wall sooner or later"
        np.testing.assert_allclose(touches, -1 / np.arange(1, len(touches) + 1))


def test_a_robot_can_be_held_to_a_lower_speed():
    task = make("agv-barn", v_max=0.7, layouts=2)
    assert task.robot.limits.v_max == 0.7
    env = BatchEnv(task, 2, "kinematic", 5)
    env.reset()
    full = np.tile(np.float32([1.0, 0.0]), (2, 1))
    speeds = [(env.step(full), env.state.vel_b[:, 0].max())[1] for _ in range(20)]
    assert 0.6 < max(speeds) <= 0.7 + 1e-6
    # no faster than the robot can
    assert make("agv-barn", v_max=9.0, layouts=2).robot.limits == make("agv-barn").robot.limits
    with pytest.raises(ValueError, match="v_max must be > 0 m/s or None, got 0"):
        make("agv-barn", v_max=0)


def test_far_goals_in_new_layouts_are_far_or_anywhere():
    def gaps(reach):
        task = make("agv-far", layouts=5, reach=reach)
        placed = [task.place(np.random.default_rng([reach > 0, k])) for k in range(12)]
        assert len({p.layout for p in placed}) > 1
        return [np.hypot(*(p.goal_w - p.start_w[:2])) for p in placed]

    assert min(gaps(0.6)) > 12.0  # of a hall of 30 m
    near = gaps(0.0)
    assert 2.0 <= min(near) < 9.0 < max(near)
    assert make("agv-far", layouts=5).config.guide == "built"
    assert make("agv-far").config.guide == "none"
    with pytest.raises(ValueError, match=r"reach must be in \[0, 1\], got 2"):
        make("agv-far", reach=2)
