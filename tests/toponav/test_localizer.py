"""The localizer by hand, in corridors and empty rooms, and along drives in generated worlds."""

from dataclasses import dataclass

import numpy as np
import pytest

from rnd_agv.observation import full_circle
from rnd_agv.planner import plan
from sim import worlds
from sim.lidar import cast
from toponav import localizer
from toponav.localizer import (
    Field,
    Localizer,
    LocalizerConfig,
    between,
    compose,
    descriptor,
    heading_guesses,
    looked_through,
    match,
    scan_points,
    signature,
    transform,
    walls,
)

LIDAR = full_circle(180, 10.0)
MAKE = {
    "rooms": lambda seed: worlds.rooms(seed),
    "maze": lambda seed: worlds.maze(seed=seed),
    "warehouse": lambda seed: worlds.warehouse(seed),
}


def scans(world, poses, rng, sigma=0.01):
    """Points of a noisy scan from each of (T, 3) poses."""
    poses = np.asarray(poses, np.float64).reshape(-1, 3)
    out = np.empty((len(poses), LIDAR.beams), np.float32)
    cast(
        poses, LIDAR.angle_min, LIDAR.angle_increment, world.boxes[None],
        np.array([len(world.boxes)], np.int32), world.discs[None],
        np.array([len(world.discs)], np.int32), np.zeros(len(poses), np.int32),
        np.zeros((len(poses), 0, 3)), LIDAR.range_max, out,
    )  # fmt: skip
    out += (out < LIDAR.range_max) * rng.normal(0, sigma, out.shape).astype(np.float32)
    return [scan_points(r, LIDAR.angles, LIDAR.range_max) for r in out]


def drive(world, rng, length_m, step_m=0.35, turn=0.35):
    """(T, 3) poses of a robot that drives between random places, turning on the spot."""
    at, yaw, gone = world.free_points(rng, 1, 0.45)[0], 0.0, 0.0
    poses = [[*at, yaw]]
    while gone < length_m:
        goal = world.free_points(rng, 1, 0.45, from_xy=at)[0]
        for to in plan(world.grid(), at, goal, 0.42)[1:]:
            way, heading = np.hypot(*(to - at)), np.arctan2(*(to - at)[::-1])
            if way < 1e-6:
                continue
            swing = localizer.wrap(heading - yaw)
            for share in np.linspace(0, 1, int(np.ceil(abs(swing) / turn)) + 1)[1:]:
                poses.append([*at, yaw + share * swing])
            for share in np.linspace(0, 1, int(np.ceil(way / step_m)) + 1)[1:]:
                poses.append([*(at + share * (to - at)), heading])
            at, yaw, gone = to, heading, gone + way
    return np.array(poses)


def odometry(poses):
    """What wheels say of a drive: 3 % too far, 3 % too much turn, and a degree a metre more."""
    out = [np.zeros(3)]
    for a, b in zip(poses[:-1], poses[1:], strict=True):
        dx, dy, turn = between(a, b)
        step = [1.03 * dx, 1.03 * dy, 1.03 * turn + np.radians(1.0) * np.hypot(dx, dy)]
        out.append(compose(out[-1], step))
    return np.array(out)


def off(a, b):
    """Distance, m, and angle, degrees, between two poses."""
    d = between(a, b)
    return float(np.hypot(d[0], d[1])), float(np.degrees(abs(d[2])))


@dataclass
class Drive:
    """A robot that went about a world with drifting odometry and mapped it on the way."""

    world: worlds.World
    localizer: Localizer
    poses: np.ndarray
    nodes: np.ndarray
    dead_m: float
    errors: np.ndarray
    lost: int


@pytest.fixture(scope="module", params=list(MAKE))
def drove(request):
    seed = 3
    world, rng = MAKE[request.param](seed), np.random.default_rng(seed)
    poses = drive(world, rng, 62.0)
    odom = odometry(poses)
    loc, nodes, errors, lost = Localizer(pose_w=poses[0]), [], [], 0
    for k, points in enumerate(scans(world, poses, rng)):
        told = loc.track(odom[k], points)
        new = told.match is None or told.match.inliers < 0.8
        if not nodes or np.hypot(*(poses[nodes] - poses[k])[:, :2].T).min() > (0.3 if new else 1.5):
            loc.add(k, told.pose_w, points)
            nodes.append(k)
        errors.append(off(told.pose_w, poses[k]))
        lost += told.lost
    dead = off(compose(poses[0], odom[-1]), poses[-1])[0]
    return Drive(world, loc, poses, poses[nodes], dead, np.array(errors), lost)


