"""The analytic lidar against ``mj_multiRay``, by hand, and at its odd corners."""

import mujoco
import numpy as np
import pytest

from rnd_agv.observation import full_circle
from sim import worlds
from sim.lidar import _MARGIN, _atan2, cast, cast_labelled

HALF = 10.0


def scene(rng: np.random.Generator, boxes: int, discs: int) -> tuple[np.ndarray, np.ndarray]:
    """A walled 20 m square with random boxes (K, 4) and discs (D, 3)."""
    walls = [(0, HALF + 0.1, HALF + 0.2, 0.1), (0, -HALF - 0.1, HALF + 0.2, 0.1)]
    walls += [(HALF + 0.1, 0, 0.1, HALF), (-HALF - 0.1, 0, 0.1, HALF)]
    inner = np.concatenate(
        [rng.uniform(-9, 9, (boxes, 2)), rng.uniform(0.05, 0.8, (boxes, 2))], axis=1
    )
    rounds = np.concatenate(
        [rng.uniform(-9, 9, (discs, 2)), rng.uniform(0.05, 0.6, (discs, 1))], axis=1
    )
    return np.concatenate([walls, inner]).astype(np.float32), rounds.astype(np.float32)


def free_poses(
    rng: np.random.Generator, boxes: np.ndarray, discs: np.ndarray, n: int
) -> np.ndarray:
    """(n, 3) poses outside everything, any yaw, many turns of it."""
    out: list[np.ndarray] = []
    while len(out) < n:
        p = rng.uniform(-HALF + 0.01, HALF - 0.01, 2)
        in_box = (np.abs(p - boxes[:, :2]) < boxes[:, 2:] + 0.01).all(axis=1).any()
        if not in_box and not (np.hypot(*(p - discs[:, :2]).T) < discs[:, 2] + 0.01).any():
            out.append(np.array([*p, rng.uniform(-20, 20)]))
    return np.array(out)


def multi_ray(boxes, discs, poses, angles, max_range):
    """Ranges (N, B) and geom ids (boxes first, then discs) of MuJoCo for the same scene."""
    spec = mujoco.MjSpec()
    for cx, cy, hx, hy in boxes.astype(float):
        spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX, pos=[cx, cy, 0.5], size=[hx, hy, 0.5]
        )
    for x, y, r in discs.astype(float):
        spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CYLINDER, pos=[x, y, 0.5], size=[r, 0.5, 0]
        )
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    n = len(angles)
    ranges, geoms = np.empty((len(poses), n)), np.empty((len(poses), n), np.int32)
    for i, (x, y, yaw) in enumerate(poses):
        vec = np.stack([np.cos(yaw + angles), np.sin(yaw + angles), np.zeros(n)], axis=1)
        mujoco.mj_multiRay(
            model, data, np.array([x, y, 0.5]), vec.ravel(), None, 1, -1, geoms[i], ranges[i], None,
            n, max_range,
        )  # fmt: skip
    miss = (ranges < 0) | (ranges > max_range)
    return np.where(miss, max_range, ranges), np.where(miss, -1, geoms)


def scan(pose_w, angle_min, increment, beams, boxes, discs=(), movers=(), max_range=10.0):
    """One scan (B,) of one world."""
    boxes = np.array(boxes, np.float32).reshape(1, -1, 4)
    discs = np.array(discs, np.float32).reshape(1, -1, 3)
    movers = np.array(movers, np.float64).reshape(1, -1, 3)
    out = np.full((1, beams), np.nan, np.float32)
    cast(
        np.array([pose_w], np.float64), angle_min, increment, boxes,
        np.array([boxes.shape[1]], np.int32), discs, np.array([discs.shape[1]], np.int32),
        np.zeros(1, np.int32), movers, max_range, out,
    )  # fmt: skip
    return out[0]


