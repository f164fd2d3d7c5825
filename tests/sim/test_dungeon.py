"""Grid maps explored by a point robot with a range sensor."""

import cv2
import numpy as np
import pytest

from incognita.explore import explore, omniscient
from sim.dungeon import CELL_PX, UNSEEN_PX, DungeonMap, DungeonRun, draw, load
from toponav.explorers import Nearest, Random, Tour, Utility
from toponav.occupancy import OccupancyMap


def room(width=20, height=15):
    """One empty room of 16 px cells, the robot in its middle."""
    wall = np.ones(((height + 2) * 16, (width + 2) * 16), bool)
    wall[16:-16, 16:-16] = False
    return DungeonMap("room", wall, (wall.shape[1] / 2 + 2, wall.shape[0] / 2 + 2))


def pixels(seen):
    """(H, W) what is seen, from the bits of cells."""
    bits = seen[:, :, None] >> np.arange(CELL_PX**2) & 1
    h, w = seen.shape
    blocks = bits.reshape(h, w, CELL_PX, CELL_PX).transpose(0, 2, 1, 3)
    return blocks.reshape(h * CELL_PX, w * CELL_PX).astype(bool)


def test_a_map_is_read_by_its_greys(tmp_path):
    image = np.full((48, 64), 127, np.uint8)
    image[16:32, 16:48] = 194
    image[16:32, 16:32] = 203
    cv2.imwrite(str(tmp_path / "m.png"), image)
    found = load(tmp_path / "m.png")
    assert found.name == "m" and found.start == (24.0, 24.0)
    np.testing.assert_array_equal(found.wall, image == 127)
    cv2.imwrite(str(tmp_path / "none.png"), np.minimum(image, 194))
    with pytest.raises(ValueError, match="must have a start"):
        load(tmp_path / "none.png")
    with pytest.raises(ValueError, match="must be an image"):
        load(tmp_path / "no.png")


def test_a_look_shows_a_disc_and_nothing_behind_walls():
    run = DungeonRun(room(30, 30))
    y, x = (run.at + 0.5) * CELL_PX
    yy, xx = np.mgrid[: run.map.wall.shape[0], : run.map.wall.shape[1]] + 0.5
    away = np.hypot(yy - y, xx - x)
    seen = pixels(run.seen) & ~run.map.wall
    assert seen[away < 70].mean() > 0.99 and not seen[away > 82].any()
    assert run.unseen_px == (~run.map.wall).sum() - seen.sum()
    small = DungeonRun(room(4, 4))
    assert small.finished and (small.grid[small.map.views.wall_bits > 0] != 0).all()


def test_what_a_look_enters_is_what_the_mapper_of_a_robot_enters():
    run = DungeonRun(draw(3))
    y, x = (run.at + 0.5) * CELL_PX
    angles = 2 * np.pi * np.arange(720) / 720
    far = np.arange(0.0, 80.0, 0.02)
    px = np.floor(x + far * np.cos(angles)[:, None]).astype(int)
    py = np.floor(y + far * np.sin(angles)[:, None]).astype(int)
    hit = run.map.wall[py, px]
    ranges = np.where(hit.any(axis=1), far[hit.argmax(axis=1)], 80.0)
    belief = OccupancyMap(np.full(run.map.wall.shape, -1, np.int8), 1.0)
    belief.integrate((x, y, 0), ranges, angles, 80.0, behind=0.0)
    mine = np.where(pixels(run.seen), np.where(run.map.wall, 100, 0), -1)
    assert (mine != belief.data).mean() < 2e-4
    assert (run.grid != belief.coarse(CELL_PX)).mean() < 2e-4


def test_steps_are_counted_and_walls_refused():
    run = DungeonRun(room())
    begun = run.at.copy()
    run.step(begun + (0, 1))
    run.step(begun + (1, 2))
    assert run.driven_px == pytest.approx(CELL_PX * (1 + np.sqrt(2)))
    with pytest.raises(ValueError, match="free neighbour"):
        run.step(begun)
    corner = DungeonRun(DungeonMap("corner", room().wall, (18.0, 18.0)))
    with pytest.raises(ValueError, match="free neighbour"):
        corner.step(corner.at - (1, 0))


@pytest.mark.parametrize("explorer", [Nearest(), Utility(), Tour()])
def test_drawn_maps_are_finished(explorer):
    for seed in range(3):
        world = draw(seed)
        result = explore(DungeonRun(world), explorer)
        assert result.finished and result.curve[-1][1] <= UNSEEN_PX
        driven, unseen = np.array(result.curve).T
        assert (np.diff(driven) >= 0).all() and (np.diff(unseen) <= 0).all()
        assert result.driven_px > 0.7 * omniscient(world)


def test_the_same_seed_draws_the_same_map_with_one_floor():
    for seed in range(10):
        one, again = draw(seed), draw(seed)
        np.testing.assert_array_equal(one.wall, again.wall)
        assert one.start == again.start
        floor = (~one.wall).astype(np.uint8)
        assert cv2.connectedComponents(floor, connectivity=4)[0] == 2
        assert floor[int(one.start[1]), int(one.start[0])]
    assert draw(0).wall.tobytes() != draw(1).wall.tobytes()


def test_an_exploration_that_leads_nowhere_ends():
    result = explore(DungeonRun(draw(1)), Random(0), limit_px=200)
    assert not result.finished and result.driven_px < 200 + 24 + 8
