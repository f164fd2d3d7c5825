"""The find task and the labels of beams."""

import mujoco
import numpy as np
import pytest

from sim.batch import BatchEnv
from sim.labels import PERFECT, Detector, LabelNoise
from sim.robots import world_spec
from sim.tasks import make
from sim.worlds import LABELS, World
from sim.worlds.furnished import DOOR_M, SIZE_M, furnished
from toponav.prior import office_floor

EXTINGUISHER, PLANT = LABELS.index("extinguisher"), LABELS.index("plant")
AHEAD, STAND = np.float32([[1.0, 0.0]]), np.float32([[-0.5, 0.0]])


@pytest.mark.parametrize("seed", range(3))
def test_furnished_floors_can_be_driven_and_hold_what_the_prior_says(seed):
    building, again = furnished(seed), furnished(seed)
    assert np.array_equal(building.world.boxes, again.world.boxes)
    assert building.world.reachable_share() > 0.98
    assert sum(room.type == "corridor" for room in building.rooms) >= 3
    prior = office_floor()
    for row in building.things:
        name = LABELS[building.world.box_labels[row]]
        cx, cy, hx, hy = building.world.boxes[row].astype(float)
        assert sorted((2 * hx, 2 * hy)) == pytest.approx(sorted(SIZE_M[name]), abs=1e-5)
        room = building.room_at(np.array([cx, cy]))
        assert room is not None and prior.count[prior.types.index(room.type)][
            prior.classes.index(name)
        ] > 0  # fmt: skip
        for door in building.doors:
            gap = np.maximum(np.abs([cx - door.x, cy - door.y]) - (hx, hy), 0)
            assert np.hypot(*gap) > DOOR_M[0] / 2 - 0.05


def test_rooms_of_a_type_hold_as_many_things_as_the_prior_says():
    prior, seen, rooms = office_floor(), 0, 0
    for seed in range(25):
        building = furnished(seed)
        desks = building.boxes_of("desk")
        for room in building.rooms:
            if room.type == "office":
                x0, y0, x1, y1 = room.box
                rooms += 1
                seen += int(((desks[:, 0] > x0) & (desks[:, 0] < x1) & (desks[:, 1] > y0)
                             & (desks[:, 1] < y1)).sum())  # fmt: skip
    assert rooms > 100
    assert seen / rooms == pytest.approx(prior.count[1, 0], abs=0.15)


def test_a_bad_floor_or_task_is_refused():
    with pytest.raises(ValueError, match="seed >= 0 and size"):
        furnished(-1)
    with pytest.raises(ValueError, match="wanted must be one of .*, got 'unicorn'"):
        make("find", wanted="unicorn")
    with pytest.raises(ValueError, match="labels must be True"):
        make("find", labels=False)
    with pytest.raises(ValueError, match="miss must be 0 <= low <= high <= 1"):
        LabelNoise(miss=(0.5, 0.2))


@pytest.mark.parametrize("tier", ["kinematic", "mujoco"])
def test_labels_are_those_of_the_geoms_that_mujoco_says_are_hit(tier):
    task = make("find", layouts=1, beams=90)
    env = BatchEnv(task, 1, tier, seed=3)
    env.reset()
    world = env.placements[0].world
    model = world_spec(world, task.robot).compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    x, y, yaw = env.lidar_pose(np.array([0]))[0]
    angles, n = yaw + task.scan.angles, task.scan.beams
    vec = np.stack([np.cos(angles), np.sin(angles), np.zeros(n)], axis=1)
    geoms, ranges = np.empty(n, np.int32), np.empty(n)
    group = np.array([0, 1, 0, 0, 0, 0], np.uint8)  # statics alone
    mujoco.mj_multiRay(model, data, np.array([x, y, 0.1]), vec.ravel(), group, 1, -1, geoms, ranges,
                       None, n, task.scan.range_max)  # fmt: skip
    hit = (geoms >= 0) & (ranges <= task.scan.range_max)
    names = [model.geom(g).name if ok else "" for g, ok in zip(geoms, hit, strict=True)]
    theirs = [world.box_labels[int(name[3:])] if name else -1 for name in names]
    assert len(set(theirs)) > 2
    assert np.mean(env.labels[0] == theirs) > 0.97  # a beam or two graze an edge


class Corridor(type(make("find"))):
    """A find task in a hall with a thing before the robot, and another behind a wall."""

    def place(self, rng):
        placement = super().place(rng)
        boxes = np.array([(3.0, 0.0, 0.2, 0.2), (0.0, 1.0, 8.0, 0.1), (0.0, 1.5, 0.2, 0.2)],
                         np.float32)  # fmt: skip
        world = World("hall", 0, (-9.0, -9.0, 9.0, 9.0), boxes,
                      np.array([EXTINGUISHER, 0, EXTINGUISHER], np.int8))  # fmt: skip
        placement.world, placement.start_w = world, np.zeros(3)
        return placement


def test_success_is_the_thing_in_view_within_a_metre_and_not_behind_a_wall():
    env = BatchEnv(Corridor(max_steps=400), 1, seed=1)
    env.reset()
    lidar_x = env.robot.lidar_x_m
    assert env.state.wanted_m[0] == pytest.approx(2.8 - lidar_x, abs=1e-3)
    assert env.state.wanted_w[0] == pytest.approx([2.8, 0.0], abs=0.05)
    for _ in range(20):  # 1.4 m from the one behind the wall
        assert not env.step(STAND).terms["success"][0]
    for _ in range(200):
        before = env.state.pose_w[0, 0]
        if env.step(AHEAD).terms["success"][0]:
            break
    assert before + lidar_x == pytest.approx(1.8, abs=0.25)


def test_the_policy_is_not_told_where_an_unseen_thing_is():
    env = BatchEnv(make("find", layouts=4), 4, seed=2)
    first = env.reset()
    scan = env.config.observation.scan_dim
    unseen = ~np.isfinite(env.state.wanted_m)
    assert unseen.any()
    env.state.goal_w[:] += 5.0  # what only the simulator knows
    assert np.array_equal(env.task.observe(env.state), first)
    assert np.abs(first[unseen, scan : scan + 2]).max() < 1e-6  # no distance


def test_a_detector_without_errors_gives_the_labels_as_they_are():
    labels = np.array([0, 0, EXTINGUISHER, EXTINGUISHER, 0, -1, PLANT], np.int8)
    seen = Detector(("extinguisher", "plant"), PERFECT, 0).see(labels)
    assert np.array_equal(seen, labels) and seen is not labels


def test_a_detector_misses_and_mistakes_whole_things_as_often_as_it_says():
    labels = np.full(60, 0, np.int8)
    labels[10:15], labels[58:], labels[:2] = EXTINGUISHER, PLANT, PLANT  # one across the seam
    noise = LabelNoise((0.3, 0.3), (0.2, 0.2), (0.0, 0.0))
    detector = Detector(("extinguisher", "plant"), noise, 1)
    looks = np.array([detector.see(labels) for _ in range(2000)])
    runs = looks[:, 10:15], looks[:, [58, 59, 0, 1]]
    assert all((run == run[:, :1]).all() for run in runs)
    for run, mine, other in zip(runs, (EXTINGUISHER, PLANT), (PLANT, EXTINGUISHER), strict=True):
        assert (run[:, 0] == -1).mean() == pytest.approx(0.3, abs=0.04)
        assert (run[:, 0] == other).mean() == pytest.approx(0.2, abs=0.04)
        assert (run[:, 0] == mine).mean() == pytest.approx(0.5, abs=0.04)
    assert (looks[:, 20:50] == 0).all()