def test_scan_points_by_hand() -> None:
    angles = np.radians([0, 90, 180, 270, 300])
    points = scan_points([1, np.nan, 2, 3, 10], angles, 10.0)
    assert points == pytest.approx(np.array([[1, 0], [-2, 0], [0, -3]]), abs=1e-12)
    assert scan_points([], [], 10.0).shape == (0, 2)
    with pytest.raises(ValueError, match=r"as many as angles, got \(2,\) and \(3,\)"):
        scan_points([1, 2], [0, 1, 2], 10.0)


def test_near_walls_do_not_take_most_points() -> None:
    angles = np.arange(-80, 80.5, 0.5) * np.pi / 180
    for away, all_of_them in ((0.5, 321), (3.0, 321)):
        ranges = away / np.cos(angles)  # a straight wall
        assert len(scan_points(ranges, angles, 50.0, 0)) == all_of_them
        points = scan_points(ranges, angles, 50.0, 0.1)
        gaps = np.hypot(*np.diff(points, axis=0).T)
        assert len(points) <= 1 + 2 * away * np.tan(np.radians(80)) / 0.1
        assert np.convolve(gaps, [1, 1], "valid").min() > 0.1


def test_poses_by_hand() -> None:
    assert transform((1, 2, np.pi / 2), [[3, 4]]) == pytest.approx(np.array([[-3, 5]]))
    assert compose((1, 2, np.pi / 2), (3, 4, np.pi)) == pytest.approx([-3, 5, -np.pi / 2])
    assert between((1, 2, np.pi / 2), (-3, 5, -np.pi / 2)) == pytest.approx([3, 4, -np.pi])


def test_a_scan_is_joined_along_walls_but_not_across_a_door_or_a_jump() -> None:
    door = [[2, -1.0], [2, -0.7], [2, 0.7], [2, 1.0]]
    a = walls(door)
    assert a[0] == pytest.approx([2, -1.0, 2, -0.7])
    assert a[1] == pytest.approx([2, -0.7, 2, -0.7])  # 1.4 m, 39 degrees
    assert a[2] == pytest.approx([2, 0.7, 2, 1.0])
    # along a corridor whose wall is 0.8 m to the left, then behind its end
    bearing = np.radians([12, 10, 8, 6])
    grazing = np.stack([0.8 / np.tan(bearing), np.full(4, 0.8)], axis=1)
    a = walls([[9.5, 0.0], *grazing[::-1]])
    assert np.array_equal(a[1:4, 2:], grazing[::-1][1:])  # up to 1.9 m apart, yet one wall
    assert np.array_equal(a[0, 2:], a[0, :2])
    with pytest.raises(ValueError, match=r"points must be \(P, 2\), got \(3,\)"):
        walls([1, 2, 3])


def test_the_field_is_the_equation() -> None:
    field = Field.of([[0, 0, 1, 0]], 0.05, 0.1)
    for x, y, d in ((0.5, 0.12, 0.12), (0.5, -0.2, 0.2), (1.06, 0.08, 0.1), (-0.28, 0.0, 0.28)):
        ix, iy = np.floor((np.array([x, y]) - field.origin) / 0.05).astype(int)
        centre = field.origin + (np.array([ix, iy]) + 0.5) * 0.05
        exact = np.hypot(max(centre[0] - 1, -centre[0], 0), centre[1])
        assert abs(exact - d) < 0.036  # half a cell's diagonal
        assert field.value[iy, ix] == pytest.approx(np.exp(-(exact**2) / (2 * 0.1**2)), abs=1e-6)
    assert field.value[0].max() == 0 and field.nearest[0].max() == -1  # farther than 3 sigma
    with pytest.raises(ValueError, match=r"walls must be \(K, 4\) with K >= 1, got \(0, 4\)"):
        Field.of(np.zeros((0, 4)))


