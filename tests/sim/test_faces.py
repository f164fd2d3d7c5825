"""The faces show the batch engine unchanged, keep the promises of their libraries, and train."""

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics
from stable_baselines3 import PPO, SAC, HerReplayBuffer
from stable_baselines3.common import env_checker as sb3_checker

import sim
from sim import worlds
from sim.batch import BatchEnv
from sim.faces.gymnasium_env import TaskEnv, TaskVectorEnv
from sim.faces.rows import OUTCOMES
from sim.faces.sb3_vec_env import Sb3VecEnv
from sim.faces.vec_task import VecTask
from sim.randomization import TRAINING
from sim.registration import ARM_NAMES, NAMES, env_id
from sim.tasks import make

torch.set_num_threads(1)
SIMPLE = "agv-simple-static"
IDS = [env_id(name, goal) for name in NAMES for goal in (False, True)]
ANYWHERE = {"goal_radius_m": 1000.0}
"""A goal that is reached at once."""


def options(name):
    """The parameters that an id cannot do without, and layouts that are made fast."""
    if "RosMap" in name:
        return {"map_yaml": worlds.hall(12.0, "simple")}
    return {"layouts": 2} if "Warehouse" in name or "Barn" in name else {}


def actions(steps, rows, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, rows, 2)).astype(np.float32)


# registration


