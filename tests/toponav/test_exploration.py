"""The exploration loop on rooms worked by hand; the robot is put where it is told to drive."""

import numpy as np
import pytest

from sim.lidar import cast
from sim.worlds.world import WALL, Draft
from toponav.exploration import Exploration, ExplorationConfig, Reason, Task
from toponav.explorers import Nearest

ANGLES = np.linspace(-np.pi, np.pi, 360, endpoint=False)
RANGE_M = 6.0
CONFIG = ExplorationConfig(range_m=RANGE_M, turns=0, radius_m=0.25)


class Robot:
    """A robot that is at once where it is sent to, and scans on the way."""

    def __init__(self, world, pose, config=CONFIG, view_rad=2 * np.pi):
        self.world, self.pose, self.t = world, np.array(pose, float), 0.0
        self.view_rad = view_rad
        self.mind = Exploration(config, Nearest())
        self.look()

    def scan(self):
        out = np.empty((1, len(ANGLES)), np.float32)
        boxes = self.world.boxes[None]
        one = np.array([len(self.world.boxes)], np.int32)
        none = np.zeros((1, 1, 3), np.float32)
        cast(self.pose[None], ANGLES[0], ANGLES[1] - ANGLES[0], boxes, one, none,
             np.zeros(1, np.int32), np.zeros(1, np.int32), none[:, :0], RANGE_M, out)  # fmt: skip
        return out[0]

    def look(self):
        seen = np.abs(ANGLES) <= self.view_rad / 2
        self.mind.observe(self.t, self.pose, self.scan()[seen], ANGLES[seen], RANGE_M)

    def go(self, decision):
        """Follow a decision; its path must be free of walls."""
        if decision.path_w is not None:
            for x, y in decision.path_w:
                assert self.world.clearance((x, y))[0] > 0.1
                self.pose[:2] = x, y
                self.look()
        elif decision.heading_w is not None:
            self.pose[2] = decision.heading_w
            self.look()
        self.t += 1.0

    def explore(self, limit=200):
        for _ in range(limit):
            decision = self.mind.decide(self.t)
            if decision.task == Task.DONE:
                return self.mind.reason
            self.go(decision)
        pytest.fail("it does not end")


def rooms(door_m):
    draft = Draft(12.2, 6.0)
    draft.add(WALL, -0.1, -3.0, 0.1, -door_m / 2)
    draft.add(WALL, -0.1, door_m / 2, 0.1, 3.0)
    return draft.world("rooms", 0)


def test_all_of_it_is_seen_and_the_robot_comes_home():
    robot = Robot(rooms(1.0), (-4.0, 1.0, 0.0))
    assert robot.explore() == Reason.COMPLETE
    assert np.hypot(*(robot.pose[:2] - (-4.0, 1.0))) < CONFIG.reach_m
    seen = (robot.mind.map.data == 0).sum() * CONFIG.resolution_m**2
    assert seen == pytest.approx(12.0 * 6.0, rel=0.03)
    assert robot.mind.decide(robot.t).task == Task.DONE  # and stays there


def test_a_room_behind_a_slit_is_told_as_unreachable():
    robot = Robot(rooms(0.3), (-4.0, 1.0, 0.0))
    assert robot.explore() == Reason.UNREACHABLE
    assert robot.pose[0] < 0


def test_a_target_that_fails_twice_is_given_up_and_others_are_tried():
    config = ExplorationConfig(range_m=RANGE_M, turns=0, stand_s=1000.0)
    robot = Robot(Draft(18.0, 3.0).world("corridor", 0), (0.0, 0.0, 0.0), config)
    first = robot.mind.decide(0.0)
    assert first.task == Task.EXPLORE
    robot.mind.fail(0.0)
    second = robot.mind.decide(1.0)
    assert np.sign(second.target_w[0]) == -np.sign(first.target_w[0])
    assert not robot.mind.given_up
    # after a rest it is tried again, and then no more
    robot.mind.fail(1.0)
    again = robot.mind.decide(CONFIG.rest_s + 2.0)
    robot.mind.fail(CONFIG.rest_s + 2.0)
    assert len(robot.mind.given_up) == 1
    assert np.hypot(*(robot.mind.given_up[0] - again.target_w)) < 1.5


def test_no_progress_is_a_failure_too():
    config = ExplorationConfig(range_m=RANGE_M, turns=0, patience_s=5.0, stand_s=100.0)
    robot = Robot(Draft(18.0, 3.0).world("corridor", 0), (0.0, 0.0, 0.0), config)
    targets = [robot.mind.decide(t).target_w[0] for t in np.arange(0.0, 8.0)]
    assert len({np.sign(x) for x in targets[:6]}) == 1
    assert np.sign(targets[-1]) == -np.sign(targets[0])


def test_a_robot_that_does_not_move_backs_up():
    robot = Robot(rooms(1.0), (-4.0, 1.0, 0.0))
    tasks = [robot.mind.decide(t).task for t in np.arange(0.0, 10.0)]
    assert tasks[:7] == [Task.EXPLORE] * 7
    assert tasks[7:9] == [Task.BACK_UP] * 2 and Task.EXPLORE in tasks[9:]


