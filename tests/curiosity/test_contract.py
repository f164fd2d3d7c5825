"""What every bonus promises, checked on every name that `make` knows."""

from __future__ import annotations

import copy
import io
import subprocess
import sys

import pytest
import torch

from curiosity import NAMES, IntrinsicReward, Transition, make


def _bits(bonus: IntrinsicReward) -> bytes:
    buffer = io.BytesIO()
    torch.save(bonus.state_dict(), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_reward_has_the_shape_of_the_rollout(name, walk):
    tr = walk(7, 4)
    bonus = make(name, 6, 2, num_envs=4)
    reward = bonus.compute(tr)
    assert reward.shape == (7, 4) and reward.dtype == torch.float32
    assert not reward.requires_grad
    assert bool((reward >= 0).all()) and bool((reward > 0).any())
    step = bonus.observe(tr[0])
    assert step.shape == (4,) and step.dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_compute_changes_nothing(name, walk):
    bonus = make(name, 6, 2, num_envs=4)
    bonus.update(walk(16, 4))
    before, global_rng = _bits(bonus), torch.get_rng_state()
    first = bonus.compute(walk(16, 4, seed=1))
    assert torch.equal(first, bonus.compute(walk(16, 4, seed=1)))
    assert _bits(bonus) == before
    assert torch.equal(global_rng, torch.get_rng_state())


@pytest.mark.parametrize("name", NAMES)
def test_compute_equals_observing_in_time_order(name, walk):
    bonus = make(name, 6, 2, num_envs=4)
    bonus.update(walk(16, 4))  # before it, a normalized bonus scales a rollout by itself
    tr = walk(16, 4, seed=1)
    rollout = bonus.compute(tr)
    steps = torch.stack([bonus.observe(tr[t]) for t in range(16)])
    torch.testing.assert_close(steps, rollout, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [("count", {}), ("count-episodic", {}), ("e3b", {"embedding": "fourier"})],
)
def test_update_remembers_what_observing_remembers(name, options, walk):
    """After a rollout either way, a bonus without networks pays the same for what comes next."""
    tr, then = walk(16, 4), walk(16, 4, seed=1)
    by_rollout, by_step = (make(name, 6, 2, num_envs=4, **options) for _ in range(2))
    by_rollout.update(tr)
    for t in range(16):
        by_step.observe(tr[t])
    torch.testing.assert_close(by_rollout.compute(then), by_step.compute(then))


@pytest.mark.parametrize("name", NAMES)
def test_save_and_load_give_the_next_reward_bit_for_bit(name, walk, tmp_path):
    bonus = make(name, 6, 2, num_envs=4, seed=3)
    for seed in range(2):
        bonus.update(walk(16, 4, seed=seed))
    torch.save(bonus.state_dict(), tmp_path / "bonus.pt")
    again = make(name, 6, 2, num_envs=4, seed=99)
    again.load_state_dict(torch.load(tmp_path / "bonus.pt", weights_only=True))
    tr = walk(16, 4, seed=2)
    assert torch.equal(bonus.compute(tr), again.compute(tr))
    assert bonus.update(tr) == again.update(tr)
    after = walk(16, 4, seed=3)
    assert torch.equal(bonus.compute(after), again.compute(after))


@pytest.mark.parametrize("name", NAMES)
def test_one_row_equals_that_row_of_64(name, walk):
    """Rows far apart share no cells; the row counts and ellipses must not leak into each other."""
    wide = walk(12, 64)
    shift = torch.zeros(64, 6)
    shift[:, :2] = torch.arange(64)[:, None] * 1000.0
    wide = Transition(
        wide.obs + shift, wide.action, wide.next_obs + shift, wide.terminated, wide.truncated
    )
    many, one = make(name, 6, 2, num_envs=64), make(name, 6, 2, num_envs=1)
    warm = walk(12, 64, seed=5)
    many.update(warm)
    shared = copy.deepcopy(many.state_dict())
    for key, value in shared.items():
        if key.endswith("inverse_cov"):
            shared[key] = value[17:18]
        elif name == "count-episodic":
            shared = one.state_dict()
    one.load_state_dict(shared)
    if name == "count-episodic":
        many.reset()
    alone, among = one.compute(wide[:, 17:18]), many.compute(wide)[:, 17:18]
    torch.testing.assert_close(alone, among, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_bonus_whatever_the_global_generator(name, walk):
    torch.manual_seed(1)
    first = make(name, 6, 2, num_envs=4, seed=7)
    torch.manual_seed(2)
    second = make(name, 6, 2, num_envs=4, seed=7)
    tr = walk(16, 4)
    assert first.update(tr) == second.update(tr)
    assert torch.equal(first.compute(tr), second.compute(tr))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "icm"])
def test_seen_states_become_dull(name, walk):
    """ICM pays for surprise instead, see test_icm.py."""
    bonus = make(name, 6, 2, num_envs=4)
    tr = walk(64, 4, stride_m=0.3, done_rate=0.0)
    bonus.update(tr)
    early = bonus.compute(tr)
    for _ in range(30):
        bonus.update(tr)
    assert float(bonus.compute(tr).mean()) < 0.5 * float(early.mean())


