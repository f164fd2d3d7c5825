"""HODAT's score by hand, ways through the unknown, and the search for a goal."""

import math

import numpy as np
import pytest

from toponav import geodesic, tolls
from toponav.exploration import ExplorationConfig, Reason, Task
from toponav.explorers import Nearest
from toponav.goal import GoalSearch, Greedy
from toponav.hodat import TO_GOAL, Hodat, HodatConfig, way_to_goal
from toponav.snapshot import Snapshot


def view(goal=None, target=None, **given):
    """A corridor: a frontier of 3 cells at its left end, one of 9 at its right end."""
    grid = np.full((21, 60), 100, np.int8)
    grid[9:12, 5:30] = 0
    grid[6:15, 30:40] = 0
    grid[9:12, 2:5] = -1
    grid[6:15, 40:55] = -1
    return Snapshot(grid, (10, 12), 10.0, target=target, goal=goal, **given)


def left_right(v):
    return np.argsort(v.frontiers.cell[:, 1])


def test_without_unknown_cells_a_toll_changes_nothing():
    rng = np.random.default_rng(0)
    free = rng.random((40, 50)) < 0.7
    free[20, 25] = True
    grid = np.where(free, 0, 100).astype(np.int8)
    toll = tolls.tolls(free, grid, 3.0)
    np.testing.assert_allclose(
        tolls.distances(toll, (20, 25)), geodesic.distances(free, (20, 25)), rtol=1e-6
    )


def test_an_unknown_cell_costs_its_toll():
    grid = np.array([[0, -1, -1, 0]], np.int8)
    toll = tolls.tolls(grid <= 0, grid, 2.5)
    # half of each end: 0.5 + 1.25, then 2.5, then 1.25 + 0.5
    assert tolls.distances(toll, (0, 0))[0].tolist() == [0.0, 1.75, 4.25, 6.0]
    with pytest.raises(ValueError, match="unknown >= 1"):
        tolls.tolls(grid <= 0, grid, 0.5)
    with pytest.raises(ValueError, match="source"):
        tolls.distances(toll, (1, 0))


def test_the_dear_way_is_driven_round():
    grid = np.zeros((5, 7), np.int8)
    grid[1:4, 3] = -1
    grid[2, 2] = grid[2, 4] = 0
    straight = tolls.distances(tolls.tolls(grid <= 0, grid, 1.0), (2, 0))[2, 6]
    dear = tolls.distances(tolls.tolls(grid <= 0, grid, 8.0), (2, 0))[2, 6]
    assert straight == 6.0
    assert dear == pytest.approx((4 * 17 + 2 * 12) / 12)  # over the free top row


def test_the_score_is_the_equation_of_the_note():
    v = view(goal=(10, 50), visits=np.array([1, 3]), fails=np.array([0, 2]))
    c = HodatConfig(novelty=0.3, goal=0.3, gain=0.3, cost=0.2, fails=0.5, visits=2.0)
    ways, gain = way_to_goal(v, 1.0) / 10, v.frontiers.gain
    for k in range(2):
        by_hand = (
            0.3 * math.exp(-v.visits[k] / 2)
            + 0.3 * math.exp(-ways[k])
            + 0.3 * gain[k] / gain.max()
            - 0.2 * v.distance[k] / 10
            - 0.5 * v.fails[k]
        )
        assert Hodat(c).scores(v)[k] == pytest.approx(by_hand)
    left, right = left_right(v)
    assert ways[right] == pytest.approx((50 - v.frontiers.cell[right, 1]) / 10)
    assert ways[left] > ways[right]


def test_the_goal_decides_where_it_is_known():
    left, right = left_right(view())
    nearer = Hodat(HodatConfig(novelty=0, gain=0))
    assert nearer.choose(view()) == left
    tuned = Hodat(TO_GOAL)
    assert tuned.choose(view(goal=(10, 50))) == right == Greedy().choose(view(goal=(10, 50)))
    assert tuned.choose(view(goal=(10, 2))) == left == Greedy().choose(view(goal=(10, 2)))


def test_what_has_been_begun_is_kept_and_what_failed_is_left():
    v = view()
    left, right = left_right(v)
    plain = HodatConfig(novelty=0, gain=0)
    held = view(target=tuple(v.frontiers.cell[right]))
    assert Hodat(plain).choose(held) == left
    assert Hodat(HodatConfig(novelty=0, gain=0, keep=1.0)).choose(held) == right
    fails = np.zeros(2, int)
    fails[left] = 1
    assert Hodat(plain).choose(view(fails=fails)) == right


def test_every_target_left_for_another_doubles_how_hard_the_next_is_held():
    v = view()
    left, right = left_right(v)
    held, weak = tuple(v.frontiers.cell[right]), HodatConfig(novelty=0, gain=0, keep=0.02)
    # the left one is 2 ranges nearer: 0.2 * 2 = 0.4 against 0.02, 0.04, ... 0.64
    chosen = [Hodat(weak).choose(view(target=held, left=k)) for k in range(7)]
    assert chosen == [left] * 5 + [right] * 2


