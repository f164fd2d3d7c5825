"""The learned meta-controller: what it is told, its network, and when it is believed."""

import json

import numpy as np
import pytest
import torch

from learning.policy_file import PolicyFileError, write_policy_file
from toponav.explorers import Utility
from toponav.meta import OBSERVATION, MetaConfig, MetaExplorer, trusted
from toponav.meta_features import NAMES, PATCH, claims, excess, features, pictures
from toponav.meta_net import MetaNet
from toponav.snapshot import Snapshot


@pytest.fixture
def cross():
    """A cross of corridors with unknown ends, the robot at its middle, (41, 41) cells."""
    grid = np.full((41, 41), -1, np.int8)
    grid[18:23, 4:37] = grid[4:37, 18:23] = 0
    for a in (17, 23):
        grid[a, 4:18] = grid[a, 23:37] = grid[4:18, a] = grid[23:37, a] = 100
    return Snapshot(grid, (20, 20), 10.0, came_from=(20, 16))


def told(view):
    return features(view, Utility().scores(view))


def test_numbers_are_in_ranges_and_discs(cross):
    found = told(cross)
    assert len(cross.frontiers) == 4
    assert found.numbers.shape == (5, len(NAMES)) and found.numbers.dtype == np.float32
    column = {name: found.numbers[1:, k] for k, name in enumerate(NAMES)}
    np.testing.assert_allclose(column["distance"], 1.6)  # 16 cells of a range of 10
    np.testing.assert_allclose(column["size"], 0.5)
    np.testing.assert_allclose(column["others"], np.log(4))
    np.testing.assert_allclose(column["score_behind"], 0)
    np.testing.assert_allclose(column["detour"], 1.0)
    assert column["turn"].max() == pytest.approx(1) and column["turn"].min() == pytest.approx(-1)
    np.testing.assert_allclose(sorted(column["turn"]), [-1, 0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(column["tour_excess"], 0, atol=1e-6)


def test_what_is_told_does_not_depend_on_the_resolution(cross):
    grid = np.kron(cross.grid, np.ones((3, 3), np.int8))
    fine = told(Snapshot(grid, (61, 61), 30.0, came_from=(61, 49), piece_cells=99))
    coarse = told(cross)
    for name in ("distance", "size", "gain", "claim", "nearest", "spread", "known"):
        k = NAMES.index(name)
        np.testing.assert_allclose(fine.numbers[1:, k], coarse.numbers[1:, k], rtol=0.25, atol=0.05)
    far = np.abs(fine.pictures.astype(int) - coarse.pictures).mean()
    assert far < 20


def test_a_picture_shows_shares_of_free_and_occupied():
    grid = np.full((64, 64), -1, np.int8)
    grid[32:34, 32:34] = [[0, 0], [100, -1]]
    found = pictures(grid, [(31, 31)], 2.0)[0]  # whose middle, 31.5, is rounded to 32
    middle = PATCH // 2
    assert found.shape == (2, PATCH, PATCH)
    assert found[:, middle, middle].tolist() == [127, 63]  # two of four cells, one of four
    assert found.sum() == 127 + 63
    assert pictures(grid, [(0, 0)], 2.0).sum() == 0  # what lies outside is unknown


def test_unknown_floor_goes_to_the_nearest_candidate():
    grid = np.full((1, 11), -1, np.int8)
    grid[0, [0, 10]] = 0
    np.testing.assert_array_equal(claims(grid, np.array([[0, 0], [0, 10]]), 100), [5, 4])
    np.testing.assert_array_equal(claims(grid, np.array([[0, 0], [0, 10]]), 2), [2, 2])
    grid[0, 3] = 100
    np.testing.assert_array_equal(claims(grid, np.array([[0, 0], [0, 10]]), 100), [2, 6])


def test_excess_is_what_another_first_stop_adds_to_the_tour():
    at, stops = 0.0, np.array([1.0, 2.0, -3.0])
    between = np.abs(stops[:, None] - stops).astype(np.float32)
    # 0, 1, 2, -3: 7; 0, 2, 1, -3: 7; 0, -3, 1, 2: 8
    np.testing.assert_allclose(excess(np.abs(stops - at).astype(np.float32), between), [0, 0, 1])


def test_padding_changes_no_cost_and_order_changes_only_the_order(cross):
    torch.manual_seed(0)
    net, found = MetaNet(width=32, layers=2).eval(), told(cross)
    numbers, images = torch.from_numpy(found.numbers)[None], torch.from_numpy(found.pictures)[None]
    images = images.float() / 255
    there = torch.ones(1, 5, dtype=torch.bool)
    cost = net(numbers, images, there)
    assert cost.shape == (1, 4, 4)
    more = torch.randn(1, 2, len(NAMES)), torch.rand(1, 2, 2, PATCH, PATCH)
    padded = torch.cat([there, torch.zeros(1, 2, dtype=torch.bool)], dim=1)
    again = net(torch.cat([numbers, more[0]], 1), torch.cat([images, more[1]], 1), padded)
    torch.testing.assert_close(again[:, :4], cost)
    order = torch.tensor([0, 3, 1, 4, 2])
    swapped = net(numbers[:, order], images[:, order], there)
    torch.testing.assert_close(swapped, cost[:, order[1:] - 1])


@pytest.fixture
def policy(tmp_path):
    torch.manual_seed(1)
    net = MetaNet(width=32, layers=1)
    manifest = {
        "network": {"obs_dim": len(NAMES), "action_dim": 4},
        "observation": OBSERVATION,
        "action": {
            "dim": 4,
            "base": {"scale": 0.75, "power": 1.25},
            "trust": {"margin": 0.0, "doubt": 0.0},
        },
        "recipe": {"name": "test"},
        "seeds": [1],
        "evaluation": {},
    }
    weights = {k: v.detach().numpy() for k, v in net.state_dict().items()}
    return write_policy_file(tmp_path / "p", weights, net.onnx(), manifest), net


def test_a_robot_gets_the_costs_that_training_saw(policy, cross):
    folder, net = policy
    explorer = MetaExplorer(folder)
    found = features(cross, explorer.base.scores(cross))
    with torch.no_grad():
        want = net(
            torch.from_numpy(found.numbers)[None],
            torch.from_numpy(found.pictures)[None].float() / 255,
            torch.ones(1, 5, dtype=torch.bool),
        )[0].numpy()
    np.testing.assert_allclose(explorer.costs(cross), want, atol=1e-4)
    assert explorer.choose(cross) == want.mean(axis=1).argmin()
    assert MetaExplorer(folder, MetaConfig(margin=1e9)).choose(cross) == explorer.base.choose(cross)


def test_another_observation_or_no_explorer_is_refused(policy, tmp_path):
    folder, net = policy
    manifest = json.loads((folder / "manifest.json").read_text())
    kept = {k: manifest[k] for k in ("network", "recipe", "seeds", "evaluation")}
    action = {"dim": 4, "base": {"scale": 1.0}}
    weights = {k: v.detach().numpy() for k, v in net.state_dict().items()}
    other = write_policy_file(
        tmp_path / "o", weights, net.onnx(), kept | {"observation": OBSERVATION, "action": action}
    )
    with pytest.raises(PolicyFileError, match="no explorer's"):
        MetaExplorer(other)
    spec = OBSERVATION | {"ranges": 2.0}
    other = write_policy_file(
        tmp_path / "s", weights, net.onnx(), kept | {"observation": spec, "action": action}
    )
    with pytest.raises(PolicyFileError, match="differs in ranges"):
        MetaExplorer(other)


def test_the_network_is_believed_where_it_saves_enough_and_is_sure():
    cost = np.array([[5.0, 5.0], [4.0, 4.8]], np.float32)  # saves 1.0 and 0.2: 0.6, sd 0.4
    assert trusted(cost, 0, MetaConfig()) == 1
    assert trusted(cost, 0, MetaConfig(margin=0.5)) == 1
    assert trusted(cost, 0, MetaConfig(margin=0.7)) == 0
    assert trusted(cost, 0, MetaConfig(doubt=1.0)) == 1
    assert trusted(cost, 0, MetaConfig(doubt=2.0)) == 0
    assert trusted(np.array([[5.0, 5.0], [np.nan, 1.0]], np.float32), 0, MetaConfig()) == 0
    with pytest.raises(ValueError, match="margin and doubt"):
        MetaConfig(margin=-1)
