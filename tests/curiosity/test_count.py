"""Visit counts against numbers worked by hand and a dictionary."""

from __future__ import annotations

import collections
import math

import numpy as np
import pytest
import torch

from curiosity import Transition, VisitCount, VisitCountConfig, make


def _count(**options):
    return VisitCount(VisitCountConfig(obs_dim=2, **options))


def test_bonus_is_one_over_root_n(path):
    """Four steps in the cell [0, .5) x [0, .5), one in its neighbour."""
    count = _count()
    tr = path([[[0.1, 0.1]], [[0.4, 0.4]], [[-0.1, 0.1]], [[0.0, 0.49]], [[0.2, 0.2]]])
    want = torch.tensor([[1.0], [1 / math.sqrt(2)], [1.0], [1 / math.sqrt(3)], [0.5]])
    torch.testing.assert_close(count.compute(tr), want)
    count.update(tr)
    assert count.cells == 2
    fifth = count.compute(path([[[0.3, 0.3]]]))
    assert float(fifth) == pytest.approx(1 / math.sqrt(5))


def test_rows_of_one_step_are_counted_in_order(path):
    count = _count()
    reward = count.compute(path([[[0.1, 0.1], [0.2, 0.2]], [[0.3, 0.3], [9.0, 9.0]]]))
    torch.testing.assert_close(
        reward, torch.tensor([[1.0, 1 / math.sqrt(2)], [1 / math.sqrt(3), 1.0]])
    )


def test_swapping_time_and_environments_is_noticed(path):
    """Row 1 is in the cell before row 0 comes to it: time order pays the late comer less."""
    places = np.array([[[5.0, 5.0], [0.1, 0.1]], [[0.1, 0.1], [5.0, 5.0]]])
    right = _count().compute(path(places))
    wrong = _count().compute(path(places.transpose(1, 0, 2))).T
    half = 1 / math.sqrt(2)
    torch.testing.assert_close(right, torch.tensor([[1.0, 1.0], [half, half]]))
    torch.testing.assert_close(wrong, torch.tensor([[1.0, half], [1.0, half]]))


def _dictionary(tr, scope, table, episode, cell=0.5):
    """Reference: one step and one row at a time."""
    steps, envs = tr.terminated.shape
    out = np.zeros((steps, envs))
    for t in range(steps):
        for n in range(envs):
            x, y = np.floor(tr.next_obs[t, n, :2].double().numpy() / cell)
            key = (x, y, int(tr.next_obs[t, n, 5]), (n, episode[n]) if scope == "episodic" else 0)
            table[key] += 1
            out[t, n] = 1 / math.sqrt(table[key])
        for n in range(envs):
            episode[n] += bool(tr.done[t, n])
    return out


@pytest.mark.parametrize("scope", ["lifelong", "episodic"])
def test_equals_a_dictionary_over_many_rollouts(scope, walk):
    count = make("count", 6, 2, num_envs=8, scope=scope)
    table, episode = collections.Counter(), [0] * 8
    for seed in range(6):
        tr = walk(32, 8, seed=seed)
        tr.next_obs[..., 5] = torch.arange(8) % 3
        want = _dictionary(tr, scope, table, episode)
        np.testing.assert_allclose(count.compute(tr).numpy(), want, rtol=1e-6)
        count.update(tr)
    if scope == "lifelong":
        assert count.cells == len(table)
    else:
        now = sum(key[3][1] == episode[key[3][0]] for key in table)
        assert count.cells == now, "cells of finished episodes must be dropped"


def test_an_episodic_count_starts_anew_after_a_finished_step(path):
    count = _count(scope="episodic", num_envs=2)
    still = [[[0.1, 0.1], [0.1, 0.1]]] * 4
    done = [[0, 0], [1, 0], [0, 0], [0, 0]]
    half, third = 1 / math.sqrt(2), 1 / math.sqrt(3)
    want = torch.tensor([[1.0, 1.0], [half, half], [1.0, third], [half, 0.5]])
    torch.testing.assert_close(count.compute(path(still, done)), want)