def test_a_robot_that_sees_no_way_turns_round_and_then_ends():
    config = ExplorationConfig(range_m=RANGE_M, turns=3)
    world = Draft(4.0, 4.0).world("room", 0)
    robot = Robot(world, (0.0, 0.0, 0.0), config)
    assert robot.mind.decide(0.0).task == Task.DONE  # it sees all round: no need to turn
    robot = Robot(world, (0.0, 0.0, 0.0), config, view_rad=3 * np.pi / 2)
    robot.mind.map.data[:] = np.where(robot.mind.map.data == 0, 0, 100)  # nothing to see behind
    headings = []
    while (decision := robot.mind.decide(robot.t)).task == Task.TURN:
        headings.append(decision.heading_w)
        robot.go(decision)
    assert np.diff([0.0, *headings]) == pytest.approx([np.pi / 3] * 3)
    assert decision.task == Task.DONE and robot.mind.reason == Reason.COMPLETE


def test_time_is_kept_for_the_way_home():
    config = ExplorationConfig(range_m=RANGE_M, turns=0, max_time_s=30.0, speed_m_s=0.5)
    robot = Robot(Draft(60.0, 3.0).world("corridor", 0), (-28.0, 0.0, 0.0), config)
    while robot.mind.decide(robot.t).task == Task.EXPLORE:
        robot.go(robot.mind.decision)
        robot.t += 9.0
    assert robot.mind.reason == Reason.BUDGET
    assert robot.mind.decision.task == Task.RETURN
    far = robot.pose[0] + 28.0
    assert far > 3 and robot.t + far / 0.5 >= 30.0  # neither too early nor never
    robot.go(robot.mind.decision)
    assert robot.mind.decide(robot.t).task == Task.DONE


def test_it_can_be_stopped_and_sent_home():
    robot = Robot(rooms(1.0), (-4.0, 1.0, 0.0))
    robot.go(robot.mind.decide(0.0))
    robot.mind.go_home()
    assert robot.mind.decide(1.0).task == Task.RETURN and robot.mind.reason == Reason.STOPPED
    robot.mind.stop()
    assert robot.mind.decide(2.0).task == Task.DONE


def test_places_that_were_asked_for_are_visited_before_home():
    robot = Robot(rooms(1.0), (-4.0, 1.0, 0.0))
    robot.mind.visit((4.0, 1.5))
    robot.mind.visit((60.0, 60.0))  # nobody has seen so far
    tasks = []
    for _ in range(200):
        decision = robot.mind.decide(robot.t)
        tasks.append(decision.task)
        if decision.task == Task.DONE:
            break
        robot.go(decision)
    order = [a for a, b in zip(tasks, [None, *tasks], strict=False) if a != b]
    assert order == [Task.EXPLORE, Task.VISIT, Task.RETURN, Task.DONE]
    assert [place.tolist() for place in robot.mind.visited] == [[4.0, 1.5]]
    assert [place.tolist() for place in robot.mind.missed] == [[60.0, 60.0]]
    with pytest.raises(ValueError, match="place_w must be 2 finite numbers"):
        robot.mind.visit((np.nan, 0.0))


def test_a_place_that_is_not_got_to_is_left():
    robot = Robot(rooms(1.0), (-4.0, 1.0, 0.0))
    robot.mind.visit((-3.0, -2.5))
    drives = 0
    for _ in range(200):
        decision = robot.mind.decide(robot.t)
        if decision.task == Task.RETURN:
            break
        if decision.task in (Task.VISIT, Task.BACK_UP):  # which whoever drives does not
            drives, robot.t = drives + 1, robot.t + 1.0
        else:
            robot.go(decision)
    assert len(robot.mind.missed) == 1 and not robot.mind.visited
    assert 20 < drives < 40


def test_the_map_grows_with_what_is_seen():
    robot = Robot(Draft(60.0, 3.0).world("corridor", 0), (-28.0, 0.0, 0.0))
    before = robot.mind.map
    old = before.data.copy()
    for x in np.arange(-28.0, 28.0, 1.0):
        robot.pose[0] = x
        robot.look()
    grown = robot.mind.map
    assert grown.data.shape[1] * grown.resolution > 56
    y, x = np.round((np.array(before.origin_w) - grown.origin_w) / 0.1).astype(int)[::-1]
    part = grown.data[y : y + old.shape[0], x : x + old.shape[1]]
    assert (part[old == 0] == 0).mean() > 0.98  # nearer looks correct a cell here and there
    assert robot.mind.driven_m == pytest.approx(55.0)


def test_bad_input_is_named():
    mind = Exploration()
    with pytest.raises(ValueError, match="observe must come before decide"):
        mind.decide(0.0)
    with pytest.raises(ValueError, match="pose_w must be 3 finite numbers"):
        mind.observe(0.0, (0, np.nan, 0), [1.0], [0.0], 5.0)
    with pytest.raises(ValueError, match="radius_m must be > 0"):
        ExplorationConfig(radius_m=0.0)
    with pytest.raises(ValueError, match="failures must be >= 1"):
        ExplorationConfig(failures=0)
