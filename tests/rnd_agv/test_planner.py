"""A*, cost-to-go fields and guide points, against brute force and numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rnd_agv.grid import OccupancyGrid
from rnd_agv.planner import (
    astar,
    clearance_cost,
    goal_field,
    guide_point,
    guide_points,
    line_of_sight,
    nearest_free,
    path_length_m,
    plan,
    shorten,
)

MOVES = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


def brute_force(blocked, start, cost):
    """Bellman-Ford over the 8-connected moves: cost from ``start`` to every cell, in cells."""
    best = np.full(blocked.shape, np.inf)
    best[start] = 0
    while True:
        before = best.copy()
        for y, x in np.argwhere(~blocked):
            for dy, dx in MOVES:
                py, px = y + dy, x + dx
                inside = 0 <= py < blocked.shape[0] and 0 <= px < blocked.shape[1]
                if inside and not (blocked[py, px] or blocked[y, px] or blocked[py, x]):
                    step = np.hypot(dy, dx) * (1 + (cost[y, x] + cost[py, px]) / 2)
                    best[y, x] = min(best[y, x], best[py, px] + step)
        if np.array_equal(before, best):
            return best


def random_scene(seed, shape=(12, 15), share=0.3):
    rng = np.random.default_rng(seed)
    blocked = rng.random(shape) < share
    blocked[0, 0] = blocked[-1, -1] = False
    return blocked, rng.uniform(0, 3, shape).astype(np.float32)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("weighted", [False, True])
def test_astar_is_as_cheap_as_brute_force(seed, weighted):
    blocked, cost = random_scene(seed)
    cost = cost if weighted else np.zeros_like(cost)
    goal = (blocked.shape[0] - 1, blocked.shape[1] - 1)
    best = brute_force(blocked, (0, 0), cost)[goal]
    path = astar(blocked, (0, 0), goal, cost if weighted else None)
    if np.isinf(best):
        assert path.shape == (0, 2)
        return
    assert tuple(path[0]) == (0, 0) and tuple(path[-1]) == goal and path.dtype == np.int32
    step = np.diff(path, axis=0)
    assert np.abs(step).max() == 1 and not blocked[tuple(path.T)].any()
    for (y, x), (dy, dx) in zip(path[:-1], step, strict=True):
        assert not (blocked[y + dy, x] or blocked[y, x + dx])  # no corner is cut
    extra = cost[tuple(path.T)]
    length = np.hypot(*step.T) * (1 + (extra[1:] + extra[:-1]) / 2)
    assert length.sum() == pytest.approx(best, rel=1e-5)


def test_astar_ends_that_are_blocked_or_equal():
    blocked = np.zeros((5, 5), dtype=bool)
    assert astar(blocked, (2, 2), (2, 2)).tolist() == [[2, 2]]
    blocked[0, 0] = blocked[4, 4] = True
    assert len(astar(blocked, (0, 0), (0, 4))) == 5 and len(astar(blocked, (0, 4), (4, 4))) == 0
    with pytest.raises(ValueError, match=r"goal must lie in a grid of \(5, 5\), got \(5, 0\)"):
        astar(blocked, (0, 0), (5, 0))


def test_the_field_of_an_empty_grid_is_the_distance():
    field = goal_field(np.zeros((41, 61), dtype=bool), (20, 30), 0.1)
    y, x = np.mgrid[:41, :61] - np.array([20, 30])[:, None, None]
    true = np.hypot(y, x) * 0.1
    exact = (y == 0) | (x == 0) | (abs(y) == abs(x))
    np.testing.assert_allclose(field[exact], true[exact], rtol=1e-6)
    away = true > 0
    assert (field >= true - 1e-6).all() and (field[away] / true[away]).max() < 1.04
    assert (field[away] / true[away]).mean() < 1.01


def test_one_update_is_the_field_d_star_equation():
    # (2, 1) from the goal: a = (1, 1) at sqrt(2), g = (1, 0) at 1; d = 0.414 < 1 / sqrt(2)
    field = goal_field(np.zeros((3, 3), dtype=bool), (0, 0), 1.0)
    d = 2**0.5 - 1
    assert field[2, 1] == pytest.approx(2**0.5 + (1 - d * d) ** 0.5, rel=1e-6)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("weighted", [False, True])
def test_the_field_reaches_what_moves_reach_and_is_never_longer(seed, weighted):
    blocked, cost = random_scene(seed)
    # a field cell costs its own weight; moves cost the mean of two, so compare under equal costs
    cost = np.full_like(cost, 1.5) if weighted else np.zeros_like(cost)
    best = brute_force(blocked, (0, 0), cost)
    field = goal_field(blocked, (0, 0), 1.0, cost)
    np.testing.assert_array_equal(np.isfinite(field), np.isfinite(best))
    reached = np.isfinite(best)
    assert (field[reached] <= best[reached] * (1 + 1e-6)).all()
    assert (field[reached] >= 0.92 * best[reached] - 1e-6).all()


def test_the_order_of_settling_is_exact_under_uneven_costs():
    # no cell can be improved by any of its neighbours once the field is done
    blocked, cost = random_scene(3, (30, 30), 0.1)
    field = goal_field(blocked, (0, 0), 1.0, cost)
    for y, x in np.argwhere(np.isfinite(field)):
        for dy, dx in MOVES:
            ny, nx = y + dy, x + dx
            if (
                0 <= ny < 30
                and 0 <= nx < 30
                and not (blocked[ny, nx] or blocked[y, nx] or blocked[ny, x])
            ):
                assert field[ny, nx] <= field[y, x] + np.hypot(dy, dx) * (1 + cost[ny, nx]) + 1e-4


def test_a_blocked_goal_is_out_of_reach_and_its_neighbour_is_found():
    blocked = np.zeros((9, 9), dtype=bool)
    blocked[3:6, 3:6] = True
    assert np.isinf(goal_field(blocked, (4, 4), 0.1)).all()
    assert nearest_free(blocked, (4, 3)) == (4, 2)
    assert nearest_free(blocked, (4, 4), 1) is None


def test_line_of_sight_is_symmetric_and_sees_no_crack_between_corners():
    blocked = np.zeros((6, 6), dtype=bool)
    blocked[2, 3] = blocked[3, 2] = True
    assert not line_of_sight(blocked, 0, 0, 5, 5) and not line_of_sight(blocked, 5, 5, 0, 0)
    assert line_of_sight(blocked, 0, 0, 0, 5) and line_of_sight(blocked, 0, 0, 1, 5)
    rng, scene = np.random.default_rng(1), np.random.default_rng(2).random((20, 20)) < 0.15
    for a, b in rng.integers(0, 20, (200, 2, 2)):
        seen = line_of_sight(scene, *a, *b)
        assert seen == line_of_sight(scene, *b, *a)
        points = np.round(a + np.linspace(0, 1, 400)[:, None] * (b - a) + 1e-9).astype(int)
        assert not (seen and scene[tuple(points.T)].any())


def test_shortening_keeps_the_corners():
    blocked = np.zeros((11, 11), dtype=bool)
    blocked[:9, 5] = True
    path = astar(blocked, (0, 0), (0, 10))
    short = shorten(path, blocked)
    assert len(short) < len(path) and path_length_m(short, 0.1) < path_length_m(path, 0.1)
    assert all(line_of_sight(blocked, *a, *b) for a, b in zip(short[:-1], short[1:], strict=True))
    assert short[0].tolist() == [0, 0] and short[-1].tolist() == [0, 10]
    assert path_length_m(np.array([[0, 0], [3, 4]]), 0.1) == pytest.approx(0.5)


def test_clearance_cost_bends_the_path_away_from_walls():
    blocked = np.zeros((21, 41), dtype=bool)
    blocked[0] = blocked[8:, 20] = True
    cost = clearance_cost(blocked, 0.1, reach_m=0.5, weight=4.0)
    assert cost[4, 0] == pytest.approx(4 * (1 - 0.4 / 0.5) ** 2) and cost[20, 0] == 0
    near = {}
    for name, extra in (("plain", None), ("clear", cost)):
        path = astar(blocked, (15, 2), (15, 38), extra)
        near[name] = np.abs(path[path[:, 1] == 20] - (8, 20)).sum(axis=1).min()
    assert near["plain"] == 1 and near["clear"] > 2


def test_plans_join_the_exact_ends_and_lead_out_of_the_inflation():
    grid = OccupancyGrid.from_obstacles([[2.0, 1.0, 0.1, 1.0]], [], (0, 0, 4, 4), 0.1)
    path = plan(grid, (1.77, 0.5), (3.02, 0.53), 0.3)  # the start is 0.13 m from the wall
    np.testing.assert_allclose(path[[0, -1]], [(1.77, 0.5), (3.02, 0.53)])
    assert path[:, 1].max() > 2.2
    grid.data[:, 20] = 100
    assert plan(grid, (1.0, 0.5), (3.0, 0.5), 0.3).shape == (0, 2)


def corner_field():
    """A wall with a gap at the top between the robot's side and the goal's, 0.1 m cells."""
    blocked = np.zeros((40, 40), dtype=bool)
    blocked[:30, 20] = True
    return blocked, goal_field(blocked, (5, 30), 0.1)


def test_the_guide_lies_at_the_lookahead_towards_a_goal_in_sight():
    field = goal_field(np.zeros((40, 40), dtype=bool), (20, 35), 0.1)
    guide = guide_point(field, 0.1, np.zeros(2), np.array([0.55, 2.05]), 1.0)
    np.testing.assert_allclose(guide, [1.55, 2.05], atol=1e-9)
    end = guide_point(field, 0.1, np.zeros(2), np.array([3.45, 2.05]), 1.0)
    np.testing.assert_allclose(end, [3.55, 2.05], atol=1e-9)


def test_the_guide_stays_in_sight_at_a_corner():
    blocked, field = corner_field()
    xy = np.array([1.05, 2.05])
    guide = guide_point(field, 0.1, np.zeros(2), xy, 5.0)
    cell = (int(guide[1] / 0.1), int(guide[0] / 0.1))
    assert line_of_sight(blocked, 20, 10, *cell)
    assert 0.5 < np.hypot(*(guide - xy)) < 2.5  # it stopped before 5 m of walk


def test_following_the_guide_leads_to_the_goal():
    _, field = corner_field()
    xy, goal = np.array([1.05, 0.55]), np.array([3.05, 0.55])
    for _ in range(200):
        step = guide_point(field, 0.1, np.zeros(2), xy, 1.0) - xy
        xy = xy + step / max(np.hypot(*step), 0.05) * 0.05
    assert np.hypot(*(xy - goal)) < 0.1


def test_a_guide_from_blocked_or_lost_cells():
    _, field = corner_field()
    guide = guide_point(field, 0.1, np.zeros(2), np.array([2.05, 1.05]), 0.5)  # inside the wall
    assert np.isfinite(field[int(guide[1] / 0.1), int(guide[0] / 0.1)])
    nowhere = np.full_like(field, np.inf)
    np.testing.assert_array_equal(guide_point(nowhere, 0.1, np.zeros(2), np.ones(2), 0.5), 1.0)
    nowhere[5, 30] = 0  # only the goal is known, far away
    far = guide_point(nowhere, 0.1, np.zeros(2), np.array([0.5, 3.5]), 0.5)
    np.testing.assert_allclose(far, [3.05, 0.55])


def test_many_guides_equal_one_by_one():
    _, field = corner_field()
    fields = np.stack([field, goal_field(np.zeros((40, 40), dtype=bool), (3, 3), 0.1)])
    origins, xy = np.array([[0.0, 0.0], [-1.0, 2.0]]), np.array([[1.0, 1.0], [2.0, 5.0]])
    got = guide_points(fields, 0.1, origins, xy, 1.5)
    for n in range(2):
        np.testing.assert_array_equal(got[n], guide_point(fields[n], 0.1, origins[n], xy[n], 1.5))
