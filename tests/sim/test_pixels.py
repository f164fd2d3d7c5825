"""First-person pixels against MuJoCo's renderer, and by hand."""

import os

os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("LP_NUM_THREADS", "1")

import mujoco
import numpy as np
import pytest

from sim import worlds
from sim.pixels import FLOOR, GROUND, PALETTE, SKY, Camera, frames
from sim.worlds import LABELS, World

WALL, SHELF, PERSON = LABELS.index("wall"), LABELS.index("shelf"), LABELS.index("person")


def one_wall(**parts: object) -> World:
    """A shelf 1 m wide across the x axis, its face at x = 2."""
    boxes = np.array([(2.5, 0, 0.5, 0.5)], np.float32)
    return World("one", 0, (-5, -5, 5, 5), boxes, np.array([SHELF], np.int8), **parts)


def mixed(seed: int) -> World:
    """A warehouse with pillars standing about."""
    world = worlds.warehouse(seed)
    spots = world.free_points(np.random.default_rng(seed), 12, 0.35)
    discs = np.concatenate([spots, np.full((12, 1), 0.3)], axis=1).astype(np.float32)
    labels = np.full(12, LABELS.index("pillar"), np.int8)
    return World(
        "mixed", seed, world.bounds, world.boxes.copy(), world.box_labels.copy(), discs, labels
    )


