"""Navigation over a graph on rooms worked by hand; the robot is put where it is told to drive."""

import math

import numpy as np
import pytest

from sim.lidar import cast
from sim.worlds.world import WALL, Draft
from toponav.exploration import ExplorationConfig, Reason, Task
from toponav.graph import TopologicalMap
from toponav.navigation import Navigation, NavigationConfig
from toponav.occupancy import OccupancyMap
from toponav.ways import Floor, driven_m, link

ANGLES = np.linspace(-np.pi, np.pi, 360, endpoint=False)
RANGE_M = 8.0
CONFIG = ExplorationConfig(radius_m=0.25, range_m=RANGE_M, return_home=False)
ROOM = {"left": (-4.0, -3.5), "right": (4.0, -3.5), "top left": (-1.2, 3.5), "top": (1.2, 3.5)}


def two_rooms(low_open=True, high_open=True):
    """Two rooms of 6 by 10 m with two doors of 1 m between them, at y = -3.5 and y = 3.5."""
    draft = Draft(12.2, 10.0)
    for low, high in ((-5.0, -4.0), (-3.0, 3.0), (4.0, 5.0)):
        draft.add(WALL, -0.1, low, 0.1, high)
    for shut, low, high in ((not low_open, -4.0, -3.0), (not high_open, 3.0, 4.0)):
        if shut:
            draft.add(WALL, -0.1, low, 0.1, high)
    return draft.world("rooms", 0)


def known(world):
    """The map of an earlier visit."""
    grid = world.grid(0.1)
    return OccupancyMap(grid.data.copy(), 0.1, grid.origin_w)


def graph():
    """left - right through the low door, left - top left - top - right through the high one."""
    made = TopologicalMap()
    for x, y in ROOM.values():
        made.lost()
        made.observe((x, y, 0.0), 1e-4 * np.eye(3), 0.0, [])
    for a, b in ((0, 1), (0, 2), (2, 3), (3, 1)):
        made.join(a, b, 0.0, math.dist(made.nodes[a].pose_w[:2], made.nodes[b].pose_w[:2]))
    made.lost()
    return made


class Robot:
    """A robot that gets a metre along its path at each decision, and scans on the way."""

    def __init__(self, world, xy, nav):
        self.world, self.pose, self.nav, self.t = world, np.array([*xy, 0.0]), nav, 1.0
        self.look()

    def look(self):
        out = np.empty((1, len(ANGLES)), np.float32)
        one, none = np.array([len(self.world.boxes)], np.int32), np.zeros((1, 1, 3), np.float32)
        zero = np.zeros(1, np.int32)
        cast(self.pose[None], ANGLES[0], ANGLES[1] - ANGLES[0], self.world.boxes[None], one, none,
             zero, zero, none[:, :0], RANGE_M, out)  # fmt: skip
        self.nav.observe(self.t, self.pose, out[0], ANGLES, RANGE_M)

    def drive(self, limit=120):
        """Until it is done; the tasks on the way."""
        tasks = []
        for _ in range(limit):
            decision = self.nav.decide(self.t)
            tasks.append(decision.task)
            if decision.task == Task.DONE:
                return tasks
            if decision.path_w is not None:
                for x, y in decision.path_w[:6]:
                    assert self.world.clearance((x, y))[0] > 0.1
                    self.pose[:2] = x, y
                    self.look()
            self.t += 1.0
        return tasks


def test_a_goal_is_reached_over_the_graph() -> None:
    nav = Navigation(graph(), known(two_rooms()), CONFIG)
    nav.go((4.5, 0.0))
    robot = Robot(two_rooms(), (-4.5, 0.0), nav)
    tasks = robot.drive()
    assert set(tasks) == {Task.GOAL, Task.DONE} and nav.reason == Reason.GOAL
    assert np.hypot(*(robot.pose[:2] - (4.5, 0.0))) <= CONFIG.reach_m
    assert nav.arrivals == 1 and not nav.tries and not nav.dropped


def test_a_shut_door_is_doubted_and_driven_around() -> None:
    nav = Navigation(graph(), known(two_rooms()), CONFIG)
    nav.go((4.5, -3.5))
    robot = Robot(two_rooms(low_open=False), (-4.0, -3.5), nav)
    robot.drive()
    assert nav.reason == Reason.GOAL
    edge = nav.graph.edge(0, 1)
    assert edge is not None and edge.doubted and nav.tries[0, 1] == 1
    assert edge.success == pytest.approx(1 / 3)