def test_every_pose_of_a_window_is_scored() -> None:
    rng = np.random.default_rng(0)
    field = Field.of(rng.uniform(-3, 3, (40, 4)))
    points, guess = rng.uniform(-4, 4, (60, 2)), np.array([0.31, -0.17, 0.4])
    log_p, shift, turn = localizer._search(points, field, guess, 0.5, 0.1, 0.0175)
    assert log_p.shape == (13, 21, 21) and shift[[0, -1]] == pytest.approx([-0.5, 0.5])
    height, width = field.value.shape
    for a, j, i in rng.integers((0, 0, 0), log_p.shape, (30, 3)):
        moved = transform((*guess[:2], guess[2] + turn[a]), points)
        cell = np.floor((moved - field.origin) / 0.05).astype(int) + (i - 10, j - 10)
        x, y = cell[((cell >= 0) & (cell < (width, height))).all(axis=1)].T
        expected = localizer.WEIGHT * field.value[y, x].sum()
        assert log_p[a, j, i] == pytest.approx(expected, abs=1e-4)


def test_without_information_the_covariance_is_that_of_the_window() -> None:
    field = Field.of([[0, 0, 1, 0]])
    m = match([[50.0, 50.0]], field, (1, 2, 3), 0.1, 0.0)
    assert m.pose == pytest.approx([1, 2, 3]) and m.score == m.inliers == 0
    # five steps of 5 cm: the mean square of -10, -5, 0, 5, 10, and 1/12 of a step squared
    assert m.cov[0, 0] == pytest.approx(0.005 + 0.05**2 / 12)
    assert m.cov[2, 2] == pytest.approx(localizer.STEP_RAD**2 / 12)
    assert m.cov[0, 1] == pytest.approx(0, abs=1e-12)


def test_a_moved_scan_is_found_where_it_was_moved_to() -> None:
    world = worlds.rooms(0)
    (points,) = scans(world, [-6.0, 3.0, 0.3], np.random.default_rng(0), 0.0)
    field = Field.of(walls(points))
    for pose in ([0.23, -0.37, 0.28], [-0.41, 0.13, -0.31], [0, 0, 0]):
        back = between(pose, np.zeros(3))
        m = match(transform(back, points), field, np.zeros(3), 0.5, 0.35)
        assert m.pose == pytest.approx(pose, abs=1e-4)
        assert m.score > 0.999 and m.inliers == 1
        assert np.all(np.linalg.eigvalsh(m.cov) > 0) and np.sqrt(m.cov[0, 0]) < 0.1


@pytest.mark.parametrize("kind", list(MAKE))
def test_matches_are_good_to_two_centimetres_and_half_a_degree(kind: str) -> None:
    world, rng = MAKE[kind](1), np.random.default_rng(1)
    poses = drive(world, rng, 25.0)
    seen = scans(world, poses, rng)
    errors = []
    for k in range(0, len(poses) - 6, 3):
        true = between(poses[k], poses[k + int(rng.integers(6))])
        j = int(np.hypot(*(poses - compose(poses[k], true)).T[:2]).argmin())
        true = between(poses[k], poses[j])
        guess = true + rng.uniform(-1, 1, 3) * (0.4, 0.4, 0.3)
        errors.append(off(match(seen[j], Field.of(walls(seen[k])), guess, 0.5, 0.35).pose, true))
    good = (np.array(errors) < (0.02, 0.5)).all(axis=1)
    assert len(good) >= 30 and good.mean() >= 0.95
    assert (np.median(errors, axis=0) < (0.005, 0.1)).all()


def corridor(ends):
    """Points of a corridor 1.6 m wide along x, 8 m both ways, with an end at +8 m or without."""
    x = np.arange(-8, 8.05, 0.1)
    side = np.stack([x, np.full(len(x), 0.8)], axis=1)
    y = np.arange(0.7, -0.75, -0.1)
    end = np.stack([np.full(len(y), 8.0), y], axis=1)
    parts = [side, end, side[::-1] * (1, -1)] if ends else [side, side[::-1] * (1, -1)]
    return np.concatenate(parts)


