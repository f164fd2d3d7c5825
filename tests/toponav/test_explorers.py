"""Which frontier the classical explorers choose, on maps worked by hand."""

import itertools

import numpy as np
import pytest

from toponav.explorers import Nearest, NextBestView, Random, Tour, Utility, tour
from toponav.snapshot import Snapshot


def view(at=(10, 12), target=None):
    """A corridor: a frontier of 3 cells at its left end, one of 9 at its right end."""
    grid = np.full((21, 60), 100, np.int8)
    grid[9:12, 5:30] = 0
    grid[6:15, 30:40] = 0
    grid[9:12, 2:5] = -1
    grid[6:15, 40:55] = -1
    return Snapshot(grid, at, 10.0, target=target)


def test_frontiers_have_their_ways_from_the_robot_and_between():
    v = view()
    left, right = np.argsort(v.frontiers.cell[:, 1])
    assert v.frontiers.size[[left, right]].tolist() == [3, 9]
    assert v.distance[[left, right]].tolist() == [7, 27]
    assert v.between[left, right] == v.between[right, left] == 34
    assert (np.diag(v.between) == 0).all()


def test_the_nearest_takes_the_small_one_and_utility_the_large_one():
    v = view()
    left, right = np.argsort(v.frontiers.cell[:, 1])
    assert Nearest().choose(v) == left
    # 3 exp(-.7 / s) < 9 exp(-2.7 / s)  iff  s > 2 / ln 3 = 1.82
    assert Utility(1.80).choose(v) == left
    assert Utility(1.84).choose(v) == right
    assert NextBestView(20.0).choose(v) == right


def test_a_tour_is_as_short_as_any_on_small_sets():
    rng = np.random.default_rng(0)
    longer = 0
    for _ in range(20):
        points = rng.random((7, 2))
        ways = np.linalg.norm(points[:, None] - points[None], axis=2).astype(np.float32)
        first, between = ways[0, 1:], ways[1:, 1:]

        def length(order, first=first, between=between):
            return first[order[0]] + between[order[:-1], order[1:]].sum()

        found = tour(first, between)
        assert sorted(found) == list(range(6))
        best = min(length(np.array(o)) for o in itertools.permutations(range(6)))
        assert length(found) <= 1.25 * best
        longer += length(found) > best + 1e-5
    assert longer <= 10  # 2-opt finds the best of most


def test_a_tour_does_not_turn_round_for_a_little():
    # both ends are as far: whichever it has been going to is kept
    v = view(at=(10, 22))
    left, right = np.argsort(v.frontiers.cell[:, 1])
    for k in (left, right):
        held = view(at=(10, 22), target=tuple(v.frontiers.cell[k]))
        assert held.held == k and Tour().choose(held) == k
    # near the left end the way round over the right one is more than a tenth longer
    assert Tour().choose(view(at=(10, 7), target=tuple(v.frontiers.cell[right]))) == left


def test_random_goes_on_to_where_it_was_going():
    v = view()
    k = Random(3).choose(v)
    held = view(at=(10, 14), target=tuple(v.frontiers.cell[k]))
    assert {Random(seed).choose(held) for seed in range(20)} == {k}
    assert {Random(seed).choose(v) for seed in range(20)} == {0, 1}


@pytest.mark.parametrize("explorer", [Nearest(), Utility(), NextBestView(), Tour(), Random()])
def test_one_frontier_is_chosen_by_all(explorer):
    v = view()
    v.grid[6:15, 40:55] = 100
    assert explorer.choose(Snapshot(v.grid, v.at, 10.0)) == 0


def slit(view_cells):
    """A corridor of 5 cells that narrows to one; the robot needs three."""
    grid = np.full((9, 30), 100, np.int8)
    grid[2:7, 1:12] = 0
    grid[4, 12:15] = 0
    grid[4, 15] = -1
    walk = np.zeros(grid.shape, bool)
    walk[3:6, 2:11] = True
    return Snapshot(grid, (4, 3), 8.0, walk=walk, view_cells=view_cells)


def test_a_frontier_in_a_slit_is_seen_from_before_it():
    view = slit(5.0)
    assert view.frontiers.cell.tolist() == [[4, 14]]
    assert view.frontiers.lookout.tolist() == [[4, 10]]
    assert view.distance.tolist() == [7.0]  # to the lookout


def test_a_frontier_too_deep_in_a_slit_does_not_count():
    assert len(slit(3.0).frontiers) == 0