def test_importing_sim_registers_every_task_and_loads_no_simulator():
    code = """
import sys, sim, gymnasium
print(sorted(i for i in gymnasium.registry if i.startswith("Incognita/")))
print({"mujoco", "torch", "numba", "stable_baselines3"} & set(sys.modules))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    hills = [env_id("Terrain", goal) for goal in (False, True)]  # no task of the batch engine
    arm = [env_id(name, goal) for name in ARM_NAMES for goal in (False, True)]
    assert out.stdout.splitlines() == [str(sorted(IDS + arm + hills)), "set()"]


def test_registering_twice_changes_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sim.register()
    assert isinstance(gymnasium.make("sim:Incognita/AgvFar-v0").unwrapped, TaskEnv)


# gymnasium.Env


@pytest.mark.parametrize("name", IDS)
def test_both_environment_checkers_pass(name):
    env = gymnasium.make(name, **options(name))
    assert env.action_space == gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*A Box observation space m.*")
        check_env(env.unwrapped, skip_render_check=True)
        sb3_checker.check_env(env.unwrapped)  # wrappers hide compute_reward, those of Fetch too


@pytest.mark.parametrize("tier", ["kinematic", "mujoco"])
def test_a_single_environment_is_a_batch_of_one(tier):
    env = TaskEnv(SIMPLE, tier=tier, randomization=TRAINING, max_steps=7)
    batch = BatchEnv(make(SIMPLE, max_steps=7), 1, tier, seed=11, randomization=TRAINING)
    obs, info = env.reset(seed=11)
    assert np.array_equal(obs, batch.reset()[0])
    assert info == {"layout": 0, "parameters": batch.episode_parameters(0)}
    for action in actions(20, 1):
        obs, reward, terminated, truncated, info = env.step(action[0])
        step = batch.step(action)
        assert np.array_equal(obs, step.final_obs[0]) and reward == step.reward[0]
        assert (terminated, truncated) == (step.terminated[0], step.truncated[0])
        assert {k: info[k] for k in step.terms} == {k: v[0] for k, v in step.terms.items()}
        if terminated or truncated:
            obs, _ = env.reset()  # goes on to the batch's next episode, and skips none
            assert np.array_equal(obs, step.obs[0])


def test_resets_without_a_seed_differ_and_follow_the_seed():
    env = TaskEnv(SIMPLE)
    starts = [env.reset(seed=4)[0], env.reset()[0], env.reset()[0], env.reset(seed=4)[0]]
    again = [env.reset()[0], env.reset()[0]]
    assert np.array_equal(starts[0], starts[3]) and not np.array_equal(starts[0], starts[1])
    assert np.array_equal(starts[1:3], again) and not np.array_equal(*again)
    unseeded = [TaskEnv(SIMPLE).reset()[0] for _ in range(2)]
    assert not np.array_equal(*unseeded)


def test_reaching_the_goal_terminates_and_says_success():
    env = TaskEnv(SIMPLE, **ANYWHERE)
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(np.zeros(2, np.float32))
    assert (reward, terminated, truncated) == (10.0, True, False)
    assert info["success"] is True and info["is_success"] is True and info["episode_length"] == 1


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="options must be empty, got \\['start'\\]"):
        TaskEnv(SIMPLE).reset(options={"start": 1})
    with pytest.raises(ValueError, match="render_mode must be .*'human'"):
        TaskEnv(SIMPLE, render_mode="human")
    with pytest.raises(ValueError, match="reward_type must be one of .*'rich'"):
        gymnasium.make(env_id("AgvFar", goal=True), reward_type="rich")
    with pytest.raises(TypeError, match="takes no parameters, got \\['people'\\]"):
        TaskEnv(make(SIMPLE), people=2)
    with pytest.raises(TypeError, match="map_yaml"):
        gymnasium.make(env_id("AgvRosMap"))
    with pytest.raises(ValueError, match="goals must be off"):
        VecTask(SIMPLE, 2, goals=True)


# gymnasium.vector.VectorEnv


@pytest.mark.parametrize("goal", [False, True])
def test_the_vector_environment_equals_gymnasiums_own_in_the_same_autoreset_mode(goal):
    name, extra = env_id("AgvSimpleStatic", goal), {"max_steps": 6, "randomization": TRAINING}
    ours = gymnasium.make_vec(name, num_envs=1, **extra)
    mode = AutoresetMode.SAME_STEP
    theirs = SyncVectorEnv([lambda: gymnasium.make(name, **extra)], autoreset_mode=mode)
    assert isinstance(ours, TaskVectorEnv) and ours.metadata["autoreset_mode"] is mode
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    equal(ours.reset(seed=3)[0], theirs.reset(seed=3)[0])
    ends = 0
    for action in actions(20, 1):
        a, b = ours.step(action), theirs.step(action)
        assert ours.observation_space.contains(a[0])
        for x, y in zip(a[:4], b[:4], strict=True):
            equal(x, y)
        mine, other = a[4], b[4]
        assert ("final_obs" in mine) == ("final_obs" in other) == bool(a[3][0])
        if "final_obs" in mine:
            ends += 1
            assert mine["final_obs"].dtype == other["final_obs"].dtype == object
            equal(mine["final_obs"][0], other["final_obs"][0])
            for key in (*OUTCOMES, "is_success"):
                equal(mine["final_info"][key], other["final_info"][key])
                equal(mine["final_info"][f"_{key}"], other["final_info"][f"_{key}"])
            equal(mine["_final_obs"], other["_final_obs"])
            equal(mine["_final_info"], other["_final_info"])
    assert ends == 3


def equal(a, b):
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            equal(a[key], b[key])
    elif isinstance(a, list):
        for x, y in zip(a, b, strict=True):
            equal(x, y)
    else:
        np.testing.assert_array_equal(a, b)


def test_rows_of_the_vector_environment_are_rows_of_the_batch():
    env = TaskVectorEnv(5, SIMPLE, max_steps=9)
    batch = BatchEnv(make(SIMPLE, max_steps=9), 5, seed=8)
    equal(env.reset(seed=8)[0], batch.reset())
    for action in actions(20, 5):
        obs, reward, terminated, truncated, infos = env.step(action)
        step = batch.step(action)
        equal([obs, reward], [step.obs, step.reward])
        equal([terminated, truncated], [step.terminated, step.truncated])
        equal(infos["reward/goal"], step.terms["reward/goal"])


def test_finished_rows_alone_carry_final_information():
    env = TaskVectorEnv(3, SIMPLE, max_steps=9)
    env.reset(seed=0)
    env.rows.batch.state.t[1] = 8
    *_, truncated, infos = env.step(np.zeros((3, 2), np.float32))
    assert truncated.tolist() == infos["_final_obs"].tolist() == [False, True, False]
    assert [x is None for x in infos["final_obs"]] == [True, False, True]
    assert infos["final_info"]["episode_length"].tolist() == [0, 9, 0]
    assert infos["final_info"]["_success"].tolist() == [False, True, False]
    assert "final_obs" not in env.step(np.zeros((3, 2), np.float32))[4]


def test_gymnasiums_vector_wrappers_work():
    env = DictInfoToList(RecordEpisodeStatistics(TaskVectorEnv(2, SIMPLE, **ANYWHERE)))
    env.reset(seed=0)
    env.step(np.zeros((2, 2), np.float32))
    *_, infos = env.step(np.zeros((2, 2), np.float32))
    assert [info["episode"]["l"] for info in infos] == [1, 1]
    assert [info["final_info"]["is_success"] for info in infos] == [True, True]


# GoalEnv


def test_goal_environments_have_the_functions_of_gymnasium_robotics():
    from gymnasium_robotics.core import GoalEnv

    env = gymnasium.make(env_id("AgvWarehouse", goal=True), layouts=1).unwrapped
    wanted = {name for name in vars(GoalEnv) if not name.startswith("_")}
    assert wanted >= {"compute_reward", "compute_terminated", "compute_truncated", "reset"}
    assert all(callable(getattr(env, name)) for name in wanted)
    obs, _ = env.reset(seed=1)
    assert set(obs) == {"observation", "achieved_goal", "desired_goal"}
    assert obs["achieved_goal"].dtype == obs["desired_goal"].dtype == np.float64


@pytest.mark.parametrize("reward_type", ["sparse", "dense"])
@pytest.mark.parametrize("name", ["AgvSimpleDynamic", "AgvWarehouse"])
def test_the_three_compute_functions_repeat_what_step_gave(name, reward_type):
    env = gymnasium.make(
        env_id(name, goal=True), reward_type=reward_type, max_steps=15, randomization=TRAINING,
        **options(name),
    ).unwrapped  # fmt: skip
    seen = []
    env.reset(seed=2)
    for action in actions(40, 1):
        obs, reward, terminated, truncated, info = env.step(action[0])
        args = obs["achieved_goal"], obs["desired_goal"], info
        assert reward == env.compute_reward(*args)
        assert terminated == env.compute_terminated(*args)
        assert truncated == env.compute_truncated(*args)
        seen.append((obs["achieved_goal"], obs["desired_goal"], reward))
        if terminated or truncated:
            env.reset()
    achieved, desired, rewards = (np.array(x) for x in zip(*seen, strict=True))
    equal(env.compute_reward(achieved, desired, [{}] * 40), rewards.astype(np.float32))
    square = achieved.reshape(8, 5, 2), desired.reshape(8, 5, 2)
    assert env.compute_reward(*square, {}).shape == (8, 5)


def test_goal_rewards_by_hand():
    env = gymnasium.make(env_id("AgvSimpleStatic", goal=True)).unwrapped
    goals = np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 4.4], [3.0, 4.6]])
    assert env.compute_reward(goals, np.array([3.0, 4.0]), {}).tolist() == [-1, 0, 0, -1]
    dense = gymnasium.make(env_id("AgvSimpleStatic", goal=True), reward_type="dense").unwrapped
    assert dense.compute_reward(goals[0], goals[1], {}) == -5
    assert env.compute_terminated(goals[0], goals[1], {"collision": True})
    assert not env.compute_truncated(goals[1], goals[1], {"episode_length": 2000})
    assert env.compute_truncated(goals[0], goals[1], {"episode_length": 2000})
    with pytest.raises(ValueError, match=r"goals must be \(..., 2\)"):
        env.compute_reward(np.zeros(3), np.zeros(3), {})


@pytest.mark.parametrize("name", ["AgvSimpleStatic", "AgvBarn"])
def test_the_observation_does_not_give_the_goal_away(name):
    env = gymnasium.make_vec(env_id(name, goal=True), num_envs=2, **options(name))
    env.reset(seed=0)
    rows = env.rows
    state = rows.batch.state
    state.goal_w[1] = state.goal_w[0] + [1.0, -2.0]
    for part in (state.pose_w, state.seen_pose_w, state.vel_b, state.last_command, state.frames):
        part[1] = part[0]
    if state.guide_w is not None:
        state.guide_w[1] = state.guide_w[0] + 1.0
    flat = rows.task.observe(state)
    obs = rows._shown(flat, *rows._now())
    assert not np.array_equal(flat[0], flat[1])
    assert np.array_equal(obs["observation"][0], obs["observation"][1])
    assert np.array_equal(obs["desired_goal"][1] - obs["desired_goal"][0], [1.0, -2.0])
    yaw = state.seen_pose_w[0, 2]
    np.testing.assert_allclose(obs["observation"][0, -2:], [np.cos(yaw), np.sin(yaw)], atol=1e-6)


def test_success_is_told_to_the_goal_face_too():
    env = gymnasium.make(env_id("AgvSimpleStatic", goal=True), **ANYWHERE)
    env.reset(seed=0)
    _, reward, terminated, _, info = env.step(np.zeros(2, np.float32))
    assert (reward, terminated, info["is_success"]) == (0.0, True, True)


# Stable-Baselines3


def test_the_sb3_face_shows_the_batch_and_keeps_the_last_observation():
    env = Sb3VecEnv(SIMPLE, 3, seed=5, max_steps=6)
    batch = BatchEnv(make(SIMPLE, max_steps=6), 3, seed=5)
    equal(env.reset(), batch.reset())
    total = np.zeros(3)
    for k, action in enumerate(actions(6, 3)):
        obs, reward, done, infos = env.step(action)
        step = batch.step(action)
        total += reward
        equal([obs, reward, done], [step.obs, step.reward, step.truncated])
        assert all(info == {} for info in infos) == (k < 5)
    equal([info["terminal_observation"] for info in infos], list(step.final_obs))
    assert all(info["TimeLimit.truncated"] and info["is_success"] is False for info in infos)
    assert [info["episode"]["l"] for info in infos] == [6, 6, 6]
    np.testing.assert_allclose([info["episode"]["r"] for info in infos], total, rtol=1e-6)
    env.seed(5)
    first = env.reset()
    batch.seed, batch.episode[:] = 5, 0
    equal(first, batch.reset())
    assert not np.array_equal(env.reset(), first)
    env.close()


def test_sb3_ppo_trains_on_the_vector_face():
    env = Sb3VecEnv(SIMPLE, 8, max_steps=20)
    model = PPO("MlpPolicy", env, n_steps=16, batch_size=64, n_epochs=2, seed=0, device="cpu")
    before = [p.clone() for p in model.policy.parameters()]
    model.learn(3 * 8 * 16)
    assert model.num_timesteps == 384 and len(model.ep_info_buffer) == 16
    assert all(torch.isfinite(p).all() for p in model.policy.parameters())
    assert any(
        not torch.equal(a, b) for a, b in zip(before, model.policy.parameters(), strict=True)
    )


@pytest.mark.parametrize("vectorised", [False, True])
def test_sb3_sac_with_her_trains_and_relabels(vectorised):
    env = (
        Sb3VecEnv(SIMPLE, 4, goals=True, max_steps=25)
        if vectorised
        else gymnasium.make(env_id("AgvSimpleStatic", goal=True), max_steps=25)
    )
    model = SAC(
        "MultiInputPolicy", env, replay_buffer_class=HerReplayBuffer, learning_starts=104,
        batch_size=64, train_freq=8, gradient_steps=2, seed=0, device="cpu",
        policy_kwargs={"net_arch": [32, 32]},
    )  # fmt: skip
    own = torch.from_numpy(
        env.reset()["desired_goal"][0] if vectorised else env.reset()[0]["desired_goal"]
    )
    model.learn(208)
    sample = model.replay_buffer.sample(256)
    goal = sample.observations["desired_goal"]
    moved = (goal != own).any(dim=1)
    assert 100 < int(moved.sum()) < 256
    rewards = sample.rewards[:, 0]
    assert set(rewards.unique().tolist()) == {-1.0, 0.0} and (rewards[~moved] == -1).all()
    gap = (sample.next_observations["achieved_goal"] - goal).norm(dim=1)
    assert torch.equal(rewards == 0, gap < 0.5)


# Isaac Gym


def test_the_vec_task_has_the_fields_of_isaac_gym_and_shows_the_batch():
    task = VecTask(SIMPLE, 4, seed=9, max_steps=5)
    batch = BatchEnv(make(SIMPLE, max_steps=5), 4, seed=9)
    dim = batch.spec.obs_dim
    assert (task.num_envs, task.num_obs, task.num_acts) == (4, dim, 2)
    assert task.obs_buf.shape == (4, dim) and task.rew_buf.shape == task.reset_buf.shape == (4,)
    equal(task.reset()["obs"].numpy(), batch.reset())
    assert task.progress_buf.tolist() == task.reset_buf.tolist() == [0] * 4
    for k, action in enumerate(actions(5, 4)):
        obs, reward, done, extras = task.step(torch.from_numpy(3 * action))  # clipped
        step = batch.step(np.clip(3 * action, -1, 1))
        assert obs["obs"] is task.obs_buf and reward is task.rew_buf and done is task.reset_buf
        equal([obs["obs"].numpy(), reward.numpy()], [step.obs, step.reward])
        assert done.tolist() == [k == 4] * 4 and task.progress_buf.tolist() == [(k + 1) % 5] * 4
        assert extras["time_outs"].tolist() == [k == 4] * 4
        equal(extras["final_obs"].numpy(), step.final_obs)
    kept = obs["obs"].clone()
    task.step(torch.zeros(4, 2))
    assert torch.equal(obs["obs"], kept)
    with pytest.raises(ValueError, match=r"action must be \(4, 2\), got \(3, 2\)"):
        task.step(torch.zeros(3, 2))


@pytest.fixture
def precision():
    """rl_games lowers that of every matrix product in the process."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def test_rl_games_trains_unmodified(tmp_path, monkeypatch, precision):
    runner = pytest.importorskip("rl_games.torch_runner").Runner()
    from sim.faces.rl_games_env import NAME, register

    monkeypatch.chdir(tmp_path)
    register()
    config = {
        "name": "test", "env_name": NAME, "device": "cpu", "ppo": True, "num_actors": 8,
        "env_config": {"task": SIMPLE, "max_steps": 20},
        "reward_shaper": {"scale_value": 1.0}, "value_bootstrap": True, "normalize_input": True,
        "normalize_value": True, "normalize_advantage": True, "gamma": 0.99, "tau": 0.95,
        "learning_rate": 3e-4, "lr_schedule": "adaptive", "kl_threshold": 0.008,
        "grad_norm": 1.0, "truncate_grads": True, "entropy_coef": 0.0, "e_clip": 0.2,
        "clip_value": True, "critic_coef": 2, "bounds_loss_coef": 0.0, "max_epochs": 3,
        "horizon_length": 16, "minibatch_size": 64, "mini_epochs": 2, "score_to_win": 1e9,
        "torch_compile": False,
    }  # fmt: skip
    continuous = {
        "mu_activation": "None", "sigma_activation": "None", "mu_init": {"name": "default"},
        "sigma_init": {"name": "const_initializer", "val": 0}, "fixed_sigma": True,
    }  # fmt: skip
    mlp = {"units": [32, 32], "activation": "elu", "initializer": {"name": "default"}}
    network = {"name": "actor_critic", "separate": False, "mlp": mlp}
    network["space"] = {"continuous": continuous}
    algo, model = {"name": "a2c_continuous"}, {"name": "continuous_a2c_logstd"}
    runner.load(
        {
            "params": {
                "seed": 7, "torch_threads": 1, "algo": algo, "model": model, "network": network,
                "config": config,
            }
        }
    )  # fmt: skip
    agents = []
    create = runner.algo_factory.create
    runner.algo_factory.create = lambda *a, **k: agents.append(create(*a, **k)) or agents[0]
    runner.run({"train": True, "play": False})
    (agent,) = agents
    assert agent.epoch_num == 3 and agent.frame == 3 * 8 * 16
    assert agent.game_lengths.get_mean().item() == 20
    task = agent.vec_env.task
    assert isinstance(task, VecTask) and task.rows.batch.seed == 7
    assert all(torch.isfinite(p).all() for p in agent.model.parameters())
    assert list(tmp_path.rglob("*.pth"))