def test_a_corridor_is_uncertain_along_itself() -> None:
    endless, closed = (
        match(corridor(ends), Field.of(walls(corridor(ends))), (0.1, 0.1, 0.0), 0.5, 0.1)
        for ends in (False, True)
    )
    assert abs(endless.pose[1]) < 0.005
    assert np.sqrt(endless.cov[1, 1]) < 0.05 < 0.2 < np.sqrt(endless.cov[0, 0])
    assert closed.pose == pytest.approx([0, 0, 0], abs=0.01)
    assert closed.cov[0, 0] < 0.3 * endless.cov[0, 0]
    # a corridor that runs at 30 degrees: the long axis turns with it
    turned = transform((0, 0, np.pi / 6), corridor(False))
    m = match(turned, Field.of(walls(turned)), (0.0, 0.0, 0.0), 0.5, 0.1)
    axis = np.linalg.eigh(m.cov[:2, :2])[1][:, -1]
    assert abs(axis @ (np.cos(np.pi / 6), np.sin(np.pi / 6))) > 0.98


def test_a_prior_decides_what_the_walls_leave_open() -> None:
    field = Field.of(walls(corridor(False)))
    prior = np.diag([0.05, 0.1, 0.05]) ** 2
    m = match(corridor(False)[20:-20:3], field, (0.13, 0.13, 0.0), 0.5, 0.1, prior=prior)
    assert m.pose[1] == pytest.approx(0, abs=0.01) and m.pose[0] == pytest.approx(0.13, abs=0.01)
    assert np.sqrt(m.cov[0, 0]) == pytest.approx(0.05, abs=0.015)
    assert np.sqrt(m.cov[1, 1]) < 0.04


def test_a_match_needs_points_and_a_window() -> None:
    field = Field.of([[0, 0, 1, 0]])
    with pytest.raises(ValueError, match=r"points must be \(P, 2\) with P >= 1, got \(0, 2\)"):
        match(np.zeros((0, 2)), field, np.zeros(3), 0.5, 0.1)
    with pytest.raises(ValueError, match="window must be >= 0, got -1 m and 0.1 rad"):
        match([[0, 0]], field, np.zeros(3), -1, 0.1)


def test_kernels_say_the_same_without_a_compiler() -> None:
    rng = np.random.default_rng(2)
    pieces, points = rng.uniform(0.5, 1.5, (6, 4)), rng.uniform(0.5, 1.5, (9, 2))
    corners = rng.integers(-3, 28, (2, 9, 2)).astype(np.int32)
    made = []
    for plain in (False, True):
        draw, add_up, equations = (
            getattr(f, "py_func", f) if plain else f
            for f in (localizer._draw, localizer._add_up, localizer._normal_equations)
        )
        distance, nearest = np.full((30, 30), 0.3, np.float32), np.full((30, 30), -1, np.int32)
        draw(pieces, 0.1, 0.3, distance, nearest)
        out = np.zeros((2, 5, 5), np.float32)
        add_up(distance, corners, out)
        pose = np.array([0.02, -0.01, 0.03])
        parts = equations(points, pieces, nearest, np.zeros(2), 0.1, 0.1, 0.1, pose)
        made.append([distance, nearest, out, *parts])
    for a, b in zip(*made, strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-6)


def test_a_descriptor_has_unit_length_and_no_heading() -> None:
    (points,) = scans(worlds.rooms(0), [-6.0, 3.0, 0.3], np.random.default_rng(0))
    d = descriptor(points)
    assert d.shape == (localizer.RINGS * localizer.HARMONICS,) and d.dtype == np.float32
    assert np.linalg.norm(d) == pytest.approx(1, abs=1e-6)
    sector = 2 * np.pi / localizer.SECTORS
    assert descriptor(transform((0, 0, 7 * sector), points)) == pytest.approx(d, abs=1e-6)
    assert d @ descriptor(transform((0, 0, 1.234), points)) > 0.99
    assert not descriptor(np.zeros((0, 2))).any()


