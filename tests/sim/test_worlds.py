"""Generated worlds: seeded, passable, and as they say they are."""

import json
from pathlib import Path

import numpy as np
import pytest

from rnd_agv.robot import AGV
from sim import worlds
from sim.worlds import LABELS, World
from sim.worlds.merge import cover
from sim.worlds.world import ROBOT_RADIUS_M, WALL_M

BARN = Path(__file__).parents[2] / ".." / "shared" / "data" / "barn" / "index.json"
MAKERS = {
    "hall-simple": lambda seed: worlds.hall(12.0, "simple", seed),
    "hall-complex": lambda seed: worlds.hall(20.0, "complex", seed),
    "far-30": lambda seed: worlds.far(30.0, seed),
    "far-40": lambda seed: worlds.far(40.0, seed),
    "warehouse": worlds.warehouse,
    "maze": lambda seed: worlds.maze(seed=seed),
    "rooms": worlds.rooms,
    "cave": worlds.cave,
}


def walled(*corners: tuple[float, float, float, float]) -> World:
    """A 10 m square between walls, with boxes given by their corners."""
    rows = [(0, -5.1, 5.2, 0.1), (0, 5.1, 5.2, 0.1), (-5.1, 0, 0.1, 5), (5.1, 0, 0.1, 5)]
    rows += [((a + c) / 2, (b + d) / 2, (c - a) / 2, (d - b) / 2) for a, b, c, d in corners]
    boxes = np.array(rows, np.float32)
    return World("test", 0, (-5.2, -5.2, 5.2, 5.2), boxes, np.zeros(len(boxes), np.int8))


@pytest.mark.parametrize("name", MAKERS)
def test_a_seed_is_a_world(name: str) -> None:
    one, same, other = MAKERS[name](3), MAKERS[name](3), MAKERS[name](4)
    for part in ("boxes", "box_labels", "discs", "docks"):
        assert np.array_equal(getattr(one, part), getattr(same, part))
    assert one.boxes.shape != other.boxes.shape or not np.array_equal(one.boxes, other.boxes)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("seed", range(6))
def test_the_robot_gets_about(name: str, seed: int) -> None:
    world = MAKERS[name](seed)
    assert world.reachable_share() > 0.9
    points = world.free_points(np.random.default_rng(seed), 20, AGV.circumscribed_m + 0.1)
    assert world.connects(points)
    assert world.clearance(points).min() >= AGV.circumscribed_m + 0.1


@pytest.mark.parametrize("name", MAKERS)
def test_outer_walls_close_the_floor_within_the_bounds(name: str) -> None:
    world = MAKERS[name](0)
    data = world.grid(0.1).data
    for edge in (data[0], data[-1], data[:, 0], data[:, -1]):
        assert (edge == 100).all()
    xmin, ymin, xmax, ymax = world.bounds
    low, high = world.boxes[:, :2] - world.boxes[:, 2:], world.boxes[:, :2] + world.boxes[:, 2:]
    assert (low >= np.array([xmin, ymin]) - 1e-4).all() and (
        high <= np.array([xmax, ymax]) + 1e-4
    ).all()


def test_warehouse_aisles_are_as_wide_as_asked() -> None:
    for seed in range(20):
        world = worlds.warehouse(seed, aisle_m=(1.3, 2.2))
        shelves = world.boxes[world.box_labels == LABELS.index("shelf")].astype(np.float64)
        # racks of one run lie between the same x; the gaps between them along y are the aisles
        y = np.unique(
            np.round(np.stack([shelves[:, 1] - shelves[:, 3], shelves[:, 1] + shelves[:, 3]]), 3),
            axis=1,
        )
        gaps = y[0, 1:] - y[1, :-1]
        edges = [y[0, 0] + 8.0, 8.0 - y[1, -1]]
        widths = np.array([*gaps[gaps > 1e-3], *edges])
        assert widths.min() >= 1.3 - 2e-3
        assert widths.max() <= 2.2 + 2e-3 or len(shelves) < 9  # a rack left out joins two aisles


def test_warehouses_have_docks_that_a_vehicle_fits() -> None:
    for seed in range(5):
        world = worlds.warehouse(seed)
        assert len(world.docks) >= 4
        assert world.clearance(world.docks[:, :2]).min() > AGV.circumscribed_m
        assert np.allclose(world.docks[:, 2], np.pi)
    labels = {LABELS[k] for seed in range(5) for k in worlds.warehouse(seed).box_labels}
    assert {"wall", "shelf", "pallet"} <= labels