def test_an_edge_that_stays_shut_is_dropped_after_two_tries_and_found_when_its_door_opens() -> None:
    nav = Navigation(graph(), known(two_rooms()), CONFIG, rules=NavigationConfig(retry_s=1e6))
    often = nav.graph.edge(0, 1)
    assert often is not None
    often.alpha = 9.0  # driven so often that one failure leaves it the cheapest way
    robot = Robot(two_rooms(low_open=False), (-4.0, -3.5), nav)
    goals = [(4.5, -3.5), (-4.0, -3.5)] * 4
    for goal in goals:
        nav.go(goal)
        robot.drive()
        assert nav.reason == Reason.GOAL
        robot.t += 40.0  # the block is over
    assert [n for key, n in nav.dropped if key == (0, 1)] == [2]
    assert (0, 1) in nav.shut and nav.graph.edge(0, 1) is None
    robot.world = two_rooms()
    robot.look()
    for _ in range(12):  # a cell seen through loses its obstacle by and by
        robot.look()
    nav.go((-2.0, -3.5))
    robot.drive()
    edge = nav.graph.edge(0, 1)
    assert edge is not None and not edge.doubted and not nav.shut


def test_a_goal_that_nothing_leads_to_is_given_up_and_a_patrol_goes_on() -> None:
    rules = NavigationConfig(wait_s=10.0)
    nav = Navigation(graph(), known(two_rooms()), CONFIG, rules=rules)
    robot = Robot(two_rooms(low_open=False, high_open=False), (-4.0, -3.5), nav)
    nav.go((4.5, -3.5))
    robot.drive()
    assert nav.reason == Reason.UNREACHABLE and nav.misses == 1
    nav.go([(4.5, -3.5), (-4.0, 3.5), (-2.0, -2.0)], patrol=True)
    tasks = robot.drive(60)
    assert Task.DONE not in tasks and nav.arrivals >= 2 and nav.misses >= 2


def test_a_patrol_of_one_place_where_the_robot_is_stands_there() -> None:
    nav = Navigation(graph(), known(two_rooms()), CONFIG)
    robot = Robot(two_rooms(), (-4.0, -3.5), nav)
    nav.go((-4.0, -3.5), patrol=True)
    assert Task.DONE not in robot.drive(3)
    assert robot.pose[:2] == pytest.approx((-4.0, -3.5))


def test_ways_and_links_by_hand() -> None:
    grid = known(two_rooms(high_open=False))
    walk = np.asarray(grid.data == 0)
    floor = Floor(walk, grid.origin_w, 0.1)
    ways = floor.ways_m((-4.0, -3.5), [(4.0, -3.5), (-4.0, 3.5), (50.0, 0.0)])
    assert ways[:2] == pytest.approx([8.0, 7.0], abs=0.15) and np.isinf(ways[2])
    assert np.isinf(floor.ways_m((-4.0, -3.5), [(4.0, -3.5)], reach_m=5.0)[0])
    made = TopologicalMap()
    for xy in ((-4.0, -3.5), (-1.0, -3.5), (1.0, -3.5), (1.0, 3.5), (-1.0, 3.5)):
        made.lost()
        made.observe((*xy, 0.0), 1e-4 * np.eye(3), 0.0, [])
    detour = made.join(0, 1, 0.0, 9.0)  # the robot came that way
    assert link(made, floor, 2.0) == [(1, 2)]  # through the open door, not through the shut one
    assert detour.length_m == pytest.approx(3.0, abs=0.05)
    assert driven_m(made, 0, 2, 20.0) == pytest.approx(5.0, abs=0.1)
    assert math.isinf(driven_m(made, 0, 2, 4.0)) and math.isinf(driven_m(made, 0, 3, 99.0))


def test_a_new_visit_keeps_ages_and_blocks() -> None:
    made = graph()
    made.fail(0, 1, 100.0)
    made.resume(5.0)
    edge = made.edge(0, 1)
    assert edge is not None and edge.blocked_until_s == pytest.approx(35.0)
    assert made.nodes[0].seen_s == pytest.approx(-95.0) and made.current is None
    with pytest.raises(ValueError, match="t_s must be finite and not before 5.0, got 4"):
        made.fail(0, 1, 4.0)
    with pytest.raises(ValueError, match="two nodes that are not joined, got 0 and 1"):
        made.join(0, 1, 6.0, 1.0)
    with pytest.raises(ValueError, match="length_m must be >= 0"):
        made.join(1, 2, 6.0, -1.0)


def test_bad_input_is_named() -> None:
    nav = Navigation(graph(), known(two_rooms()), CONFIG)
    with pytest.raises(ValueError, match=r"goals must be \(K, 2\) finite"):
        nav.go(np.zeros((0, 2)))
    with pytest.raises(ValueError, match="detour must be >= 1, got 0.5"):
        NavigationConfig(detour=0.5)
    with pytest.raises(ValueError, match="near_m must be > 0 and finite, got 0"):
        NavigationConfig(near_m=0.0)
