import numpy as np
import pytest
import torch

from curiosity.base import Transition
from evovla.pose import TOOL_DOWN_QUAT_WXYZ, relative_pose_wxyz
from evovla.pose_exploration import PoseExploration, PoseExplorationConfig
from evovla.stage_reward import StageRewardConfig
from incognita.stage_env import CONTEXT, StageEnv, StageEnvConfig, open_judge
from incognita.stage_eval import evaluate_stages
from sim.manipulation.batch import ACTION_DIM, ArmBatch
from sim.manipulation.expert import Expert
from sim.tasks import make_arm

TASK = make_arm("stack")


def made(rows=2, seed=3, **config):
    batch = ArmBatch(TASK, rows, seed)
    return StageEnv(batch, open_judge(TASK, "oracle"), StageEnvConfig(**config))


def played(env, steps):
    """The expert's steps from a reset."""
    env.reset()
    expert = Expert(env.batch)
    return [env.step(expert.act()) for _ in range(steps)]


def test_with_the_oracle_the_believed_stage_is_the_true_one_while_all_goes_well():
    env = made()
    env.reset()
    expert, off = Expert(env.batch), []
    for _ in range(60):
        env.step(expert.act())
        off.append(env.told.stage - env.batch.final_tracker.stage)
    assert env.told.stage.min() > 3 and np.abs(off).max() == 0


def test_the_policy_is_told_the_believed_stage_and_not_the_true_one():
    env = made(tracker=StageRewardConfig(theta=0.999, low=0.1, alpha=0.2))  # believes late
    steps = played(env, 40)
    believed, true = env.told.stage, env.batch.final_tracker.stage
    assert (believed < true).all()
    share = TASK.base_dim + 10 + 1  # the column of the share of stages done
    np.testing.assert_allclose(steps[-1].obs[:, share], believed / TASK.plan.stages, rtol=1e-6)


def test_stage_rewards_of_an_episode_depend_on_its_ends_only():
    env = made(rows=1, stage_coef=0.6)
    gamma, steps = env.config.tracker.gamma, played(env, 140)
    end = next(t for t, s in enumerate(steps) if s.terminated[0])
    assert steps[end].terms["success"][0]
    paid = sum(gamma**t * s.terms["reward/stage"][0] for t, s in enumerate(steps[: end + 1]))
    np.testing.assert_allclose(paid, 0.0, atol=0.02)  # -Phi(s_0), which is nearly 0
    assert steps[end].reward[0] == pytest.approx(1.0 - 0.6, abs=0.01)


def test_a_row_that_ends_begins_anew_at_stage_0():
    env = made(rows=1)
    steps = played(env, 130)
    end = next(t for t, s in enumerate(steps) if s.terminated[0])
    assert steps[end].terms["believed"][0] == TASK.plan.stages
    share = TASK.base_dim + 11
    assert steps[end].final_obs[0, share] == 1.0 and steps[end].obs[0, share] == 0.0


def test_it_goes_on_from_a_saved_state_bit_for_bit():
    env, other = made(seed=5), made(seed=5)
    played(env, 30)
    saved = env.state_dict()
    other.reset()
    other.load_state_dict(saved)
    rng = np.random.default_rng(0)
    for _ in range(5):
        action = rng.uniform(-1, 1, (2, ACTION_DIM)).astype(np.float32)
        a, b = env.step(action), other.step(action)
        np.testing.assert_array_equal(a.obs, b.obs)
        np.testing.assert_array_equal(a.reward, b.reward)


def test_pose_exploration_sees_the_pose_of_the_believed_stages_object():
    env = made()
    played(env, 20)
    rows, batch = np.arange(2), env.batch
    piece = TASK.plan.target[TASK.plan.pick[env.tracker.stage]]
    want = relative_pose_wxyz(batch.grip_pose, batch.object_pose[rows, piece], TOOL_DOWN_QUAT_WXYZ)
    got = env.explore()
    np.testing.assert_allclose(got[:, :6], want, atol=0.02)  # the tool tilts a little
    np.testing.assert_array_equal(got[:, 6], piece)


def test_pose_exploration_takes_its_rollouts():
    env = made()
    env.reset()
    before, after, sent, ends = [], [], [], []
    rng = np.random.default_rng(0)
    for _ in range(8):
        before.append(env.explore())
        sent.append(rng.uniform(-1, 1, (2, ACTION_DIM)).astype(np.float32))
        step = env.step(sent[-1])
        after.append(step.explore)
        ends.append(step.terminated)
    rollout = Transition.from_numpy(
        np.stack(before), np.stack(sent), np.stack(after), np.stack(ends), np.zeros((8, 2), bool)
    )
    config = PoseExplorationConfig(ACTION_DIM, len(CONTEXT), num_envs=2, warmup=0)
    log = PoseExploration(config).update(rollout)
    assert log["known_share"] == 1.0 and np.isfinite(list(log.values())).all()


def test_an_evaluation_counts_every_episode_once():
    class Asleep:
        def __call__(self, obs):
            return np.zeros((len(obs), ACTION_DIM), np.float32)

    short = make_arm("stack", max_steps=12)
    told = evaluate_stages(short, Asleep(), open_judge(short, "oracle"), 3).summary()
    assert told["episodes"] == 3 and told["success"] == 0.0 and told["claims"] == 0
    assert told["hallucination"] is None and told["stopped_at"][0] == 3
    low, high = told["success_95"]
    assert low == 0.0 and 0.5 < high < 0.6


def test_the_expert_succeeds_and_hallucinates_nothing_under_the_oracle():
    batch = ArmBatch(TASK, 2, 1)
    expert = Expert(batch)  # acts on a batch of its own, which sees the same actions

    class Twin:
        def __call__(self, obs):
            if not hasattr(self, "obs"):
                self.obs = batch.reset()
            action = expert.act()
            batch.step(action)
            return action

    told = evaluate_stages(TASK, Twin(), open_judge(TASK, "oracle"), 2, seed=1)
    summary = told.summary()
    assert summary["success"] == 1.0 and summary["weak_success"] == 1.0
    assert summary["hallucination"] == 0.0 and summary["stage_exact"] > 0.95
    assert torch.isfinite(torch.tensor(summary["mean_steps"]))


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="stage_coef"):
        StageEnvConfig(stage_coef=-1.0)
    with pytest.raises(FileNotFoundError):
        open_judge(TASK, "/no/such/folder")
