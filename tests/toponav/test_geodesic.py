"""Shortest ways over grids."""

import heapq

import numpy as np
import pytest

from toponav.geodesic import DIAGONAL, STRAIGHT, costs, costs_from, distances, path


def dijkstra(free, source):
    """The same by a heap, cell by cell."""
    best = np.full(free.shape, -1, np.int64)
    best[source], queue = 0, [(0, source)]
    while queue:
        cost, (y, x) = heapq.heappop(queue)
        if cost > best[y, x]:
            continue
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                j, i = y + dy, x + dx
                inside = 0 <= j < free.shape[0] and 0 <= i < free.shape[1]
                if not inside or not free[j, i] or (dy == 0 and dx == 0):
                    continue
                if dy and dx and not (free[y, i] and free[j, x]):
                    continue
                new = cost + (DIAGONAL if dy and dx else STRAIGHT)
                if best[j, i] < 0 or new < best[j, i]:
                    best[j, i] = new
                    heapq.heappush(queue, (new, (j, i)))
    return best


@pytest.mark.parametrize("seed", range(6))
def test_costs_are_those_of_a_plain_dijkstra(seed):
    rng = np.random.default_rng(seed)
    free = rng.random((rng.integers(3, 40), rng.integers(3, 40))) < 0.7
    source = (int(rng.integers(free.shape[0])), int(rng.integers(free.shape[1])))
    free[source] = True
    np.testing.assert_array_equal(costs(free, source), dijkstra(free, source))


def test_a_corner_is_never_cut():
    free = np.array([[1, 0], [1, 1]], bool)
    assert costs(free, (0, 0))[1, 1] == 2 * STRAIGHT
    free[0, 1] = True
    assert costs(free, (0, 0))[1, 1] == DIAGONAL
    assert costs(np.array([[1, 0], [0, 1]], bool), (0, 0))[1, 1] == -1


def test_distances_are_in_cells_and_infinite_behind_walls():
    free = np.ones((3, 5), bool)
    free[:, 3] = False
    found = distances(free, (1, 0))
    assert found[1, 2] == 2 and np.isinf(found[1, 4])
    assert found[0, 1] == pytest.approx(np.sqrt(2), rel=0.003)


@pytest.mark.parametrize("seed", range(4))
def test_a_path_goes_from_the_source_to_the_target_at_its_cost(seed):
    rng = np.random.default_rng(seed)
    free = rng.random((25, 30)) < 0.75
    free[0, 0] = True
    cost = costs(free, (0, 0))
    for target in np.argwhere(cost >= 0)[::37]:
        way = path(cost, tuple(target))
        assert tuple(way[0]) == (0, 0) and tuple(way[-1]) == tuple(target)
        steps = np.abs(np.diff(way, axis=0))
        assert len(steps) == 0 or steps.max() == 1
        assert np.where(steps.sum(axis=1) == 2, DIAGONAL, STRAIGHT).sum() == cost[tuple(target)]


def test_a_source_outside_and_a_target_without_a_way_are_refused():
    with pytest.raises(ValueError, match="source must be within"):
        costs(np.ones((2, 2), bool), (2, 0))
    cost = costs(np.array([[True, False, True]]), (0, 0))
    with pytest.raises(ValueError, match="target must be reachable"):
        path(cost, (0, 2))


def test_from_several_sources_the_nearest_counts():
    rng = np.random.default_rng(7)
    free = rng.random((20, 25)) < 0.8
    sources = np.argwhere(free)[::40]
    single = np.array([costs(free, tuple(source)) for source in sources])
    far = np.where(single < 0, 10**6, single).min(axis=0)
    np.testing.assert_array_equal(costs_from(free, sources), np.where(far == 10**6, -1, far))