def mujoco_view(world: World, camera: Camera, poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n, H, W) and depth (n, H, W) as MuJoCo renders the same world."""
    spec = mujoco.MjSpec()
    z = world.height_m / 2
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 1])
    for cx, cy, hx, hy in world.boxes.astype(float):
        spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, pos=[cx, cy, z], size=[hx, hy, z])
    for x, y, r in world.discs.astype(float):
        spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_CYLINDER, pos=[x, y, z], size=[r, z, 0])
    for k, (x, y, yaw) in enumerate(poses):
        c, s = np.cos(yaw), np.sin(yaw)
        quat = np.empty(4)  # columns right, up, back
        mujoco.mju_mat2Quat(quat, np.array([s, 0, -c, -c, 0, -s, 0, 1, 0], dtype=np.float64))
        place = [x, y, camera.z_m]
        spec.worldbody.add_camera(name=f"c{k}", pos=place, quat=quat, fovy=camera.fovy_deg)
    screen = spec.visual.global_
    screen.offwidth, screen.offheight = camera.width, camera.height
    spec.visual.quality.offsamples = 0
    spec.visual.quality.numslices = 128  # cylinders are drawn as prisms
    spec.visual.map.znear, spec.stat.extent, spec.stat.center = 0.01, 1.0, [0, 0, 0]
    spec.visual.map.zfar = 60.0
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    names = np.concatenate([[FLOOR], world.box_labels, world.disc_labels, [SKY]]).astype(np.int8)
    shape = (len(poses), camera.height, camera.width)
    labels, depth = np.empty(shape, np.int8), np.empty(shape, np.float32)
    with mujoco.Renderer(model, camera.height, camera.width) as renderer:
        for k in range(len(poses)):
            renderer.enable_segmentation_rendering()
            renderer.update_scene(data, f"c{k}")
            labels[k] = names[renderer.render()[..., 0]]  # -1, nothing, is the last: sky
            renderer.disable_segmentation_rendering()
            renderer.enable_depth_rendering()
            renderer.update_scene(data, f"c{k}")
            depth[k] = renderer.render()
            renderer.disable_depth_rendering()
    return labels, depth


@pytest.fixture(scope="module")
def gl() -> None:
    """Skip where there is no off-screen OpenGL."""
    try:
        mujoco.GLContext(8, 8).free()
    except Exception as error:
        pytest.skip(f"no off-screen OpenGL: {error!r}")


@pytest.mark.parametrize("size, fovy", [((64, 64), 90.0), ((96, 64), 60.0), ((128, 128), 75.0)])
@pytest.mark.parametrize("make", [worlds.warehouse, lambda seed: worlds.maze(seed=seed), mixed])
def test_walls_lie_where_mujoco_draws_them(gl, make, size, fovy) -> None:  # type: ignore[no-untyped-def]
    world = make(1)
    camera = Camera(*size, fovy_deg=fovy)
    rng = np.random.default_rng(2)
    poses = np.concatenate([world.free_points(rng, 8, 0.5), rng.uniform(-3, 3, (8, 1))], axis=1)
    mine = frames(world, camera, poses)
    labels, depth = mujoco_view(world, camera, poses)
    # rows nearly level with the camera see the floor beyond the far plane
    wall, theirs = mine.labels >= 0, labels >= 0
    for k in range(8):
        assert (wall[k] == theirs[k]).mean() >= 0.995
    both = wall & theirs
    assert both.mean() > 0.2
    assert (mine.labels[both] == labels[both]).mean() >= 0.998
    near = both & (labels == mine.labels) & (depth < 10)
    assert np.median(np.abs(mine.depth - depth)[near]) < 5e-3
    floor = (mine.labels == FLOOR) & (labels == FLOOR) & (depth < 10)
    assert np.median(np.abs(mine.depth - depth)[floor]) < 5e-3


def test_a_wall_by_hand() -> None:
    camera = Camera(64, 64, fovy_deg=90.0, z_m=0.5)
    view = frames(one_wall(), camera, [(0.0, 0.0, 0.0)])
    # 2 m away, .5 m up, down, left and right of the axis: a quarter of 45 degrees' 32 pixels
    wall = view.labels[0] == SHELF
    rows, columns = np.nonzero(wall)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (
        24,
        39,
        24,
        39,
    ) and wall.sum() == 256
    assert view.depth[0][wall] == pytest.approx(2.0)
    assert (view.labels[0, :24] == SKY).all() and (view.labels[0, 40:] == FLOOR).all()
    assert (view.rgb[0][wall] == PALETTE[SHELF]).all()
    assert (view.rgb[0, :24] == GROUND[2]).all()
    # the lowest row looks down by 31.5 of 32: it meets the floor at .5 * 32 / 31.5
    assert view.depth[0, 63] == pytest.approx(0.5 * 32 / 31.5, rel=1e-5)


def test_left_is_left() -> None:
    left = frames(
        one_wall(), Camera(), [(0.0, 0.0, -0.3)]
    )  # turned right: the shelf is to the left
    columns = np.nonzero((left.labels[0] == SHELF).any(axis=0))[0]
    assert columns.max() < 32


def test_floor_tiles_stay_in_the_world() -> None:
    camera = Camera(32, 32)
    here = frames(one_wall(), camera, [(-1.0, -2.0, np.pi)])
    on = frames(one_wall(), camera, [(-2.0, -2.0, np.pi)])  # two tiles on: the same pattern
    half = frames(one_wall(), camera, [(-1.5, -2.0, np.pi)])  # one tile on: inverted
    ground = here.labels[0, 20:] == FLOOR
    assert np.array_equal(here.rgb[0, 20:], on.rgb[0, 20:])
    assert (here.rgb[0, 20:] != half.rgb[0, 20:]).any(axis=-1)[ground].mean() > 0.95


def test_movers_hide_what_is_behind_them() -> None:
    view = frames(
        one_wall(), Camera(z_m=0.5), [(0.0, 0.0, 0.0)], movers=[(1.4, 0.0, 0.4), (0, 0, 0)]
    )
    assert (view.labels[0, 28:36, 28:36] == PERSON).all()
    assert view.depth[0, 32, 32] == pytest.approx(1.0, abs=1e-3)
    assert SHELF not in view.labels


def test_a_camera_inside_a_wall_sees_only_that() -> None:
    view = frames(one_wall(), Camera(), [(2.5, 0.0, 1.0)])
    assert (view.labels == SHELF).all()


def test_frames_do_not_depend_on_their_batch() -> None:
    world = mixed(0)
    rng = np.random.default_rng(0)
    poses = np.concatenate([world.free_points(rng, 5, 0.4), rng.uniform(-3, 3, (5, 1))], axis=1)
    many = frames(world, Camera(), poses)
    for k in range(5):
        alone = frames(world, Camera(), poses[k : k + 1])
        for a, b in zip(alone, many, strict=True):
            assert np.array_equal(a[0], b[k])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Camera(width=0), "width, height >= 1"),
        (lambda: Camera(fovy_deg=180), "fovy_deg in"),
        (lambda: Camera(z_m=0), "z_m and max_m must be > 0"),
        (lambda: frames(one_wall(), Camera(z_m=1.5), np.zeros((1, 3))), "z_m must be below 1.0 m"),
        (lambda: frames(one_wall(), Camera(), np.zeros(3)), r"pose_w must be \(n, 3\)"),
    ],
)
def test_bad_input_is_refused(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