class Turncoat:
    """Chooses another frontier every time."""

    count = 0

    def choose(self, view):
        self.count += 1
        return self.count % len(view.frontiers)


def test_the_search_counts_the_targets_that_were_left():
    mind, walls, seen = GoalSearch(CONFIG, Turncoat()), u_shape(), []
    choose = mind.explorer.choose
    mind.explorer.choose = lambda v: seen.append((v.left, len(v.frontiers))) or choose(v)
    for t in range(5):  # it stands, so every target still does
        see(mind, np.array([2.0, 4.0, 0.0]), float(t), walls)
        mind.decide(float(t))
    assert seen[0][1] > 1
    assert [left for left, _ in seen] == [0, 0, 1, 2, 3]


def test_walls_that_are_known_shut_the_goal_off():
    v = view(goal=(2, 2))
    v.hope = v.grid <= 0
    assert np.isinf(way_to_goal(v, 1.0)).all()
    assert np.isfinite(Hodat(TO_GOAL).scores(v)).all()


@pytest.mark.parametrize("bad", [{"visits": 0.0}, {"unknown": 0.5}, {"cost": -1.0}])
def test_a_setting_out_of_range_is_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        HodatConfig(**bad)


# searching


def see(mind, pose, t_s, walls):
    """A scan of 180 beams among wall cells of 0.1 m, by marching."""
    angles = np.linspace(-np.pi, np.pi, 180, endpoint=False)
    steps = np.arange(0.05, 6.0, 0.05)
    points = pose[:2] + steps[None, :, None] * np.stack(
        [np.cos(angles + pose[2]), np.sin(angles + pose[2])], axis=1
    )[:, None]  # fmt: skip
    cells = np.floor(points / 0.1).astype(int)
    inside = ((cells >= 0) & (cells < walls.shape[::-1])).all(axis=2)
    cells = np.clip(cells, 0, np.array(walls.shape[::-1]) - 1)
    hit = walls[cells[..., 1], cells[..., 0]] | ~inside
    ranges = np.where(hit.any(axis=1), steps[hit.argmax(axis=1)], 6.0)
    mind.observe(t_s, pose, ranges, angles, 6.0)


def drive(mind, walls, pose, limit=200):
    """Step along what is decided; the way driven, m."""
    pose, driven = np.array(pose, float), 0.0
    see(mind, pose, 0.0, walls)
    for t in range(1, limit):
        decision = mind.decide(float(t))
        if decision.task == Task.DONE:
            return driven
        way = decision.path_w
        assert way is not None
        along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(way, axis=0).T))])
        to = min(0.5, along[-1])
        new = np.array([np.interp(to, along, way[:, i]) for i in (0, 1)])
        driven += float(np.hypot(*(new - pose[:2])))
        pose[:2] = new
        see(mind, pose, float(t), walls)
    return driven


def u_shape():
    """A hall of 12 x 8 m with a pocket that opens towards the start, in front of the goal."""
    walls = np.zeros((80, 120), bool)
    walls[[0, 1, -1, -2]] = walls[:, [0, 1, -1, -2]] = True
    walls[20:60, 70:73] = walls[20:23, 50:73] = walls[57:60, 50:73] = True
    return walls


CONFIG = ExplorationConfig(range_m=6.0, return_home=False)


def test_a_known_goal_is_reached_round_a_pocket():
    mind = GoalSearch(CONFIG, goal_w=(9.5, 4.0), explorer=Hodat(TO_GOAL))
    driven = drive(mind, u_shape(), (2.0, 4.0, 0.0))
    assert mind.reason == Reason.GOAL and mind.reached
    assert 8.0 < driven < 20.0


def test_an_unknown_goal_is_driven_to_once_it_is_told():
    mind = GoalSearch(CONFIG, explorer=Nearest())
    walls = u_shape()
    see(mind, np.array([2.0, 4.0, 0.0]), 0.0, walls)
    assert mind.decide(0.0).task == Task.EXPLORE and not mind.reached
    mind.spot((3.0, 6.0))
    decision = mind.decide(1.0)
    assert decision.task == Task.GOAL
    assert decision.path_w[-1].tolist() == [3.0, 6.0]


def test_a_goal_behind_walls_ends_the_search_without_it():
    walls = u_shape()
    walls[20:60, 49:52] = True  # the pocket is shut
    mind = GoalSearch(CONFIG, goal_w=(6.0, 4.0), explorer=Hodat(TO_GOAL))
    drive(mind, walls, (2.0, 4.0, 0.0), limit=400)
    assert mind.reason in (Reason.COMPLETE, Reason.UNREACHABLE) and not mind.reached


def test_a_goal_must_be_a_point():
    with pytest.raises(ValueError, match="goal_w"):
        GoalSearch(CONFIG, goal_w=(math.nan, 0.0))
    with pytest.raises(ValueError, match="radius_m"):
        GoalSearch(CONFIG, radius_m=0.0)