def test_rsl_rl_trains_unmodified(tmp_path):
    runners = pytest.importorskip("rsl_rl.runners")
    from sim.faces.rsl_rl_env import RslRlEnv

    task = VecTask(SIMPLE, 8, seed=3, max_steps=20)
    env = RslRlEnv(task)
    net = {"class_name": "MLPModel", "hidden_dims": [32, 32], "obs_normalization": True}
    gaussian = {"class_name": "GaussianDistribution", "init_std": 1.0}
    config = {
        "num_steps_per_env": 16, "save_interval": 100,
        "obs_groups": {"actor": ["policy"], "critic": ["policy"]},
        "actor": net | {"distribution_cfg": gaussian}, "critic": net,
        "algorithm": {"class_name": "PPO", "num_learning_epochs": 2, "num_mini_batches": 2},
    }  # fmt: skip
    runner = runners.OnPolicyRunner(env, config, log_dir=str(tmp_path), device="cpu")
    before = [p.clone() for p in runner.alg.get_policy().parameters()]
    runner.learn(3, init_at_random_ep_len=True)
    assert runner.current_learning_iteration == 2 and list(tmp_path.glob("model_2.pt"))
    after = list(runner.alg.get_policy().parameters())
    assert all(torch.isfinite(p).all() for p in after)
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    # the random episode lengths reached the simulator: the rows no longer end together
    assert len(set(task.rows.batch.state.t.tolist())) > 2
    assert torch.equal(env.episode_length_buf, torch.from_numpy(task.rows.batch.state.t))


