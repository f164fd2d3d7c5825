"""First return, then explore: on a winding corridor with nothing to find but at its end."""

import numpy as np
import pytest

from toponav.go_explore import Cell, GoExplore, GoExploreConfig

STEP_M = 0.5
MOVES = STEP_M * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], float)


def winding(bends=5, length=12):
    """(H, W) free cells of half a metre: corridors of two cells, joined end to end."""
    free = np.zeros((3 * bends + 1, length + 2), bool)
    for k in range(bends):
        free[3 * k + 1 : 3 * k + 3, 1:-1] = True
        if k:
            column = slice(length - 1, length + 1) if k % 2 else slice(1, 3)
            free[3 * k, column] = True
    return free


class Walker:
    """A point in a grid that steps by half a metre; the goal is the last corridor's far end."""

    def __init__(self, free):
        self.free = free
        self.xy = np.array([1.5, 1.5]) * STEP_M
        column = free.shape[1] - 2 if (free.shape[0] // 3) % 2 else 1
        self.goal = (free.shape[0] - 2, column)

    def cell(self, xy):
        return int(xy[1] / STEP_M), int(xy[0] / STEP_M)

    def pose_w(self):
        return np.array([*self.xy, 0.0])

    def snapshot(self):
        return self.xy.copy()

    def go_back(self, cell, way_w):
        self.xy = cell.snapshot.copy()
        return 0.0

    def act(self, action):
        to = self.xy + MOVES[action]
        if self.free[self.cell(to)]:
            self.xy = to
        found = self.cell(self.xy) == self.goal
        return float(found), found

    def sees(self, xy_w):
        line = self.xy + np.linspace(0, 1, 20)[:, None] * (xy_w - self.xy)
        return all(self.free[self.cell(point)] for point in line)


class Driver(Walker):
    """The same on wheels: it goes back by driving along the map, at its price."""

    def snapshot(self):
        return None

    def go_back(self, cell, way_w):
        if way_w is None:
            return None
        way = np.concatenate([self.xy[None], way_w])
        self.xy = (np.floor(way_w[-1] / STEP_M) + 0.5) * STEP_M
        return float(np.ceil(np.hypot(*np.diff(way, axis=0).T).sum() / STEP_M))


def restarting(free, horizon, limit, repeat, seed):
    """Actions until the goal, beginning again every ``horizon``; ``limit`` if not found."""
    rng, left = np.random.default_rng([seed, 1901]), 0
    body = Walker(free)
    for used in range(1, limit + 1):
        if left == 0:
            action, left = int(rng.integers(4)), int(rng.geometric(1 / repeat))
        left -= 1
        if body.act(action)[1]:
            return used
        if used % horizon == 0:
            body = Walker(free)
    return limit


def test_cells_seen_less_are_chosen_more():
    explorer = GoExplore(Walker(winding()), 4, GoExploreConfig(power=0.5))
    explorer.archive = {k: Cell(k, None, 0.0, 0.0, seen) for k, seen in enumerate((0, 3, 8))}
    weight = np.array([1, 1 / 2, 1 / 3])  # 1 / sqrt(seen + 1)
    np.testing.assert_allclose(explorer.chances(), weight / weight.sum())


def test_it_finds_the_goal_sooner_than_restarting_does():
    free, limit, mine, theirs = winding(4, 14), 4000, [], []
    for seed in range(5):
        explorer = GoExplore(Walker(free), 4, seed=seed)
        explorer.run(limit)
        mine.append(explorer.used)
        theirs.append(restarting(free, 400, limit, explorer.config.repeat, seed))
    assert all(used < limit for used in mine)
    assert np.mean(mine) < 0.6 * np.mean(theirs)  # where nothing was found the limit counts


def test_on_a_robot_it_returns_by_driving_and_pays_for_it():
    config = GoExploreConfig(steps=20, repeat=4.0)
    explorer = GoExplore(Driver(winding(3)), 4, config, seed=1)
    drives = []
    go_back = explorer.body.go_back
    explorer.body.go_back = lambda cell, way: drives.append(go_back(cell, way)) or drives[-1]
    assert explorer.run(4000)
    paid = [cost for cost in drives if cost is not None]
    assert len(paid) > 0 and sum(paid) > 0
    assert explorer.used >= sum(paid)
    ends = list(explorer.graph.edges())
    assert len(ends) >= len(explorer.graph) - 1  # one piece: every return began where it ended


def test_a_shorter_way_to_a_cell_replaces_a_longer_one():
    explorer = GoExplore(Walker(winding()), 4)
    (node,) = explorer.archive
    explorer.archive[node] = Cell(node, None, 50.0, 0.0, seen=9)
    explorer._enter(40.0, 0.0, set())
    assert explorer.archive[node].cost == 40.0 and explorer.archive[node].seen == 10
    explorer._enter(45.0, 0.0, set())
    assert explorer.archive[node].cost == 40.0 and explorer.archive[node].seen == 11
    explorer._enter(99.0, 1.0, set())  # a longer way with more reward
    assert explorer.archive[node].score == 1.0 and explorer.archive[node].seen == 1


def test_it_ends_at_its_limit_and_where_the_caller_says():
    explorer = GoExplore(Walker(winding(9, 40)), 4)
    assert not explorer.run(100) and explorer.used == 100
    assert not explorer.run(10_000, after=lambda: True) and explorer.used <= 140


@pytest.mark.parametrize("bad", [{"steps": 0}, {"repeat": 0.5}, {"power": -1.0}])
def test_a_setting_out_of_range_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        GoExploreConfig(**bad)
