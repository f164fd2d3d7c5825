"""Self-imitation: which steps are kept, what they are worth, and that they pull the policy."""

from __future__ import annotations

import pytest
import torch

from learning.ppo import ActorCritic
from learning.self_imitation import SelfImitation, without_loops
from learning.vec_env import EnvSpec

SPEC = EnvSpec(2, 1, 1, 6, 0.05, 50)


def add(sil: SelfImitation, first: int, reward, done, success, length, place=None) -> None:
    """A rollout of 2 environments whose observation tells time and row: 10 t + n."""
    reward = torch.tensor(reward, dtype=torch.float32)
    t = first + torch.arange(len(reward), dtype=torch.float32)
    obs = (10 * t[:, None] + torch.arange(2.0))[..., None]
    flags = (torch.tensor(x, dtype=torch.bool) for x in (done, success))
    place = None if place is None else torch.tensor(place)
    sil.add(obs, obs / 100, reward, *flags, torch.tensor(length), place)


def kept(sil: SelfImitation) -> dict[float, float]:
    state = sil.state_dict()["kept"]
    return dict(zip(state[0].flatten().tolist(), state[2].tolist(), strict=True))


def test_only_successes_are_kept_with_returns_by_hand():
    sil = SelfImitation(SPEC, num_steps=3, gamma=0.5, capacity=10, horizon=10)
    # row 0 succeeds at t = 1 after two steps; row 1 ends at t = 2 without success
    add(sil, 0, [[1, 5], [4, 5], [9, 5]], [[0, 0], [1, 0], [0, 1]], [[0, 0], [1, 0], [0, 0]],
        [[1, 1], [2, 2], [1, 3]])  # fmt: skip
    assert kept(sil) == {0.0: 1 + 0.5 * 4, 10.0: 4.0}


def test_a_success_whose_return_overflows_is_left_out_and_said(caplog):
    sil = SelfImitation(SPEC, num_steps=2, gamma=0.99, capacity=10, horizon=10)
    add(sil, 0, [[3e38, 1], [3e38, 1]], [[0, 0], [1, 1]], [[0, 0], [1, 1]], [[1, 1], [2, 2]])
    assert kept(sil) == {1.0: pytest.approx(1.99), 11.0: 1.0}
    assert "overflows" in caplog.text


def test_an_episode_may_span_rollouts_and_keeps_its_last_steps():
    sil = SelfImitation(SPEC, num_steps=2, gamma=0.5, capacity=10, horizon=3)
    none = [[0, 0], [0, 0]]
    for i in range(3):
        add(sil, 2 * i, none, none, none, [[2 * i + 1, 1], [2 * i + 2, 1]])
    add(sil, 6, [[0, 0], [8, 0]], [[0, 0], [1, 0]], [[0, 0], [1, 0]], [[7, 1], [8, 1]])
    assert kept(sil) == {50.0: 2.0, 60.0: 4.0, 70.0: 8.0}


@pytest.mark.parametrize(
    ("walk", "left"),
    [
        ([1, 1, 2, 3], [0, 1, 2, 3]),
        ([1, 2, 3, 2, 4], [0, 3, 4]),  # in and out of 3
        ([1, 2, 3, 4, 2, 5, 1, 6, 6], [6, 7, 8]),  # back at the start, and off another way
        ([1, 2, 2, 3, 4, 3, 2, 5], [0, 6, 7]),
        ([], []),
    ],
)
def test_loops_are_cut_out_of_a_walk(walk, left):
    assert without_loops(walk) == left


def test_what_led_into_a_dead_end_is_no_example_and_costs_no_discount():
    sil = SelfImitation(SPEC, num_steps=4, gamma=0.5, capacity=10, horizon=10)
    never = [0, 0, 0]
    add(sil, 0, [[1, 0], [1, 0], [1, 0], [8, 0]], [*zip(never, never, strict=True), [1, 0]],
        [*zip(never, never, strict=True), [1, 0]], [[1, 1], [2, 2], [3, 3], [4, 4]],
        [[7, 0], [9, 0], [7, 0], [5, 0]])  # fmt: skip
    assert kept(sil) == {20.0: 1 + 0.5 * 8, 30.0: 8.0}


def test_the_oldest_go_when_it_is_full():
    sil = SelfImitation(SPEC, num_steps=2, gamma=0.5, capacity=3, horizon=10)
    ends = [[0, 0], [1, 0]]
    for i in range(2):
        add(sil, 2 * i, [[0, 0], [1, 0]], ends, ends, [[1, 1], [2, 1]])
    assert len(sil) == 3 and set(kept(sil)) == {10.0, 20.0, 30.0}


def test_the_loss_pulls_towards_actions_that_did_better_and_no_others():
    torch.manual_seed(0)
    sil = SelfImitation(SPEC, 2, 0.5, 10, 10)
    net = ActorCritic(1, 1, (8,))
    obs, action = torch.tensor([[0.5], [0.5]]), torch.tensor([[0.6], [-0.9]])
    value = net.critic(net.normalize(obs))[0, 0].detach()
    returns = torch.stack([value + 0.5, value - 5])  # the second did worse than expected
    before = float(net.log_std.detach())
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        sil.loss(net, obs, action, returns).backward()
        optimizer.step()
    after = net.critic(net.normalize(obs))[0, 0].detach()
    assert net.act(obs[:1].numpy())[0, 0] == pytest.approx(0.6, abs=0.05)
    assert value + 0.3 < after < value + 1  # up to the better return, never down to the worse
    assert float(net.log_std.detach()) == before


def test_loss_by_hand():
    sil = SelfImitation(SPEC, 2, 0.5, 10, 10)
    net = ActorCritic(1, 1, (8,), init_log_std=0.0)
    for layer in (net.actor[-1], net.critic[-1]):
        torch.nn.init.zeros_(layer.weight)  # mean 0, value 0, std 1
    obs, action = torch.zeros(3, 1), torch.tensor([[1.0], [1.0], [4.0]])
    # -log pi = 1/2 + 0.919; gains 0.5, 3 (cut at 1), 0.5 (left out: -log pi = 8.9 > 5)
    got = sil.loss(net, obs, action, torch.tensor([0.5, 3.0, 0.5]))
    want = (1.5 * 1.419 + 1.0 * (0.125 + 2.5 + 0.125)) / 3
    assert float(got.detach()) == pytest.approx(want, rel=1e-5)


def test_drawing_from_nothing_is_an_error():
    with pytest.raises(ValueError, match="no successful episode"):
        SelfImitation(SPEC, 2, 0.5, 10, 10).sample(4, torch.Generator())
