"""Height fields: the ground, rays against MuJoCo, what the wheels work, the environments."""

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import sim
from sim.mujoco_terrain import RingLidar, TerrainSim
from sim.tasks.terrain import CrossingConfig, TerrainEnv, TerrainGoalEnv
from sim.terrain_rays import cast
from sim.worlds.terrain import Terrain, TerrainConfig, terrain

GROUPS = np.array([1, 1, 0, 0, 0, 0], np.uint8)
"""Ground and trunks, not the robot."""
SMALL = TerrainConfig(side_m=16.0, hills=(2, 3), ridges=(0, 1), trees=(4, 8), distance_m=(8, 12))


def plane(slope, side_m=24.0, start=(-8.0, 0.0, 0.0), goal=(8.0, 0.0), trees=()):
    """Ground that rises along x."""
    line = np.linspace(-side_m / 2, side_m / 2, round(side_m / 0.2) + 1)
    heights = np.tile(slope * line, (len(line), 1)).astype(np.float32)
    return Terrain(
        "plane", 0, heights, 0.2, (-side_m / 2, -side_m / 2), np.reshape(trees, (-1, 3)) * 1.0,
        np.array(start), np.array(goal),
    )  # fmt: skip


def drive(where, command, seconds):
    robot = TerrainSim(where)
    for _ in range(round(seconds / 0.05)):
        robot.step(command)
    return robot


def test_a_terrain_is_the_same_for_the_same_seed_and_another_for_another():
    one, two, other = terrain(3, SMALL), terrain(3, SMALL), terrain(4, SMALL)
    assert np.array_equal(one.heights, two.heights) and np.array_equal(one.trees, two.trees)
    assert not np.array_equal(one.heights, other.heights)


def test_a_safe_way_leads_from_start_to_goal():
    import cv2

    c = TerrainConfig()
    for seed in range(5):
        field = terrain(seed)
        safe = field.safe(c.safe_slope, c.safe_m)
        _, region = cv2.connectedComponents(safe.astype(np.uint8), connectivity=4)
        at = [
            tuple(np.rint((p - field.origin_w) / field.cell_m).astype(int)[::-1])
            for p in (field.start_w[:2], field.goal_w)
        ]
        assert region[at[0]] == region[at[1]] > 0
        far = np.hypot(*(field.goal_w - field.start_w[:2]))
        assert c.distance_m[0] <= far <= c.distance_m[1]
        assert (field.slope() > c.safe_slope).mean() > 0.02  # and not all of it is safe


def test_impossible_terrain_is_refused():
    with pytest.raises(ValueError, match="no passable terrain"):
        terrain(0, TerrainConfig(side_m=12.0, distance_m=(5, 6), safe_m=7.0))
    with pytest.raises(ValueError, match="hill_m"):
        TerrainConfig(hill_m=(2.0, 1.0))


def test_heights_are_those_of_mujocos_triangles():
    robot = TerrainSim(terrain(1, SMALL))
    points = np.random.default_rng(0).uniform(-7.9, 7.9, (300, 2))
    down, geom = np.array([0.0, 0.0, -1.0]), np.zeros(1, np.int32)
    only_ground = np.array([1, 0, 0, 0, 0, 0], np.uint8)
    theirs = [
        50 - mujoco.mj_ray(robot.model, robot.data, np.array([*p, 50.0]), down, only_ground, 1, -1,
                           geom)
        for p in points
    ]  # fmt: skip
    np.testing.assert_allclose(robot.terrain.height(points), theirs, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_rays_agree_with_mujoco_below_a_tenth_of_a_millimetre(seed):
    lidar = RingLidar(rings=12, azimuths=60, sigma_m=0.0)
    robot = TerrainSim(terrain(seed, SMALL), lidar=lidar)
    for _ in range(40):
        robot.step((0.8, 0.5))
    mine = robot.scan().ravel()
    beams = np.ascontiguousarray(lidar.directions_b.reshape(-1, 3) @ robot.rot.T)
    mast = robot.pos_w + robot.rot @ (0, 0, lidar.height_m)
    geom = np.zeros(1, np.int32)
    theirs = np.array(
        [mujoco.mj_ray(robot.model, robot.data, mast, b, GROUPS, 1, -1, geom) for b in beams]
    )
    theirs = np.where((theirs < 0) | (theirs > lidar.range_m), lidar.range_m, theirs)
    assert 0.3 < (theirs < lidar.range_m).mean() < 1
    assert np.abs(mine - theirs).max() < 1e-4


def test_rays_against_a_trunk_by_hand():
    flat = np.zeros((3, 3), np.float32)
    trunk = np.array([[2.0, 0.0, 0.5, 0.0, 1.0]])
    origin = np.array([0.0, 0.0, 0.5])
    beams = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, -1], [0.6, 0, 0.8]])
    got = cast(origin, beams, flat, (-5.0, -5.0, 5.0), trunk, 9.0)
    np.testing.assert_allclose(got, [1.5, 9.0, 0.5, 9.0])
    above = cast(np.array([2.2, 0, 3.0]), beams[2:3], flat, (-5.0, -5.0, 5.0), trunk, 9.0)
    assert above[0] == pytest.approx(2.0)  # onto the top
    slanted = np.array([[-0.1, 0, -1.0]]) / np.hypot(0.1, 1.0)
    top = cast(np.array([2.3, 0, 3.0]), slanted, flat, (-5.0, -5.0, 5.0), trunk, 9.0)
    assert top[0] == pytest.approx(2.0 * np.hypot(0.1, 1.0))