def test_layouts_and_goals_have_counts_of_their_own(path):
    state = [[[0.1, 0.1, 0, 4.0, 4.0, 7.0]], [[0.1, 0.1, 0, 4.0, 4.0, 8.0]]]
    state += [[[0.1, 0.1, 0, 9.0, 4.0, 7.0]]]
    tr = path(state)
    torch.testing.assert_close(
        make("count", 6, 1).compute(tr), torch.tensor([[1.0], [1.0], [1 / math.sqrt(2)]])
    )
    by_goal = make("count", 6, 1, goal_columns=(3, 4))
    assert by_goal.compute(tr).tolist() == [[1.0], [1.0], [1.0]]
    blind = make("count", 6, 1, id_columns=())
    assert float(blind.compute(tr)[2]) == pytest.approx(1 / math.sqrt(3))


def test_positions_far_from_the_origin_keep_their_cells(path):
    count = _count()
    tr = path([[[-31250.25, 31250.25]], [[-31249.75, 31250.25]], [[-31250.25, 31250.25]]])
    assert count.compute(tr).flatten().tolist() == pytest.approx([1, 1, 1 / math.sqrt(2)])


def test_a_million_cells_are_told_apart(path):
    side = np.arange(1000) * 0.5 + 0.25
    grid = np.stack(np.meshgrid(side, side), -1).reshape(1000, 1000, 2)
    count = _count()
    count.update(path(grid))
    assert count.cells == 1_000_000


def test_memory_stays_bounded_by_the_cells(walk):
    """An hour at 20 Hz in one room: the table holds the room, not the hour."""
    count = make("count", 6, 2)
    state = torch.rand(3600, 20, 6, generator=torch.Generator().manual_seed(0)) * 5
    state[..., 5] = 0
    flag = torch.zeros(3600, 20, dtype=torch.bool)
    tr = type(walk(1, 1))(state, torch.zeros(3600, 20, 2), state, flag, flag)
    count.update(tr)
    assert count.cells == 100


def test_saved_counts_of_other_sizes_are_refused(walk):
    count = make("count-episodic", 6, 2, num_envs=4)
    count.update(walk(4, 4))
    other = make("count-episodic", 6, 2, num_envs=8)
    with pytest.raises((ValueError, RuntimeError), match="8 rows, got 4"):
        other.load_state_dict(count.state_dict())


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"columns": (0, 2)}, "columns must be distinct"),
        ({"columns": ()}, "columns must be distinct"),
        ({"id_columns": (5,)}, "id_columns must be distinct"),
        ({"goal_cell_m": -1.0}, "goal_cell_m must be > 0 m"),
        ({"scope": "global"}, "scope must be"),
        ({"num_envs": 0}, "sizes must be >= 1"),
    ],
)
def test_bad_settings_are_refused(options, word):
    with pytest.raises(ValueError, match=word):
        _count(**options)


def test_dwelling_in_a_new_cell_pays_nothing_when_only_entries_count() -> None:
    config = VisitCountConfig(obs_dim=2, cell_m=1.0, entries_only=True)
    x = torch.tensor([0.5, 1.5, 1.6, 0.5, 1.5])  # enters 1, stays, goes back, enters 1 again
    obs = torch.stack([x[:-1], torch.zeros(4)], dim=1)[:, None]
    next_obs = torch.stack([x[1:], torch.zeros(4)], dim=1)[:, None]
    never = torch.zeros(4, 1, dtype=torch.bool)
    tr = Transition(obs, torch.zeros(4, 1, 1), next_obs, never, never)
    bonus = VisitCount(config).compute(tr)[:, 0]
    assert torch.allclose(bonus, torch.tensor([1.0, 0.0, 1.0, 2**-0.5]))