def test_a_straight_line_does_not_cross_the_halls() -> None:
    for complexity, size in (("simple", 12.0), ("complex", 20.0)):
        world = worlds.hall(size, complexity)
        end = size / 2 - 1
        line = np.linspace((-end, -end), (end, end), 500)
        assert world.clearance(line).min() == 0
        assert world.connects([(-end, -end), (end, end)])


def test_the_complex_hall_has_dead_ends() -> None:
    world = worlds.hall(20.0, "complex")
    upright = world.boxes[
        (world.box_labels == LABELS.index("shelf")) & (world.boxes[:, 3] > world.boxes[:, 2])
    ]
    assert len(upright) == 5  # each shuts an aisle across


def test_a_maze_without_loops_is_a_tree() -> None:
    tree, loops = worlds.maze(loop_factor=0.0, seed=1), worlds.maze(loop_factor=0.5, seed=1)

    def length(world: World) -> float:
        return float((world.boxes[4:, 2:].max(axis=1) * 2 - 0.2).sum())

    # n cells joined as a tree open n - 1 of the 2 k (k - 1) walls between them: here 64 and 112
    assert length(tree) == pytest.approx((112 - 63) * 2.0, abs=0.2 * 49)
    assert length(loops) < 0.7 * length(tree)


def test_rooms_have_doors_of_the_width_asked() -> None:
    for seed in range(10):
        world = worlds.rooms(seed, crates=0, door_m=(1.1, 1.2))
        walls = world.boxes[4:].astype(np.float64)
        doors = []
        for a, b in zip(
            walls[:-1], walls[1:], strict=True
        ):  # the pieces of a wall follow each other
            for along, across in ((0, 1), (1, 0)):
                if (
                    a[across] == b[across]
                    and a[2 + across] == b[2 + across]
                    and a[2 + along] > 0.11
                ):
                    doors.append(b[along] - b[2 + along] - a[along] - a[2 + along])
        assert len(doors) >= 5
        assert 1.1 - 1e-5 <= min(doors) and max(doors) <= 1.2 + 1e-5
        assert world.reachable_share(0.65) < 0.9  # what is wider than the doors stays in its room


def test_free_points_are_reachable_from_where_asked() -> None:
    world = walled((-0.2, -5.0, 0.2, 5.0))  # two halves
    rng = np.random.default_rng(0)
    left = world.free_points(rng, 50, 0.5, from_xy=(-3, 0))
    assert left[:, 0].max() <= -0.7
    assert world.free_points(rng, 50, 0.5, from_xy=(3, 0))[:, 0].min() >= 0.7
    assert not world.connects([(-3, 0), (3, 0)])
    with pytest.raises(ValueError, match="from_xy must be free"):
        world.free_points(rng, 1, 0.5, from_xy=(5.15, 5.15))
    with pytest.raises(ValueError, match="clearance_m must leave free floor"):
        world.free_points(rng, 1, 3.0)


def test_free_points_never_lie_in_unknown_space() -> None:
    known = walled()
    unknown = np.array([[2.0, 0.0, 3.0, 5.0]], np.float32)
    world = World("test", 0, known.bounds, known.boxes, known.box_labels, unknown=unknown)
    assert (world.grid(0.1).data == -1).sum() == pytest.approx(6000, rel=0.03)
    points = world.free_points(np.random.default_rng(0), 500, 0.3)
    assert points[:, 0].max() <= -1.0 - 0.3


def test_clearance_is_exact() -> None:
    world = walled((0.0, 0.0, 1.0, 1.0))
    points = np.array([(-1.0, 0.5), (-3.0, -4.0), (0.5, 0.5), (1.3, 1.4)])
    assert world.clearance(points) == pytest.approx([1.0, 1.0, 0.0, 0.5], abs=1e-6)