def test_a_signature_by_hand() -> None:
    # in the middle of the second ring, a quarter of a sector after the first
    angle = 0.25 * 2 * np.pi / localizer.SECTORS
    r = 1.5 * localizer.RING_M
    s = signature([[r * np.cos(angle), r * np.sin(angle)]])
    assert s[1, 0] == pytest.approx(0.75, abs=1e-5) and s[1, 1] == pytest.approx(0.25, abs=1e-5)
    assert s.sum() == pytest.approx(1, abs=1e-5)
    assert signature([[localizer.RINGS * localizer.RING_M + 1, 0]]).sum() == 0


@pytest.mark.parametrize("kind", list(MAKE))
def test_near_places_look_alike_and_far_ones_do_not(kind: str) -> None:
    world, rng = MAKE[kind](2), np.random.default_rng(2)
    at = world.free_points(rng, 25, 0.8)
    yaw = rng.uniform(-np.pi, np.pi, (2, 25, 1))
    here = scans(world, np.hstack([at, yaw[0]]), rng)
    aside = at + rng.uniform(-0.35, 0.35, (25, 2))
    there = scans(world, np.hstack([aside, yaw[1]]), rng)
    a, b = (np.array([descriptor(p) for p in part]) for part in (here, there))
    alike = b @ a.T
    far = np.hypot(*(at[:, None] - at).transpose(2, 0, 1)) > 3
    assert np.diag(alike).mean() > 0.9 > 0.85 > alike[far].mean()
    # and the way from one heading to the other is among the first guesses
    right = 0
    for k in range(25):
        turn = float(localizer.wrap(yaw[1, k, 0] - yaw[0, k, 0]))
        guesses = heading_guesses(signature(here[k]), signature(there[k]), 3)
        right += np.abs(localizer.wrap(guesses - turn)).min() < 0.2
    assert right >= 23


def test_what_was_looked_through_by_hand() -> None:
    seen = np.stack([np.full(21, 3.0), np.linspace(-1, 1, 21)], axis=1)  # a wall 3 m ahead
    pose = (1.0, 0.0, 0.0)
    before, on, behind, aside = [2.0, 0.0], [4.0, 0.2], [6.0, 0.0], [1.0, 3.0]
    assert looked_through(seen, [before], pose) == 1
    assert looked_through(seen, [on], pose) == 0
    assert looked_through(seen, [before, on, behind, aside], pose) == 0.5
    assert looked_through(seen, [behind, aside], pose) == 0


def test_belief_grows_with_the_way_not_with_the_calls() -> None:
    for calls in (1, 10):
        loc = Localizer(LocalizerConfig(drift_m=0.1, drift_rad=0.2), (5, 5, np.pi / 2))
        for x in np.linspace(0, 4, calls + 1):
            told = loc.track((x, 0, 0), np.zeros((0, 2)))
        assert told.pose_w == pytest.approx([5, 9, np.pi / 2])
        # along: 0.1^2 a metre; yaw: 0.2^2 a metre
        assert told.cov[1, 1] == pytest.approx(0.04) and told.cov[2, 2] == pytest.approx(0.16)
        assert told.match is None and not told.believed and not told.lost
    loc = Localizer(LocalizerConfig(drift_rad=0.2))
    loc.track((0, 0, 0), np.zeros((0, 2)))
    assert loc.track((0, 0, 0.5), np.zeros((0, 2))).cov[2, 2] == pytest.approx(0.02)


def test_a_doubt_in_yaw_becomes_one_across_the_way() -> None:
    loc = Localizer(LocalizerConfig(drift_m=1e-6, drift_rad=1e-6))
    loc.place(np.zeros(3), np.diag([0, 0, 0.01]))
    loc.track(np.zeros(3), np.zeros((0, 2)))
    told = loc.track((2.0, 0, 0), np.zeros((0, 2)))
    assert told.cov[1, 1] == pytest.approx(0.04) and told.cov[1, 2] == pytest.approx(0.02)
    assert told.cov[0, 0] < 1e-9


def test_drift_is_corrected_along_sixty_metres(drove) -> None:
    assert np.hypot(*np.diff(drove.poses[:, :2], axis=0).T).sum() >= 60
    assert drove.dead_m > 1
    assert drove.errors[-1, 0] < 0.15 and drove.errors[:, 0].max() < 0.15
    assert drove.errors[:, 1].max() < 1.5
    assert drove.lost == 0
    assert len(drove.localizer) == len(drove.nodes)


