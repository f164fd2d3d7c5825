"""The arena as a task: the scene that the reward model's rollouts show, with lidar and contacts."""

import numpy as np
import pytest

from sim.arena import FAMILIES, LANDMARKS, ArenaConfig, ArenaWorld, draw_arena
from sim.batch import BatchEnv
from sim.lidar import cast
from sim.tasks import make
from sim.tasks.agv_arena import REACH_M, world_of


def test_a_number_gives_one_arena_and_one_instruction():
    place = make("agv-arena", layouts=1, first_layout=7).place
    a, b = place(np.random.default_rng(0)), place(np.random.default_rng(1))
    assert a.instruction == b.instruction and a.layout == 7
    np.testing.assert_array_equal(a.goal_w, b.goal_w)
    np.testing.assert_array_equal(a.arena.xy, b.arena.xy)
    other = make("agv-arena", layouts=1, first_layout=8).place(np.random.default_rng(0))
    assert not np.array_equal(other.arena.xy, a.arena.xy)


def test_the_mast_camera_sees_what_rollouts_show():
    """Frame 0 of a rollout and the camera's own picture of its arena, the robot at its start."""
    world = ArenaWorld()
    try:
        shown = world.rollout(np.random.default_rng(5))
        arena = draw_arena(np.random.default_rng(5), world.config)
        world.dress(arena)
        mine = world.frame(arena.start)
    finally:
        world.close()
    assert len(shown.told) == len(FAMILIES) * LANDMARKS
    off = np.abs(mine.astype(int) - shown.images[0])
    assert off.mean() < 0.5 and mine.std() > 10  # it had driven for one step of 50 ms


def test_landmarks_are_where_the_camera_sees_them_for_the_lidar_too():
    """A beam at a landmark's centre reads the gap to its surface, worked out by hand."""
    pillars = tuple((colour, "pillar") for colour in ("red", "green", "blue"))
    arena = draw_arena(np.random.default_rng(2), ArenaConfig(combos=pillars))
    world = world_of(arena, 2)
    at, start = arena.xy[0], arena.start
    way = at - start[:2]
    pose = np.array([[start[0], start[1], np.arctan2(way[1], way[0])]])
    out, boxes = np.empty((1, 1), np.float32), np.zeros((1, 1, 4), np.float32)
    cast(pose, 0.0, 0.1, boxes, np.zeros(1, np.int32), world.discs[None],
         np.full(1, 3, np.int32), np.zeros(1, np.int32), np.zeros((1, 0, 3)), 6.0, out)  # fmt: skip
    assert out[0, 0] == pytest.approx(np.hypot(*way) - 0.21, abs=1e-3)


@pytest.mark.parametrize("tier", ["kinematic", "mujoco"])
def test_driving_at_the_goal_succeeds_and_at_another_landmark_collides(tier):
    task = make("agv-arena", layouts=1, first_layout=3)
    env = BatchEnv(task, 2, tier, 0)
    env.reset()
    placement = task.place(np.random.default_rng(0))
    others = [xy for xy in placement.arena.xy if not np.array_equal(xy, placement.goal_w)]
    targets = np.array([placement.goal_w, others[0]])
    ended = {}
    for _ in range(400):
        pose = env.state.pose_w
        way = targets - pose[:, :2]
        turn = np.arctan2(way[:, 1], way[:, 0]) - pose[:, 2]
        turn = (turn + np.pi) % (2 * np.pi) - np.pi
        ahead = np.where(np.abs(turn) < 0.3, 0.4, -1 / 3)
        step = env.step(np.stack([ahead, np.clip(turn, -0.5, 0.5)], axis=1).astype(np.float32))
        for row in np.flatnonzero(step.terminated | step.truncated):
            ended.setdefault(
                int(row), {k: bool(step.terms[k][row]) for k in ("success", "collision")}
            )
        if len(ended) == 2:
            break
    assert ended == {
        0: {"success": True, "collision": False},
        1: {"success": False, "collision": True},
    }
    assert task.config.goal_radius_m == REACH_M == pytest.approx(0.88)
