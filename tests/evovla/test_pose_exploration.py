"""Pose-based exploration: its equations, its guards, and a model that learns a six-axis arm."""

from __future__ import annotations

import copy
import io

import mujoco
import numpy as np
import pytest
import torch

from curiosity import Transition
from evovla.pose import TOOL_DOWN_QUAT_WXYZ, relative_pose_wxyz
from evovla.pose_exploration import STATE, PoseExploration, PoseExplorationConfig
from sim.tabletop.arm import inverse
from sim.tabletop.engine import Tabletop

torch.set_num_threads(1)
STEP = 0.06
"""Rad that a joint may turn in a step here."""


def rollout(steps, envs, seed=0, switch=False):
    """Poses that move at random, of object 0; at step 3 of row 1 another object, if asked."""
    g = torch.Generator().manual_seed(seed)
    z = (0.05 * torch.randn(steps + 1, envs, 7, generator=g)).cumsum(0)
    z[..., 6] = 0
    action = torch.rand(steps, envs, 7, generator=g) * 2 - 1
    no = torch.zeros(steps, envs, dtype=torch.bool)
    obs, after = z[:-1].clone(), z[1:].clone()
    if switch:
        after[3, 1] = torch.tensor([1.0, -2.0, 0.5, 3.0, 3.0, 3.0, 1.0])
        obs[4:, 1, 6] = after[4:, 1, 6] = 1.0
    return Transition(obs, action, after, no, no)


def paying(**options):
    """A bonus that pays from the first update on."""
    return PoseExploration(PoseExplorationConfig(**{"warmup": 0, "hidden": 32, **options}))