@pytest.mark.parametrize("beams", [36, 64, 360, 719])
@pytest.mark.parametrize("max_range", [4.0, 30.0])
@pytest.mark.parametrize("discs", [0, 25])
def test_scans_equal_mujocos(beams: int, max_range: float, discs: int) -> None:
    rng = np.random.default_rng([beams, discs])
    boxes, rounds = scene(rng, 56, discs)
    poses = free_poses(rng, boxes, rounds, 60)
    form = full_circle(beams, max_range)
    out = np.empty((60, beams), np.float32)
    labels = np.empty((60, beams), np.int8)
    one = np.zeros(60, np.int32)
    none = np.zeros((60, 0, 3))
    args = (
        poses, form.angle_min, form.angle_increment, boxes[None], np.array([len(boxes)], np.int32),
        rounds[None], np.array([len(rounds)], np.int32), one, none, max_range,
    )  # fmt: skip
    cast(*args, out)
    theirs, geoms = multi_ray(boxes, rounds, poses, form.angles, max_range)
    error = np.abs(out - theirs)
    assert (error < 1e-3).mean() >= 0.999
    assert np.median(error) < 2e-6
    # labels that number the geoms name the same ones
    again = np.empty_like(out)
    ids = np.arange(len(boxes) + len(rounds), dtype=np.int8)
    cast_labelled(
        *args,
        ids[None, : len(boxes)],
        ids[None, len(boxes) :],
        np.zeros((60, 0), np.int8),
        again,
        labels,
    )
    assert np.array_equal(again, out)
    assert (labels == geoms).mean() > 0.999


@pytest.mark.parametrize("fov_deg", [10, 90, 180, 270])
def test_narrow_scans_are_parts_of_the_full_circle(fov_deg: int) -> None:
    rng = np.random.default_rng(fov_deg)
    boxes, discs = scene(rng, 40, 10)
    step = np.radians(1.0)
    for pose in free_poses(rng, boxes, discs, 30):
        whole = scan(pose, -np.pi, step, 360, boxes, discs)
        start = 180 - fov_deg // 2
        part = scan(pose, -np.pi + start * step, step, fov_deg, boxes, discs)
        assert part == pytest.approx(whole[start : start + fov_deg], abs=1e-4)


def test_a_scan_may_end_where_it_began() -> None:
    rng = np.random.default_rng(0)
    boxes, discs = scene(rng, 40, 10)
    for pose in free_poses(rng, boxes, discs, 30):
        out = scan(pose, -np.pi, np.radians(1.0), 361, boxes, discs)
        assert out[360] == pytest.approx(out[0], abs=1e-4)
        later = scan(pose, 0.0, np.radians(1.0), 361, boxes, discs)
        assert later[:180] == pytest.approx(out[180:360], abs=1e-4)
        assert later[180:] == pytest.approx(out[:181], abs=1e-4)
        twice = scan(pose, -np.pi, np.radians(1.0), 500, boxes, discs)  # even go on
        assert twice == pytest.approx(np.concatenate([out[:360], out[:140]]), abs=1e-4)


def test_ranges_by_hand() -> None:
    # a wall 2 m ahead, a disc of .5 m radius 3 m to the left, a mover 1 m behind, nothing right
    out = scan(
        (1, 1, 0),
        0.0,
        np.pi / 2,
        4,
        [(3.5, 1, 0.5, 2)],
        [(1, 4.5, 0.5)],
        [(-0.4, 1, 0.4)],
        max_range=8.0,
    )
    assert out == pytest.approx([2.0, 3.0, 1.0, 8.0], abs=1e-6)
    # 45 degrees against the same wall
    assert scan((1, 1, np.pi / 4), 0.0, 1.0, 1, [(3.5, 1, 0.5, 20)])[0] == pytest.approx(
        2 * 2**0.5, abs=1e-5
    )


@pytest.mark.parametrize("boxes, discs, movers", [
    ([(0, 0, 1, 1)], [], []), ([(0, 0, 1, 1), (5, 0, 1, 1)], [(3, 3, 1)], []),
    ([(5, 0, 1, 1)], [(0, 0.2, 0.5)], []),
    ([(5, 0, 1, 1)], [(3, 3, 1)], [(0, 0, 0), (0.1, 0, 0.4)]),
])  # fmt: skip
def test_inside_an_obstacle_everything_reads_zero(boxes, discs, movers) -> None:
    assert not scan((0.1, 0.1, 2.0), -np.pi, np.pi / 18, 36, boxes, discs, movers).any()