# pictures


@pytest.mark.parametrize("name", ["AgvSimpleDynamic", "AgvWarehouse"])
def test_pictures_show_the_robot_where_the_episode_ended(name):
    env = TaskEnv(NAMES[name], render_mode="rgb_array", max_steps=30, **options(name))
    with pytest.raises(RuntimeError, match="reset must be called"):
        env.render()
    env.reset(seed=0)
    first = env.render()
    assert first.shape == (480, 640, 3) and first.dtype == np.uint8 and first.std() > 5
    truncated = False
    while not truncated:
        before = env.render()
        *_, truncated, _ = env.step(np.array([1.0, 0.0], np.float32))
    last = env.render()
    env.reset()
    start = env.render()

    def apart(a, b):
        return np.abs(a.astype(int) - b).mean()

    assert apart(last, before) < apart(last, start)
    env.close()
    vector = TaskVectorEnv(2, NAMES[name], render_mode="rgb_array", **options(name))
    vector.reset(seed=0)
    equal(vector.render()[0], first)
    vector.close()
    assert TaskVectorEnv(2, SIMPLE).render() is None


def test_the_checker_accepts_the_pictures():
    env = gymnasium.make(env_id("AgvSimpleStatic"), render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*A Box observation space m.*")
        check_env(env.unwrapped)
    env.close()