def test_clearance_of_many_boxes_is_that_of_each() -> None:
    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.uniform(-20, 20, (400, 2)), rng.uniform(0.01, 1, (400, 2))], axis=1)
    boxes = boxes.astype(np.float32)
    world = World("many", 0, (-20, -20, 20, 20), boxes, np.zeros(400, np.int8))
    points = rng.uniform(-20, 20, (100, 2))
    gap = np.maximum(np.abs(points[:, None] - boxes[None, :, :2]) - boxes[None, :, 2:], 0)
    assert world.clearance(points) == pytest.approx(np.hypot(*gap.transpose(2, 0, 1)).min(axis=1))


def test_worlds_cannot_be_changed() -> None:
    world = worlds.hall()
    with pytest.raises(ValueError, match="read-only"):
        world.boxes[0, 0] = 1
    world.grid(0.1).data[:] = 100  # a copy
    assert (world.grid(0.1).data == 0).any()


def test_map_frame_and_back() -> None:
    turned = worlds.hall()
    world = World(
        "t",
        0,
        turned.bounds,
        turned.boxes.copy(),
        turned.box_labels.copy(),
        map_from_world=(1, 2, np.pi / 2),
    )
    assert world.to_map([1.0, 0.0, 0.0]) == pytest.approx([1.0, 3.0, np.pi / 2])
    poses = np.random.default_rng(0).normal(size=(7, 3))
    assert world.from_map(world.to_map(poses)) == pytest.approx(poses)


def test_rectangles_cover_exactly_and_few() -> None:
    rng = np.random.default_rng(0)
    for density in (0.1, 0.5, 0.9):
        full = rng.random((40, 57)) < density
        out = np.zeros_like(full)
        for x0, y0, x1, y1 in cover(full):
            assert full[y0:y1, x0:x1].all()
            out[y0:y1, x0:x1] = True
        assert np.array_equal(out, full)
    cross = np.zeros((9, 9), bool)
    cross[4], cross[:, 4] = True, True
    assert len(cover(cross)) == 2
    assert len(cover(np.zeros((3, 3), bool))) == 0


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: worlds.hall(12, "hard"), "complexity must be"),
        (lambda: worlds.hall(5), "size_m must be in"),
        (lambda: worlds.far(1000), "size_m must be in"),
        (lambda: worlds.warehouse(0, aisle_m=(0.5, 2)), "aisle_m must be"),
        (lambda: worlds.warehouse(-1), "seed must be >= 0"),
        (lambda: worlds.maze(cell_m=0.5), "cell_m in"),
        (lambda: worlds.maze(loop_factor=2), "loop_factor must be"),
        (lambda: worlds.rooms(0, door_m=(0.5, 1.5)), "door_m"),
        (lambda: worlds.cave(0, fill=0.9), "fill must be"),
        (lambda: worlds.barn({"start": [0, 0, 0], "goal": [1, 1]}), "cylinders"),
        (
            lambda: worlds.barn({"cylinders": [[0, np.nan]], "start": [0] * 3, "goal": [1, 1]}),
            "finite",
        ),
        (
            lambda: World("x", 0, (0, 0, 1, 1), np.zeros((1, 4), np.float32), np.zeros(1, np.int8)),
            "sizes",
        ),
        (
            lambda: World(
                "x", 0, (0, 0, 1, 1), np.ones((1, 4), np.float32), np.full(1, 99, np.int8)
            ),
            "labels",
        ),
        (
            lambda: World("x", 0, (1, 0, 0, 1), np.ones((1, 4), np.float32), np.zeros(1, np.int8)),
            "bounds",
        ),
    ],
)
def test_bad_input_is_refused(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()


def test_barn_worlds_hold_start_and_goal() -> None:
    if not BARN.is_file():
        pytest.skip(f"no BARN data at {BARN}")
    index = json.loads(BARN.read_text())
    for name in sorted(index)[::5]:
        entry = index[name]
        world = worlds.barn(entry, name)
        assert len(world.discs) == len(entry["cylinders"]) and len(world.boxes) == 0
        assert (world.discs[:, 2] == np.float32(0.075)).all()
        assert world.connects([entry["start"][:2], entry["goal"]], radius_m=0.155), name


def test_walls_are_as_thick_as_they_say() -> None:
    world = worlds.hall(12.0)
    assert world.bounds == pytest.approx((-6 - WALL_M, -6 - WALL_M, 6 + WALL_M, 6 + WALL_M))
    assert world.clearance([(0.0, -5.9)]) == pytest.approx([0.1], abs=1e-6)
    assert ROBOT_RADIUS_M > AGV.inscribed_m