def test_movers_without_a_radius_are_not_there() -> None:
    out = scan((0, 0, 0), -np.pi, np.pi / 18, 36, [(5, 0, 1, 1)], [], [(0, 0, 0), (1, 0, 0)])
    assert np.array_equal(out, scan((0, 0, 0), -np.pi, np.pi / 18, 36, [(5, 0, 1, 1)]))


def test_touching_boxes_leave_no_gap() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        x, seam = rng.uniform(1, 15), rng.uniform(20, 35)
        a, b = rng.uniform(0.5, 4, 2)
        boxes = [(x + 0.1, seam + a, 0.1, a), (x + 0.1, seam - b, 0.1, b)]
        boxes = np.array(boxes, np.float32).astype(np.float64)
        edges = boxes[0, 1] - boxes[0, 3], boxes[1, 1] + boxes[1, 3]
        # level with the seam, which float32 sizes have left up to 4 um open
        fan = scan((0, sum(edges) / 2, 0), -2e-7, 1e-9, 400, boxes, max_range=30.0)
        assert fan.max() < 16


def test_close_to_a_disc_it_fills_nearly_half_the_view() -> None:
    for gap in (0.001, 0.01, 0.1, 1.0):
        x = 2.0 + gap
        out = scan((0, 0, 0), -np.pi, np.pi / 1000, 2000, [], [(x, 0, 2.0)])
        angles = np.abs(np.arange(-1000, 1000) * np.pi / 1000)
        hit = angles < np.arcsin(2.0 / x)
        assert np.array_equal(out < 10, hit)
        along = x * np.cos(angles[hit])
        assert out[hit] == pytest.approx(
            along - np.sqrt(4 - (x * np.sin(angles[hit])) ** 2), abs=1e-4
        )


def test_each_scan_sees_its_own_world() -> None:
    rng = np.random.default_rng(0)
    many = [worlds.warehouse(seed) for seed in range(3)]
    k = max(len(w.boxes) for w in many)
    boxes = np.full((3, k, 4), 0.5, np.float32)  # rows not in use would be hit
    for row, world in zip(boxes, many, strict=True):
        row[: len(world.boxes)] = world.boxes
    count = np.array([len(w.boxes) for w in many], np.int32)
    ids = np.array([2, 0, 0, 1, 2], np.int32)
    poses = np.array([[*many[i].free_points(rng, 1, 0.6)[0], rng.uniform(-3, 3)] for i in ids])
    out = np.empty((5, 90), np.float32)
    discs, none = np.zeros((3, 4, 3), np.float32), np.zeros(3, np.int32)
    cast(poses, -np.pi, np.pi / 45, boxes, count, discs, none, ids, np.zeros((5, 2, 3)), 20.0, out)
    for i in range(5):
        alone = scan(poses[i], -np.pi, np.pi / 45, 90, many[ids[i]].boxes, max_range=20.0)
        assert np.array_equal(out[i], alone)


def test_labels_of_movers_and_of_nothing() -> None:
    out, labels = np.empty((1, 4), np.float32), np.empty((1, 4), np.int8)
    cast_labelled(
        np.zeros((1, 3)), 0.0, np.pi / 2, np.array([[(3, 0, 1, 1)]], np.float32),
        np.array([1], np.int32), np.array([[(0, 3, 1)]], np.float32), np.array([1], np.int32),
        np.zeros(1, np.int32),
        np.array([[(-3.0, 0.0, 1.0)]]), 10.0, np.array([[1]], np.int8), np.array([[4]], np.int8),
        np.array([[6]], np.int8), out, labels,
    )  # fmt: skip
    assert labels.tolist() == [[1, 4, 6, -1]]
    assert out == pytest.approx(np.array([[2, 2, 2, 10]]), abs=1e-6)


def test_the_cheap_arctangent_stays_within_its_margin() -> None:
    for angle in np.linspace(-np.pi + 1e-6, np.pi - 1e-6, 4001):
        guess = _atan2(np.float32(np.sin(angle)), np.float32(np.cos(angle)))
        assert abs(guess - angle) < 0.0039 < _MARGIN / 2