def bits(bonus):
    buffer = io.BytesIO()
    torch.save(bonus.state_dict(), buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def arm():
    """40 rows of 500 steps: our arm turns its joints at random near an upright cube, which moves
    with the hand while that is shut around it. The joint angles are the context."""
    rng, table = np.random.default_rng(0), Tabletop()
    data, steps, rows = table.data, 500, 40
    grip, joints = np.zeros((steps + 1, rows, 7)), np.zeros((steps + 1, rows, 6))
    action = rng.uniform(-1, 1, (steps, rows, 7))
    home = inverse((0.3, 0.0, 0.1), 0.0)
    for n in range(rows):
        q = home
        for t in range(steps + 1):
            data.qpos[table._arm_q] = q
            mujoco.mj_kinematics(table.model, data)
            grip[t, n, :3] = data.site_xpos[table._grip]
            mujoco.mju_mat2Quat(grip[t, n, 3:], data.site_xmat[table._grip])
            joints[t, n] = q
            if t < steps:
                action[t, n, :6] += home - q
                q = q + STEP * action[t, n, :6]
    z = np.zeros((steps + 1, rows, 6))
    thing = np.tile([0.3, 0, 0.1, 1, 0, 0, 0], (rows, 1)) + 0.0
    thing[:, :3] += rng.normal(0, 0.03, (rows, 3))
    z[0] = relative_pose_wxyz(grip[0], thing, TOOL_DOWN_QUAT_WXYZ)
    for t in range(steps):
        held = (action[t, :, 6] > 0) & (np.linalg.norm(z[t, :, 3:], axis=1) < 0.03)
        for n in np.flatnonzero(held):
            thing[n] = moved_along(grip[t, n], grip[t + 1, n], thing[n])
        z[t + 1] = relative_pose_wxyz(grip[t + 1], thing, TOOL_DOWN_QUAT_WXYZ)
    states = np.concatenate([z, np.zeros((steps + 1, rows, 1)), joints], axis=2)
    no = np.zeros((steps, rows), bool)
    return Transition.from_numpy(states[:-1], action, states[1:], no, no)


def moved_along(before, after, thing):
    """Where a thing is after the hand that holds it went from one pose to another."""
    out, back, there = np.zeros(7), np.zeros(7), np.zeros(7)
    mujoco.mju_negPose(back[:3], back[3:], before[:3], before[3:])
    mujoco.mju_mulPose(there[:3], there[3:], back[:3], back[3:], thing[:3], thing[3:])
    mujoco.mju_mulPose(out[:3], out[3:], after[:3], after[3:], there[:3], there[3:])
    return out


@pytest.mark.slow
def test_the_model_learns_our_arm_in_20_000_transitions(arm):
    """Error on transitions not yet learned from, over that of a model that has learned nothing."""
    bonus = PoseExploration(PoseExplorationConfig(num_envs=40, context_dim=6))
    logs = [bonus.update(arm[t : t + 50]) for t in range(0, 500, 50)]
    assert logs[0]["unexplained"] == pytest.approx(1), "at first: nothing moves"
    assert logs[-1]["unexplained"] < 0.1
    assert logs[-1]["unexplained_pose"] < 0.01 < logs[0]["unexplained_pose"]
    assert logs[-1]["inverse_loss"] < 0.3 < 1, "and the pose answers to the action"
    assert logs[-1]["replay"] == 20_000


def test_error_and_curiosity_by_hand():
    """A fresh model says "nothing moves", in standard deviations of 1: half the squares."""
    bonus = paying(num_envs=1, clip=10.0, deadband=0.0, progress_weight=0.0, scale=3.0)
    z = torch.zeros(1, 1, 7)
    after = torch.tensor([[[0.0, 0.0, 0.2, 3.0, -4.0, 0.0, 0.0]]])
    no = torch.zeros(1, 1, dtype=torch.bool)
    tr = Transition(z, torch.zeros(1, 1, 7), after, no, no)
    assert bonus.terms(tr).error.item() == pytest.approx(0.5 * (0.04 + 9 + 16))
    bonus.error_stat.update(torch.tensor([0.0, 10.0]))  # std 5
    assert bonus.compute(tr).item() == pytest.approx(3 * 0.5 * 25.04 / 5, rel=1e-5)


def test_progress_is_the_fall_of_the_smoothed_loss_by_hand():
    bonus = paying(num_envs=2, smoothing=0.5)
    error = torch.tensor([[4.0, 1.0], [2.0, 3.0], [1.0, 1.0]])
    known, done = torch.ones(3, 2, dtype=torch.bool), torch.zeros(3, 2, dtype=torch.bool)
    fall, loss, running = bonus._falls(error, known, done)
    torch.testing.assert_close(fall, torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.5]]))
    torch.testing.assert_close(loss, torch.tensor([2.0, 1.5]))
    done[0, 0] = True  # the next error of row 0 begins a new episode
    assert bonus._falls(error, known, done)[0][:, 0].tolist() == [0.0, 0.0, 0.5]
    known[1, 0] = False  # as a stage's change of object does
    done[0, 0] = False
    assert bonus._falls(error, known, done)[0][:, 0].tolist() == [0.0, 0.0, 0.0]
    assert bool(running.all())


def test_another_object_is_not_motion():
    bonus, plain = paying(num_envs=4), paying(num_envs=4)
    tr, same = rollout(12, 4, seed=1, switch=True), rollout(12, 4, seed=1)
    for b in (bonus, plain):
        b.update(rollout(12, 4))
        b.update(rollout(12, 4, seed=2))
    terms, want = bonus.terms(tr), plain.terms(same)
    assert not bool(terms.known[3, 1]) and int((~terms.known).sum()) == 1
    assert terms.error[3, 1] == 0 and float(bonus.compute(tr)[3, 1]) == 0
    others = torch.ones(12, 4, dtype=torch.bool)
    others[3, 1] = False
    assert torch.equal(terms.error[others], want.error[others])
    assert terms.fall[4, 1] == 0, "the smoothed loss begins anew with the new object"
    log = bonus.update(tr)
    assert log["known_share"] == pytest.approx(47 / 48) and log["replay"] == 3 * 48 - 1
    assert float(bonus.model.motion.var.max()) < 1, "the jump is in no statistics"


