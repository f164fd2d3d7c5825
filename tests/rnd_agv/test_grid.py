"""Occupancy grid: rasterising obstacles, inflation, entering scans."""

from __future__ import annotations

import numpy as np
import pytest

from rnd_agv.grid import FREE, OCCUPIED, UNKNOWN, OccupancyGrid, distance_m, integrate_many
from rnd_agv.observation import ScanSpec, full_circle

ONE_BEAM = ScanSpec(1, 0.0, 1.0, 0.1, 5.0)


def test_obstacles_occupy_every_cell_they_overlap_and_no_other():
    boxes = [[1.0, 0.5, 0.5, 0.1]]  # x 0.5..1.5, y 0.4..0.6: whole cells of 0.1 m
    grid = OccupancyGrid.from_obstacles(boxes, [[0.25, 0.85, 0.06]], (0, 0, 2, 1), 0.1)
    expected = np.zeros((10, 20), dtype=np.int8)
    expected[4:6, 5:15] = OCCUPIED
    expected[8, 1:4] = expected[7:10, 2] = (
        OCCUPIED  # a disc in a cell's middle reaches 1 cm beyond it
    )
    np.testing.assert_array_equal(grid.data, expected)


def test_thin_and_outlying_obstacles():
    boxes = [[0.55, 0.5, 0.001, 0.2], [-5.0, 0.5, 1.0, 1.0], [9.0, 0.5, 1.0, 1.0]]
    grid = OccupancyGrid.from_obstacles(boxes, [[9, 9, 0.5], [-9, -9, 0.5]], (0, 0, 1, 1), 0.1)
    assert np.argwhere(grid.data == OCCUPIED)[:, 1].tolist() == [5] * 4


def test_cell_and_centre_are_inverse_and_points_outside_take_the_edge_cell():
    grid = OccupancyGrid.empty((-2.0, 1.0, 3.0, 4.0), 0.25)
    assert grid.data.shape == (12, 20) and grid.bounds == (-2.0, 1.0, 3.0, 4.0)
    for cell in [(0, 0), (11, 19), (3, 7)]:
        assert grid.cell(grid.centre(*cell)) == cell
    np.testing.assert_allclose(grid.centre(0, 0), [-1.875, 1.125])
    assert grid.cell((-99, 99)) == (11, 0)


def test_inflation_is_a_disc_in_metres_and_unknown_is_passable_unless_told_otherwise():
    grid = OccupancyGrid.empty((0, 0, 2, 2), 0.1)
    assert not grid.inflate(0.5).any() and grid.inflate(0.0, unknown=True).all()
    grid.data[10, 10] = OCCUPIED
    y, x = np.mgrid[:20, :20]
    np.testing.assert_array_equal(grid.inflate(0.35), np.hypot(y - 10, x - 10) * 0.1 <= 0.35)


def test_distance_without_obstacles_is_infinite():
    assert np.isinf(distance_m(np.zeros((3, 4), dtype=bool), 0.1)).all()


def test_a_beam_clears_up_to_its_hit_and_marks_it():
    grid = OccupancyGrid.empty((0, 0, 1, 0.3), 0.1)
    grid.integrate((0.05, 0.15, 0.0), [0.5], ONE_BEAM)
    assert grid.data[1].tolist() == [FREE] * 5 + [OCCUPIED] + [UNKNOWN] * 4
    assert (grid.data[[0, 2]] == UNKNOWN).all()


@pytest.mark.parametrize("reading", [np.nan, -np.inf, 0.05])
def test_missing_readings_say_nothing(reading):
    grid = OccupancyGrid.empty((0, 0, 1, 1), 0.1)
    grid.integrate((0.05, 0.5, 0.0), [reading], ONE_BEAM)
    assert (grid.data == UNKNOWN).all()


@pytest.mark.parametrize("reading", [5.0, 7.0, np.inf])
def test_a_beam_that_hits_nothing_only_clears(reading):
    grid = OccupancyGrid.empty((0, 0, 1, 1), 0.1)
    grid.integrate((0.05, 0.55, 0.0), [reading], ONE_BEAM)
    assert (grid.data[5] == FREE).all() and (grid.data == OCCUPIED).sum() == 0