def test_climbing_costs_the_height_and_descending_is_not_paid_back():
    level, up, down = (drive(plane(s), (0.8, 0.0), 6.0) for s in (0.0, 0.2, -0.2))
    climb = up.pos_w[2] - TerrainSim(plane(0.2)).pos_w[2]
    mass = float(up.model.body_mass.sum())
    assert climb > 0.7
    extra = up.energy_j - level.energy_j * up.driven_m / level.driven_m
    assert extra == pytest.approx(mass * 9.81 * climb, rel=0.2)
    assert 0 <= down.energy_j < 0.6 * level.energy_j


def test_a_robot_that_stands_works_nothing():
    robot = drive(plane(0.0), (0.0, 0.0), 1.0)
    assert robot.energy_j < 0.1 and robot.driven_m < 0.01 and not robot.rolled_over


def test_a_trunk_is_touched():
    robot = drive(plane(0.0, trees=[(-6.5, 0.0, 0.2)]), (0.8, 0.0), 4.0)
    assert robot.touched and robot.pos_w[0] < -6.5
    assert not drive(plane(0.0), (0.8, 0.0), 4.0).touched


def test_a_robot_on_its_side_has_rolled_over():
    robot = TerrainSim(plane(0.0))
    robot.data.qpos[3:7] = np.cos(0.7), np.sin(0.7), 0.0, 0.0  # 80 degrees about x
    robot.data.qpos[2] += 0.2
    robot.step((0.0, 0.0))
    assert robot.rolled_over


def test_the_environments_pass_gymnasiums_checker():
    sim.registration.register()
    for name in ("Incognita/Terrain-v0", "Incognita/TerrainGoal-v0"):
        env = gymnasium.make(name, world=SMALL)
        check_env(env.unwrapped, skip_render_check=True)


def test_episodes_repeat_and_end_by_goal_or_time():
    def run(env):
        obs, info = env.reset(seed=5)
        out = [obs]
        rng = np.random.default_rng(0)
        for _ in range(30):
            obs, *_, info = env.step(rng.uniform(-1, 1, 2).astype(np.float32))
            out.append(obs)
        return np.array(out), info

    (one, info), (two, _) = (run(TerrainEnv(world=SMALL)) for _ in range(2))
    assert np.array_equal(one, two) and info["energy_j"] > 0

    env = TerrainEnv(world=SMALL, max_steps=3)
    env.reset(seed=1)
    still = np.array([-0.6, 0.0], np.float32)  # v_min + 0.2 of the range: standing
    assert [env.step(still)[3] for _ in range(3)] == [False, False, True]
    env.sim.data.qpos[:2] = env.terrain.goal_w
    _, reward, terminated, _, info = env.step(still)
    assert terminated and info["success"] and reward == pytest.approx(10.0)


def test_the_goal_reward_is_vectorised_and_that_of_the_step():
    env = TerrainGoalEnv(CrossingConfig(world=SMALL))
    env.reset(seed=0)
    obs, reward, *_, info = env.step(np.zeros(2, np.float32))
    assert reward == env.compute_reward(obs["achieved_goal"], obs["desired_goal"], info) == -1.0
    goals = np.tile(obs["desired_goal"], (4, 1))
    goals[:2] += 0.1
    goals[2:] += 1.0
    rewards = env.compute_reward(goals, np.tile(obs["desired_goal"], (4, 1)), {})
    np.testing.assert_array_equal(rewards, [0, 0, -1, -1])