def test_an_object_that_is_not_seen_is_not_paid_for():
    bonus = paying(num_envs=4)
    bonus.update(rollout(12, 4))
    tr = rollout(12, 4, seed=1)
    tr.obs[..., 6] = tr.next_obs[..., 6] = -1.0
    before = copy.deepcopy(bonus.replay)
    assert float(bonus.compute(tr).abs().max()) == 0
    log = bonus.update(tr)
    assert log["known_share"] == 0 and torch.equal(bonus.replay, before)
    assert bool(torch.isfinite(torch.tensor(list(log.values()))).all())


def test_the_gate_closes_progress_alone():
    bonus = paying(num_envs=4)
    for seed in range(3):
        bonus.update(rollout(12, 4, seed=seed))
    tr = rollout(12, 4, seed=9)
    free, shut = bonus.terms(tr), bonus.terms(tr, torch.zeros(12, 4))
    assert float(free.progress.sum()) > 0 and float(shut.progress.sum()) == 0
    assert torch.equal(free.curiosity, shut.curiosity)
    gate = torch.rand(12, 4, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    half = bonus.terms(tr, gate)
    assert torch.equal(half.progress, free.progress * gate.detach())
    assert not half.progress.requires_grad, "the reward does not teach the gate"
    want = half.curiosity + half.progress
    assert torch.equal(bonus.compute(tr, gate), want)
    assert bonus.update(tr, gate)["gate"] == pytest.approx(float(gate.mean()))
    with pytest.raises(ValueError, match=r"gate must be \(12, 4\)"):
        bonus.compute(tr, torch.ones(4))
    with pytest.raises(ValueError, match=r"gate must be in \[0, 1\], got .* to 2"):
        bonus.compute(tr, 2 * torch.ones(12, 4))


def test_nothing_is_paid_while_it_warms_up_and_curiosity_then_decays():
    bonus = paying(num_envs=4, warmup=3, decay_from=4, decay_to=6, decay_floor=0.2)
    shares, tr = [], rollout(12, 4, seed=99)
    for seed in range(8):
        shares.append(bonus.decay)
        assert (float(bonus.compute(tr).max()) > 0) == (seed >= 3)
        bonus.update(rollout(12, 4, seed=seed))
    assert shares == pytest.approx([0, 0, 0, 1, 1, 0.6, 0.2, 0.2])


def test_rewards_are_cut_at_the_clip_and_below_the_deadband():
    bonus = paying(num_envs=4, clip=0.7, deadband=0.5)
    for seed in range(3):
        bonus.update(rollout(12, 4, seed=seed))
    terms = bonus.terms(rollout(12, 4, seed=3))
    for paid in (terms.curiosity, terms.progress):
        assert float(paid.max()) <= 0.7 + 1e-6
        assert float(paid[paid > 0].min()) >= 0.5
    raw = terms.error / float(bonus.error_stat.std)
    assert bool((raw < 0.5).any()) and bool((raw > 0.7).any())


def test_computing_equals_observing_and_changes_nothing():
    bonus = paying(num_envs=4)
    for seed in range(3):
        bonus.update(rollout(12, 4, seed=seed))
    tr, gate = rollout(12, 4, seed=3), torch.full((12, 4), 0.5)
    ended = torch.zeros(12, 4, dtype=torch.bool)
    ended[5, 2] = True
    tr = Transition(tr.obs, tr.action, tr.next_obs, ended, tr.truncated)
    before = bits(bonus)
    reward = bonus.compute(tr, gate)
    assert bits(bonus) == before
    steps = torch.stack([bonus.observe(tr[t], gate[t]) for t in range(12)])
    torch.testing.assert_close(steps, reward, rtol=1e-5, atol=1e-6)


def test_a_run_goes_on_bit_for_bit():
    whole = paying(num_envs=4, replay=100)
    for seed in range(3):
        whole.update(rollout(12, 4, seed=seed))
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    file.seek(0)
    again = paying(num_envs=4, replay=100, seed=7)
    again.load_state_dict(torch.load(file, weights_only=True))
    for seed in range(3, 6):
        tr = rollout(12, 4, seed=seed)
        assert torch.equal(whole.compute(tr), again.compute(tr))
        assert whole.update(tr) == again.update(tr)
    assert bits(whole) == bits(again)


def test_rows_do_not_know_of_one_another():
    bonus, one = paying(num_envs=4), paying(num_envs=1)
    for seed in range(3):
        bonus.update(rollout(12, 4, seed=seed))
    state = bonus.state_dict()
    state["loss"], state["running"] = state["loss"][2:3], state["running"][2:3]
    one.load_state_dict(state)
    tr = rollout(12, 4, seed=3)
    torch.testing.assert_close(one.compute(tr[:, 2:3])[:, 0], bonus.compute(tr)[:, 2])


def test_reset_forgets_the_smoothed_loss_of_the_named_rows_only():
    bonus = paying(num_envs=4)
    bonus.update(rollout(12, 4))
    bonus.loss.fill_(1e6)  # any error now is a great fall
    tr = rollout(1, 4, seed=1)
    bonus.reset([1, 3])
    assert (bonus.terms(tr).fall[0] > 0).tolist() == [True, False, True, False]
    bonus.reset()
    assert float(bonus.terms(tr).fall.sum()) == 0
    with pytest.raises(ValueError, match=r"env_ids must be in \[0, 4\)"):
        bonus.reset([4])


def test_the_replay_keeps_the_latest():
    bonus = paying(num_envs=4, replay=50)
    for seed in range(2):
        tr = rollout(12, 4, seed=seed)
        bonus.update(tr)
    action = tr.action.flatten(0, 1)
    kept = bonus.replay[:, 6:13]
    assert bool((action[:, None] == kept[None]).all(-1).any(1).all()), (
        "all 48 of the last are there"
    )
    huge = rollout(60, 4, seed=5)
    bonus.update(huge)
    kept = bonus.replay[:, 6:13]
    assert bool((huge.action.flatten(0, 1)[-50:, None] == kept[None]).all(-1).any(1).all())


def test_half_a_turn_is_no_surprise():
    """A thing a little beyond half a turn and a little before it: a small motion, not a jump."""
    bonus = paying(num_envs=1)
    no = torch.zeros(1, 1, dtype=torch.bool)
    before = torch.tensor([[[0.0, 0.0, np.pi - 0.01, 0.1, 0.0, 0.0, 0.0]]])
    after = torch.tensor([[[0.0, 0.0, 0.01 - np.pi, 0.1, 0.0, 0.0, 0.0]]])
    bonus.model.motion.update(0.02 * torch.randn(99, 6, generator=torch.Generator().manual_seed(0)))
    error = bonus.terms(Transition(before, torch.zeros(1, 1, 7), after, no, no)).error
    assert error.item() == pytest.approx(0.5, rel=0.3), "0.02 rad in its standard deviation"


def test_states_and_settings_are_checked():
    bonus = paying(num_envs=4)
    assert bonus.obs_dim == len(STATE) == 7
    with pytest.raises(ValueError, match=r"\(obs_dim, action_dim\) must be \(7, 7\)"):
        tr = rollout(3, 4)
        bonus.compute(Transition(tr.obs[..., :6], tr.action, tr.next_obs[..., :6], *[tr.done] * 2))
    with pytest.raises(ValueError, match="transition must have 4 rows"):
        bonus.compute(rollout(3, 2))
    for bad in ({"warmup": 200}, {"smoothing": 1.0}, {"clip": 0.0}, {"context_dim": -1}):
        with pytest.raises(ValueError, match="got"):
            PoseExplorationConfig(**bad)