def kidnaps(drove, rng, count):
    """(count, 5, 3) poses within 1 m of a node, each 0.3 m farther along the drive, any heading."""
    way = np.concatenate([[0], np.hypot(*np.diff(drove.poses[:, :2], axis=0).T).cumsum()])
    out = []
    while len(out) < count:
        at = rng.uniform(0, way[-1] - 1.5) + 0.3 * np.arange(5)
        xy = np.stack([np.interp(at, way, drove.poses[:, k]) for k in (0, 1)], axis=1)
        xy += rng.uniform(-0.5, 0.5, 2)
        near = np.hypot(*(drove.nodes[:, :2] - xy[0]).T).min()
        if near <= 1.0 and drove.world.clearance(xy).min() > 0.3:
            out.append(np.column_stack([xy, np.full(5, rng.uniform(-np.pi, np.pi))]))
    return np.array(out)


def ask(loc, world, poses, rng):
    """The answer to up to five scans on the way, and the true pose there, or (None, None)."""
    loc.place(np.zeros(3))
    for pose, odom, points in zip(poses, odometry(poses), scans(world, poses, rng), strict=True):
        found = loc.relocalise(points, odom)
        if found is not None:
            return found, pose
    return None, None


def test_a_kidnapped_robot_is_found(drove) -> None:
    rng = np.random.default_rng(11)
    right = 0
    for poses in kidnaps(drove, rng, 4):
        found, true = ask(drove.localizer, drove.world, poses, rng)
        if found is not None:
            metres, degrees = off(found.pose, true)
            assert metres < 0.3 and degrees < 10  # "I do not know" is no answer, a wrong one is
            assert found.inliers >= 0.9 and found.node >= 0
            right += 1
    assert right >= 3


def test_a_robot_in_another_world_is_not_found(drove) -> None:
    rng = np.random.default_rng(12)
    other = worlds.hall(12.0, seed=5)
    at = other.free_points(rng, 1, 0.8)[0]
    poses = np.column_stack([np.tile(at, (2, 1)), rng.uniform(-3, 3, 2)])
    assert ask(drove.localizer, other, poses, rng) == (None, None)


def test_a_kidnapped_robot_notices(drove) -> None:
    rng, loc = np.random.default_rng(13), drove.localizer
    far = max(kidnaps(drove, rng, 8), key=lambda p: off(p[0], drove.poses[-1])[0])
    loc.place(drove.poses[-1], np.diag([0.02, 0.02, 0.01]) ** 2)
    poses = np.repeat(far, 3, axis=0)
    seen = zip(odometry(poses), scans(drove.world, poses, rng), strict=True)
    told = [loc.track(odom, points) for odom, points in seen]
    assert not told[loc.config.lost_after - 2].lost and any(t.lost for t in told)


def test_a_bare_square_room_has_four_answers_and_gives_none() -> None:
    side = np.arange(-2, 2, 0.1)
    edge = np.stack([np.full(len(side), 2.0), side], axis=1)
    room = np.concatenate([transform((0, 0, k * np.pi / 2), edge) for k in range(4)])
    room = room[np.argsort(np.arctan2(room[:, 1], room[:, 0]))]
    loc = Localizer()
    loc.add(0, np.zeros(3), room)
    assert loc.relocalise(transform((0, 0, 0.4), room)) is None
    notch = room[~((room[:, 0] > 1.9) & (np.abs(room[:, 1]) < 0.8))]  # a door tells them apart
    loc.add(0, np.zeros(3), notch)
    found = loc.relocalise(transform((0, 0, 0.4), notch))
    assert found is not None and found.pose == pytest.approx([0, 0, -0.4], abs=0.01)
    assert found.node == 0