def test_an_obstacle_that_left_is_forgotten_after_some_scans():
    grid = OccupancyGrid.empty((0, 0, 1, 1), 0.1)
    grid.data[5, 5] = OCCUPIED
    for left in (True, False):  # 80, then 60 percent, below the 65 of an obstacle
        grid.integrate((0.05, 0.55, 0.0), [0.8], ONE_BEAM)
        assert grid.occupied()[5, 5] == left
    assert grid.occupied()[5, 8]


def test_scans_from_several_poses_recover_the_obstacles():
    boxes = np.array([[2.0, 2.0, 0.5, 0.3]])
    truth = OccupancyGrid.from_obstacles(boxes, [], (0, 0, 4, 4), 0.1)
    grid, scan = OccupancyGrid.empty((0, 0, 4, 4), 0.1), full_circle(720, 10.0)
    for pose in ([0.5, 0.5, 0.3], [3.5, 0.5, 1.0], [3.5, 3.5, 2.0], [0.5, 3.5, -2.0]):
        direction = np.stack([np.cos(pose[2] + scan.angles), np.sin(pose[2] + scan.angles)], axis=1)
        near = (boxes[0, :2] - boxes[0, 2:] - pose[:2]) / direction
        far = (boxes[0, :2] + boxes[0, 2:] - pose[:2]) / direction
        enter, leave = np.minimum(near, far).max(axis=1), np.maximum(near, far).min(axis=1)
        grid.integrate(pose, np.where((enter <= leave) & (enter > 0), enter, np.inf), scan)
    # a beam that grazes a corner lands in the cell behind it, never farther
    assert distance_m(truth.occupied(), 0.1)[grid.occupied()].max() < 0.15
    assert (grid.occupied() & ~truth.occupied()).sum() <= 4
    rim = truth.occupied() & (distance_m(~truth.occupied(), 0.1) < 0.15)
    assert grid.occupied()[rim].mean() > 0.95
    assert (grid.data[~truth.occupied()] == FREE).mean() > 0.99


def test_a_lidar_outside_the_grid_is_clipped():
    grid = OccupancyGrid.empty((0, 0, 1, 1), 0.1)
    grid.integrate((-1.0, 0.55, 0.0), [1.55], ONE_BEAM)
    assert grid.data[5].tolist() == [FREE] * 5 + [OCCUPIED] + [UNKNOWN] * 4
    before = grid.data.copy()
    grid.integrate((-1.0, 0.55, np.pi), [4.0], ONE_BEAM)
    grid.integrate((50.0, 50.0, 0.3), [4.0], ONE_BEAM)
    np.testing.assert_array_equal(grid.data, before)


def test_many_grids_equal_one_by_one():
    rng, scan = np.random.default_rng(0), full_circle(90, 4.0)
    grids = [OccupancyGrid.empty((x, -1, x + 5, 3), 0.1) for x in (-2.0, 0.0, 1.0)]
    poses, ranges = rng.uniform(-1, 3, (3, 3)), rng.uniform(0.2, 5, (3, 90))
    data = np.stack([grid.data for grid in grids])
    origins = np.array([grid.origin_w for grid in grids])
    integrate_many(data, origins, 0.1, poses, ranges, scan.angles, scan.range_max)
    for grid, pose, reading, got in zip(grids, poses, ranges, data, strict=True):
        grid.integrate(pose, reading, scan)
        np.testing.assert_array_equal(got, grid.data)
        assert (got == FREE).any() and (got == OCCUPIED).any()


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="int8"):
        OccupancyGrid(np.zeros((2, 2)), 0.1, (0, 0))
    with pytest.raises(ValueError, match="bounds"):
        OccupancyGrid.empty((1, 0, 0, 1), 0.1)
    with pytest.raises(ValueError, match=r"ranges must be \(1,\)"):
        OccupancyGrid.empty((0, 0, 1, 1), 0.1).integrate((0, 0, 0), [1.0, 2.0], ONE_BEAM)
