"""PPO: its equations on numbers worked by hand, and that it learns, repeats and resumes."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

import curiosity
from learning import checkpoint
from learning.policy import Policy
from learning.ppo import PPO, ActorCritic, PPOConfig, gae
from learning.vec_env import EnvSpec, Step

SMALL = PPOConfig(num_steps=16, minibatch=128, hidden=(32, 32))


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None]


def test_gae_by_hand_with_a_time_limit_and_an_end():
    # gamma = lambda = 1/2. Step 1 is cut by a time limit (final value 8), step 2 is terminal.
    reward, value = column(1, 2, 4), column(2, 4, 6)
    next_value = column(4, 8, 0)
    cut = torch.tensor([[False], [True], [True]])
    # delta = [1 + 2 - 2, 2 + 4 - 4, 4 + 0 - 6] = [1, 2, -2]; A_0 = 1 + 1/4 * 2
    assert gae(reward, value, next_value, cut, 0.5, 0.5).flatten().tolist() == [1.5, 2, -2]
    uncut = torch.zeros_like(cut)
    # A_1 = 2 + 1/4 * -2, A_0 = 1 + 1/4 * 1.5
    assert gae(reward, value, next_value, uncut, 0.5, 0.5).flatten().tolist() == [1.375, 1.5, -2]


def test_gae_runs_along_time_not_along_environments():
    reward = torch.zeros(3, 3)
    reward[2, 1] = 1.0
    zero = torch.zeros(3, 3)
    got = gae(reward, zero, zero, zero.bool(), 0.5, 1.0)
    want = torch.tensor([[0, 0.25, 0], [0, 0.5, 0], [0, 1.0, 0]])
    assert torch.equal(got, want)
    assert not torch.equal(gae(reward.T, zero, zero, zero.bool(), 0.5, 1.0), want)


class Script:
    """Two environments, two steps: row 0 ends at step 0, row 1 meets its time limit there."""

    spec = EnvSpec(2, 1, 1, 6, 0.05, 9)

    def __init__(self):
        self.t = 0

    def reset(self):
        return np.array([[1], [2]], np.float32)

    def explore(self):
        return np.zeros((2, 6), np.float32)

    def step(self, action):
        first = self.t == 0
        self.t += 1
        obs = np.array([[3], [4]] if first else [[5], [6]], np.float32)
        final = np.array([[70], [80]], np.float32) if first else obs
        ends, cuts = np.array([first, False]), np.array([False, first])
        return Step(obs, np.ones(2, np.float32), ends, cuts, final, self.explore(), {})


class Ones(curiosity.IntrinsicReward):
    normalize = False

    def _run(self, tr, commit):
        return torch.ones(tr.terminated.shape)


@pytest.mark.parametrize("horizon", ["lifelong", "episodic"])
def test_targets_of_both_streams_at_episode_ends(horizon):
    config = PPOConfig(
        num_steps=2,
        minibatch=4,
        gamma=0.5,
        int_gamma=0.25,
        lam=0.0,
        normalize_obs=False,
        hidden=(1,),
    )
    bonus = Ones(6, 1)
    bonus.horizon = horizon
    ppo = PPO(Script(), config, bonus)

    class Critic(torch.nn.Module):  # V_e = obs, V_i = 10 obs
        def forward(self, x):
            return torch.cat([x, 10 * x], dim=1)

    ppo.net.critic = Critic()
    ppo.net.normalize = lambda obs: obs
    ppo._collect()
    rewards, _ = ppo._bonus(1.0)
    _, returns, _ = ppo._advantages(rewards, torch.zeros(2, 2, dtype=torch.bool), 1.0)
    # lambda = 0: target = r + gamma V(next). Ended: 1. Time limit: 1 + 80 / 2. Then 1 + obs' / 2.
    assert returns[..., 0].tolist() == [[1, 41], [3.5, 4]]
    if horizon == "lifelong":  # runs on into the episode after the reset: 1 + 10 obs' / 4
        assert returns[..., 1].tolist() == [[8.5, 11], [13.5, 16]]
    else:
        assert returns[..., 1].tolist() == [[1, 201], [13.5, 16]]


def test_log_prob_is_the_gaussian_density():
    net = ActorCritic(3, 2, (8,), init_log_std=-0.7)
    x, action = torch.randn(5, 3), torch.randn(5, 2)
    want = torch.distributions.Normal(net.actor(x), net.log_std.exp())
    torch.testing.assert_close(net.log_prob(x, action), want.log_prob(action).sum(-1))
    torch.testing.assert_close(net.entropy(), want.entropy().sum(-1)[0])


def test_hidden_layers_have_the_gradient_of_tanh():
    net = ActorCritic(3, 2, (8, 8))
    plain = torch.nn.Sequential(
        net.actor[0], torch.nn.Tanh(), net.actor[2], torch.nn.Tanh(), net.actor[4]
    )
    x = torch.randn(7, 3)
    torch.testing.assert_close(net.actor(x), plain(x))
    parameters = list(net.actor.parameters())
    got = torch.autograd.grad(net.actor(x).square().sum(), parameters)
    want = torch.autograd.grad(plain(x).square().sum(), parameters)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


def test_normalizer_matches_all_data_at_once():
    net = ActorCritic(3, 1, (4,))
    data = torch.randn(100, 3) * torch.tensor([0.1, 1, 50]) + torch.tensor([5.0, 0, -100])
    for part in data.split([10, 1, 89]):
        net.update_normalizer(part)
    torch.testing.assert_close(net.obs_mean, data.double().mean(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(net.obs_var, data.double().var(0, correction=0), rtol=1e-4, atol=0)
    net.update_normalizer(torch.full((5, 3), 1e6))
    assert net.normalize(torch.full((1, 3), 1e9)).max() == 10


def test_learns_to_reach_the_goal(point_env):
    seen = []
    ppo = PPO(point_env(), replace(SMALL, num_steps=32, minibatch=256), seed=1)
    ppo.learn(80_000, lambda m: seen.append(m) or m["success"] >= 0.95)
    assert min(m["success"] for m in seen[:5]) < 0.6  # the first to finish are the lucky ones
    assert seen[-1]["success"] >= 0.95
    assert seen[-1]["episode_length"] < 0.7 * max(m["episode_length"] for m in seen)
    names = "steps collision return steps_per_s reward/progress reward/missing_share loss/policy"
    assert set(names.split()) <= set(seen[-1])


def test_a_bonus_is_logged_and_fades_once_the_task_is_solved(point_env):
    seen = []
    config = replace(
        SMALL,
        num_steps=32,
        minibatch=256,
        int_anneal_success=0.7,
        int_anneal_steps=4096,
        int_coef=0.3,
    )
    bonus = curiosity.make("count-rnd", 6, 2, num_envs=32)
    PPO(point_env(), config, bonus, seed=1).learn(
        80_000, lambda m: seen.append(m) or m["intrinsic/weight"] == 0
    )
    assert seen[0]["intrinsic/weight"] == 0.3 and seen[-1]["intrinsic/weight"] == 0
    assert all(0 < m["intrinsic/share"] < 1 for m in seen[:3])
    assert seen[0]["intrinsic/raw_mean"] > 0 and seen[0]["intrinsic/p95"] > 0
    weights = [m["intrinsic/weight"] for m in seen]
    assert weights == sorted(weights, reverse=True) and any(0 < w < 0.3 for w in weights)


def everything(ppo: PPO) -> dict[str, object]:
    """Flat tree of all state, bytes for arrays, so that == means bit for bit."""
    out: dict[str, object] = {}

    def walk(name, value):
        if isinstance(value, dict):
            for key, item in value.items():
                walk(f"{name}.{key}", item)
        elif isinstance(value, (list, tuple)):
            for i, item in enumerate(value):
                walk(f"{name}[{i}]", item)
        elif isinstance(value, (torch.Tensor, np.ndarray)):
            out[name] = np.asarray(
                value.detach() if isinstance(value, torch.Tensor) else value
            ).tobytes()
        else:
            out[name] = value

    walk("", ppo.state_dict())
    return out


def test_correlated_noise_is_standard_normal_at_each_step_and_runs_on_over_rollouts(point_env):
    ppo = PPO(point_env(), replace(SMALL, noise_correlation=0.8))
    noise = torch.cat([ppo._noise() for _ in range(200)])  # 200 rollouts of 16 steps
    assert noise.shape == (3200, 32, 2)
    assert noise.std() == pytest.approx(1.0, abs=0.02) and abs(noise.mean()) < 0.02
    for lag in (1, 2):
        assert (noise[:-lag] * noise[lag:]).mean() == pytest.approx(0.8**lag, abs=0.02)
    seam = noise[15:-1:16] * noise[16::16]  # last step of a rollout, first of the next
    assert seam.mean() == pytest.approx(0.8, abs=0.05)
    with pytest.raises(ValueError, match=r"noise_correlation must be in \[0, 1\), got 1"):
        PPOConfig(noise_correlation=1)


@pytest.mark.parametrize("stop", [1, 2, 3, 5, 7])
def test_resumed_training_is_bit_for_bit_the_uninterrupted_one(point_env, tmp_path, stop):
    config = replace(
        SMALL, scale_reward=True, sil_coef=0.1, lr_schedule="linear", sil_capacity=2000,
        noise_correlation=0.5, sil_cell_m=0.5, final_std=0.2,
    )  # fmt: skip
    rollout, total = 16 * 32, 8 * 16 * 32

    def fresh(seed):
        return PPO(
            point_env(seed=seed), config, curiosity.make("count-rnd", 6, 2, num_envs=32), seed
        )

    whole = fresh(3).learn(total)
    first = fresh(3)
    first.learn(total, lambda m: m["updates"] == stop, checkpoints=tmp_path)
    assert first.steps == stop * rollout
    second = fresh(99).load(tmp_path)  # its own seed must not matter
    assert everything(second) == everything(first)
    second.learn(total)
    want, got = everything(whole), everything(second)
    assert {k for k in want if want[k] != got.get(k)} == set() and want.keys() == got.keys()
    assert any("bonus" in k or "intrinsic" in k for k in want) and any("rng" in k for k in want)
    assert everything(fresh(4).learn(total))[".net.actor.0.weight"] != want[".net.actor.0.weight"]


def test_a_checkpoint_of_another_setup_is_refused(point_env, tmp_path):
    PPO(point_env(), SMALL).learn(512, checkpoints=tmp_path)
    with pytest.raises(ValueError, match="intrinsic must be on or off as in the checkpoint"):
        PPO(point_env(), SMALL, curiosity.make("count", 6, 2, num_envs=32)).load(tmp_path)
    assert len(list(tmp_path.glob("checkpoint-*"))) == 1
    with pytest.raises(checkpoint.CheckpointError):
        PPO(point_env(), SMALL).load(tmp_path / "nowhere")


def test_continues_from_a_given_network(point_env):
    good = PPO(point_env(), replace(SMALL, num_steps=32, minibatch=256), seed=1).learn(60_000).net
    seen = []
    PPO(point_env(seed=5), SMALL, seed=2, net=good).learn(4096, lambda m: seen.append(m))
    assert seen[-1]["success"] > 0.9
    with pytest.raises(ValueError, match="net must map 4 observations to 2 actions, got 5 to 2"):
        PPO(point_env(), SMALL, net=ActorCritic(5, 2))


def finite(ppo: PPO) -> bool:
    return all(bool(p.isfinite().all()) for p in ppo.net.state_dict().values())


def test_the_critic_may_learn_first(point_env):
    ppo = PPO(point_env(), replace(SMALL, critic_first=1))
    before = [p.detach().clone() for group in ppo.net.groups() for p in group]
    ppo.learn(1)
    actor, critic = ppo.net.groups()
    changed = [not torch.equal(a, b) for a, b in zip(before, [*actor, *critic], strict=True)]
    assert not any(changed[: len(actor)]) and all(changed[len(actor) :])
    ppo.learn(ppo.steps + 1)
    assert not torch.equal(before[0], actor[0])


def test_missing_rewards_are_counted_and_do_not_spoil_training(point_env):
    seen = []
    config = replace(SMALL, num_steps=32, minibatch=256, scale_reward=True, sil_coef=0.05)
    ppo = PPO(point_env(missing=0.1), config, seed=1)
    ppo.learn(80_000, lambda m: seen.append(m) or m["success"] >= 0.9)
    assert finite(ppo) and seen[-1]["success"] >= 0.9
    assert all(0.03 < m["reward/missing_share"] < 0.2 for m in seen)


def test_too_many_missing_rewards_train_nothing(point_env, caplog):
    ppo = PPO(point_env(missing=0.3), SMALL)
    before = [p.detach().clone() for p in ppo.net.parameters()]
    with caplog.at_level(logging.WARNING):
        ppo.learn(512)
    assert all(torch.equal(a, b) for a, b in zip(before, ppo.net.parameters(), strict=True))
    assert ppo.skipped == 1 and "rewards are missing" in caplog.text


def test_a_missing_reward_is_not_zero(point_env):
    ppo = PPO(point_env(), replace(SMALL, lam=0.0, normalize_obs=False))
    ppo._collect()
    missing = torch.zeros(16, 32, dtype=torch.bool)
    missing[3, 5] = True
    ppo._reward[3, 5] = torch.nan
    advantage, _, _ = ppo._advantages(torch.zeros(16, 32), missing, 0.0)
    assert advantage.isfinite().all()
    assert abs(float(advantage[3, 5])) < 1e-6  # as the critic expected, whatever that was


def test_a_bad_gradient_is_skipped(point_env):
    ppo = PPO(point_env(), SMALL)
    before = ppo.net.log_std.detach().clone()
    ppo._descend(ppo.net.log_std.sum() * torch.tensor(float("nan")))
    assert ppo.skipped == 1 and torch.equal(ppo.net.log_std.detach(), before)


def test_bad_observations_stop_with_a_clear_error(point_env):
    class Broken(point_env):
        def _obs(self):
            obs = super()._obs()
            obs[3, 1] = np.nan
            return obs

    ppo = PPO(Broken(), SMALL)
    with pytest.raises(FloatingPointError, match="obs must be finite, got NaN .* in 1 of 32"):
        ppo.learn(512)
    assert finite(ppo)


def test_learning_rate_schedules(point_env):
    rates = []
    PPO(point_env(), replace(SMALL, lr_schedule="linear", lr=1e-3)).learn(
        2048, lambda m: rates.append(m["loss/lr"])
    )
    assert rates == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])
    rates.clear()
    adaptive = replace(SMALL, lr_schedule="adaptive", lr=5e-3, target_kl=1e-6)
    PPO(point_env(), adaptive).learn(2048, lambda m: rates.append(m["loss/lr"]))
    assert rates == sorted(rates, reverse=True) and rates[-1] < rates[0] < 5e-3


def test_action_noise_falls_to_its_final_std(point_env):
    noise = []
    calm = replace(SMALL, final_std=0.1, init_log_std=-0.5, ent_coef=0.0, lr=1e-9)
    ppo = PPO(point_env(), calm)
    ppo.learn(2048, lambda m: noise.append(m["loss/std"]))
    line = -0.5 + np.array([0, 1, 2, 3]) / 3 * (np.log(0.1) + 0.5)
    assert np.log(noise) == pytest.approx(line, abs=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"final_std": 0.0}, "final_std must be > 0 or None"),
        ({"num_steps": 0}, "sizes must be >= 1"),
        ({"gamma": 1.0}, "gamma and int_gamma"),
        ({"lam": 1.1}, "lam and max_missing"),
        ({"lr": float("nan")}, "rates must be > 0"),
        ({"sil_coef": -1.0}, "weights >= 0"),
        ({"target_kl": 0.0}, "target_kl must be > 0"),
        ({"lr_schedule": "cosine"}, "got 'cosine'"),
    ],
)
def test_config_refuses_nonsense(change, words):
    with pytest.raises(ValueError, match=words):
        replace(SMALL, **change)


def test_network_refuses_a_wrong_shape():
    with pytest.raises(ValueError, match=r"obs must be \(B, 4\), got \(3, 5\)"):
        ActorCritic(4, 2).act(np.zeros((3, 5)))


class Seeing(ActorCritic):
    """Looks at nothing but the first pixel of each frame."""

    def whitener(self):
        plain = super().whitener()
        return lambda obs: obs | {"state": plain(obs["state"])}

    def sampler(self):
        sample = super().sampler()
        return lambda x, memory, noise: sample(self._numbers(x), memory, noise)

    def log_prob(self, x, trace, memory=None):
        return super().log_prob(self._numbers(x), trace)

    def value(self, x, memory=None):
        return super().value(self._numbers(x))

    def evaluate(self, x, trace, memory, first):
        return self.log_prob(x, trace), self.value(x)

    def _numbers(self, x):
        assert x["frames"].dtype == torch.uint8 and x["frames"].shape[1:] == (1, 2, 2, 3)
        return torch.cat([x["state"][:, :2], x["frames"][:, 0, 0, 0, :2].float() / 127.5 - 1], 1)


def test_an_environment_with_cameras_is_learned_from(point_env):
    """The goal, from -1 to 1, is to be seen in the frames alone."""

    class Cameras:
        def __init__(self):
            self.env = point_env(32)
            self.spec = replace(self.env.spec, frames=(1, 2, 2, 3))

        def _obs(self, flat):
            goal = (flat[:, 2:] + flat[:, :2] + 1) * 127.5
            frames = np.zeros((len(flat), 1, 2, 2, 3), np.uint8)
            frames[:, 0, 0, 0, :2] = np.clip(np.round(goal), 0, 255)
            state = np.concatenate([flat[:, :2], np.zeros_like(flat[:, 2:])], axis=1)
            return {"state": state, "frames": frames}

        def reset(self):
            return self._obs(self.env.reset())

        def explore(self):
            return self.env.explore()

        def step(self, action):
            step = self.env.step(action)
            return replace(step, obs=self._obs(step.obs), final_obs=self._obs(step.final_obs))

    told: list[dict[str, float]] = []
    config = replace(SMALL, num_steps=32, minibatch=256)
    PPO(Cameras(), config, net=Seeing(4, 2, (32, 32)), seed=1).learn(40_000, told.append)
    first, last = told[0], told[-1]
    assert last["success"] > 0.9
    assert last["episode_length"] < 0.6 * first["episode_length"]


def test_settings_that_a_policy_cannot_follow_are_refused(point_env):
    class Other(ActorCritic):
        memory_dim = 3

    with pytest.raises(ValueError, match="multiple of sequence"):
        PPO(point_env(), replace(SMALL, sequence=5), net=Other(4, 2))
    with pytest.raises(ValueError, match="sil_coef"):
        PPO(point_env(), replace(SMALL, sil_coef=0.1), net=Policy(4, 2))