def test_evidence_adds_up_only_along_odometry() -> None:
    world, rng = worlds.rooms(4), np.random.default_rng(4)
    nodes = np.column_stack([world.free_points(rng, 12, 0.6), rng.uniform(-3, 3, 12)])
    seen, true = scans(world, nodes, rng), nodes[5] + (0.1, 0.1, 1.0)
    (points,) = scans(world, true, rng)

    def mapped(sure_lead: float) -> Localizer:
        config = LocalizerConfig(sure_lead=sure_lead, sure_inliers=0.5, sure_std_m=2.0, ranked=3)
        loc = Localizer(config)
        for k, (pose, scan) in enumerate(zip(nodes, seen, strict=True)):
            loc.add(k, pose, scan)
        return loc

    loc = mapped(0.01)
    assert loc.relocalise(points) is not None
    first, second = sorted((g.evidence for g in loc._guesses), reverse=True)[:2]
    loc = mapped(1.5 * (first - second))
    assert loc.relocalise(points) is None and loc.relocalise(points) is None
    assert loc.relocalise(points, np.zeros(3)) is None
    found = loc.relocalise(points, np.zeros(3))
    assert found is not None and off(found.pose, true)[0] < 0.05
    loc.place(np.zeros(3))
    assert loc.relocalise(points, np.zeros(3)) is None


def test_a_map_without_nodes_and_a_scan_without_points_say_nothing() -> None:
    loc = Localizer()
    assert loc.relocalise([[1.0, 0.0]]) is None
    loc.add(7, np.zeros(3), [[1.0, 0.0], [1.0, 0.1]])
    assert loc.relocalise(np.zeros((0, 2))) is None
    with pytest.raises(ValueError, match=r"points must be \(P, 2\) with P >= 1, got \(0, 2\)"):
        loc.add(8, np.zeros(3), np.zeros((0, 2)))


def test_memory_is_capped_where_nodes_are_crowded() -> None:
    loc = Localizer(LocalizerConfig(max_nodes=3))
    for node, x in ((10, 0.0), (11, 5.0), (12, 5.5)):
        assert loc.add(node, (x, 0, 0), [[1.0, 0.0]]) is None
    assert loc.add(13, (9.0, 0, 0), [[1.0, 0.0]]) == 12  # the later of the two nearest
    assert loc.state_dict()["ids"].tolist() == [10, 11, 13]
    assert loc.add(11, (5.0, 1, 0), [[1.0, 0.0]]) is None and len(loc) == 3  # replaced
    loc.forget(10)
    assert loc.state_dict()["poses_w"].tolist() == [[5, 1, 0], [9, 0, 0]]
    with pytest.raises(KeyError):
        loc.forget(10)


def test_a_loaded_localizer_goes_on_bit_for_bit() -> None:
    world, rng = worlds.rooms(1), np.random.default_rng(1)
    poses = drive(world, rng, 6.0)
    odom, seen = odometry(poses), scans(world, poses, rng)
    a, b = Localizer(pose_w=poses[0]), Localizer()
    for k in (0, 8, 16):
        a.add(k, poses[k], seen[k])
    for k in range(12):
        a.track(odom[k], seen[k])
    b.load_state_dict(a.state_dict())
    for key, value in a.state_dict().items():
        assert np.array_equal(value, b.state_dict()[key], equal_nan=True)
    for k in range(12, 18):
        one, two = a.track(odom[k], seen[k]), b.track(odom[k], seen[k])
        assert np.array_equal(one.pose_w, two.pose_w) and np.array_equal(one.cov, two.cov)
    one, two = a.relocalise(seen[4]), b.relocalise(seen[4])
    assert (one is None) == (two is None)
    assert one is None or np.array_equal(one.pose, two.pose)


def test_a_state_that_does_not_fit_is_refused() -> None:
    loc = Localizer()
    loc.add(0, np.zeros(3), [[1.0, 0.0]])
    state = loc.state_dict()
    with pytest.raises(ValueError, match="state must have keys"):
        loc.load_state_dict({"pose_w": np.zeros(3)})
    with pytest.raises(ValueError, match="state must have one pose and count per id"):
        loc.load_state_dict({**state, "counts": np.array([2])})
    empty = Localizer()
    empty.load_state_dict(Localizer().state_dict())
    assert len(empty) == 0


@pytest.mark.parametrize(
    ("field", "value"), [("cell_m", 0.0), ("near", 0), ("sure_inliers", 1.5), ("gate", np.nan)]
)
def test_a_config_is_checked(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field} must be > 0"):
        LocalizerConfig(**{field: value})