@pytest.mark.parametrize("name", NAMES)
def test_the_terminal_state_earns_its_bonus(name, walk):
    """The last state of an episode is paid for as the same state in mid-episode would be."""
    bonus = make(name, 6, 2, num_envs=4)
    bonus.update(walk(16, 4, done_rate=0.0))
    tr = walk(1, 4, seed=1, done_rate=0.0)
    ended = Transition(tr.obs, tr.action, tr.next_obs, ~tr.terminated, tr.truncated)
    assert torch.equal(bonus.compute(tr), bonus.compute(ended))


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_is_refused_and_not_remembered(name, walk):
    bonus = make(name, 6, 2, num_envs=4)
    bonus.update(walk(4, 4))
    before = _bits(bonus)
    tr = walk(4, 4)
    after = tr.next_obs.clone()
    after[2, 1, 0] = float("nan")
    nan = Transition(tr.obs, tr.action, after, tr.terminated, tr.truncated)
    for bad, word in (
        (nan, "next_obs must be finite"),
        (walk(4, 4)[0], "leading shape"),
        (Transition(*(torch.zeros(4, 4, 5),) * 3, *(torch.zeros(4, 4),) * 2), "obs_dim"),
    ):
        with pytest.raises(ValueError, match=word):
            bonus.compute(bad)
        with pytest.raises(ValueError, match=word):
            bonus.update(bad)
    with pytest.raises(ValueError, match="leading shape"):
        bonus.observe(walk(4, 4))
    assert _bits(bonus) == before


@pytest.mark.parametrize("name", ["count-episodic", "e3b"])
def test_a_swapped_rollout_of_an_episodic_bonus_is_refused(name, walk):
    bonus = make(name, 6, 2, num_envs=4)
    with pytest.raises(ValueError, match="4 rows"):
        bonus.compute(walk(4, 16))


@pytest.mark.parametrize("name", ["count-episodic", "e3b"])
def test_reset_forgets_the_named_rows_only(name, walk):
    bonus = make(name, 6, 2, num_envs=4)
    tr = walk(16, 4, done_rate=0.0)
    fresh = bonus.compute(tr)
    for t in range(16):
        bonus.observe(tr[t])
    bonus.reset([1, 3])
    again = bonus.compute(tr)
    assert torch.allclose(again[:, [1, 3]], fresh[:, [1, 3]])
    assert bool((again[:, [0, 2]].sum(0) < 0.9 * fresh[:, [0, 2]].sum(0)).all())
    bonus.reset()
    assert torch.allclose(bonus.compute(tr), fresh)
    with pytest.raises(ValueError, match=r"env_ids must be in \[0, 4\)"):
        bonus.reset([4])


def test_names_and_options_are_checked():
    with pytest.raises(ValueError, match="name must be one of count, .* got 'novelty'"):
        make("novelty", 6, 2)
    with pytest.raises(ValueError, match="options must be among .*cell_m.* got cel_m"):
        make("count", 6, 2, cel_m=1.0)
    with pytest.raises(ValueError, match="cell_m"):
        make("count", 6, 2, cell_m=0.0)
    for name in NAMES:
        with pytest.raises(ValueError, match="got bogus"):
            make(name, 6, 2, bogus=1)
        with pytest.raises(ValueError, match="scale must be > 0|scale"):
            make(name, 6, 2, scale=-1.0)


@pytest.mark.parametrize("name", NAMES)
def test_scale_is_a_factor(name, walk):
    tr = walk(8, 4)
    once, thrice = make(name, 6, 2, num_envs=4), make(name, 6, 2, num_envs=4, scale=3.0)
    torch.testing.assert_close(3 * once.compute(tr), thrice.compute(tr))


@pytest.mark.parametrize("name", NAMES)
def test_other_widths_work_too(name):
    g = torch.Generator().manual_seed(0)
    state, flag = torch.randn(5, 3, 11, generator=g), torch.zeros(5, 3, dtype=torch.bool)
    tr = Transition(state, torch.zeros(5, 3, 1), state + 1, flag, flag)
    bonus = make(name, 11, 1, num_envs=3)
    bonus.update(tr)
    assert bool(torch.isfinite(bonus.compute(tr)).all())


def test_transition_names_the_field_that_does_not_fit():
    flag = torch.zeros(5, 3)
    with pytest.raises(ValueError, match="action must be"):
        Transition(torch.zeros(5, 3, 2), torch.zeros(5, 4, 2), torch.zeros(5, 3, 2), flag, flag)
    with pytest.raises(ValueError, match="truncated must be"):
        Transition(*(torch.zeros(5, 3, 2),) * 3, flag, flag[0])
    with pytest.raises(ValueError, match=r"next_obs must be \(5, 3, 2\) like obs"):
        Transition(*(torch.zeros(5, 3, 2),) * 2, torch.zeros(5, 3, 4), flag, flag)


def test_the_room_needs_numpy_and_torch_alone():
    """Bonuses are built from sizes: no simulator, no environment library is even imported."""
    code = (
        "import sys, curiosity\n"
        "bad = {'mujoco', 'gymnasium', 'sim', 'learning', 'numba'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
