"""Frontiers of small maps worked by hand, and the map that they come from."""

import numpy as np
import pytest

from toponav.frontier import find
from toponav.geodesic import costs
from toponav.occupancy import OccupancyMap

MAP = """
#########
#....????
#....????
#....#???
#######??
"""


def grid(text):
    value = {"#": 100, ".": 0, "?": -1}
    return np.array([[value[c] for c in row] for row in text.split()], np.int8)


def test_free_cells_beside_the_unknown_are_the_frontier():
    g = grid(MAP)
    found = find(g, costs(g == 0, (1, 1)) >= 0, sensor_cells=3)
    assert len(found) == 1 and found.size[0] == 2
    assert tuple(found.cell[0]) in {(1, 4), (2, 4)}
    assert found.gain[0] > 0


def test_what_cannot_be_reached_is_no_frontier():
    g = grid(MAP)
    g[1:4, 2] = 100
    assert len(find(g, costs(g == 0, (1, 1)) >= 0, 3)) == 0
    assert len(find(g, costs(g == 0, (1, 3)) >= 0, 3)) == 1


def test_a_long_frontier_is_cut_and_a_short_one_left_out():
    g = np.full((40, 12), -1, np.int8)
    g[:, :6] = 0
    found = find(g, g == 0, 5, piece_cells=10)
    assert len(found) == 4 and found.size.sum() == 40
    assert sorted(found.cell[:, 0] // 10) == [0, 1, 2, 3] and (found.cell[:, 1] == 5).all()
    assert len(find(g, g == 0, 5, min_cells=41)) == 0


def test_gain_is_the_unknown_that_nothing_known_hides():
    g = np.full((21, 21), -1, np.int8)
    g[10, 10] = 0
    everything = find(g, g == 0, 8).gain[0]
    assert everything == pytest.approx(np.pi * 8**2, rel=0.12)
    g[:, 11] = 100  # a wall: the right half is hidden
    assert find(g, g == 0, 8).gain[0] == pytest.approx(everything / 2, rel=0.15)


def test_a_scan_clears_what_it_passes_and_fills_what_it_hits():
    seen = OccupancyMap.unknown((0, 0, 10, 10), 0.5)
    angles = np.deg2rad([0.0, 90.0, 180.0])
    seen.integrate((2.25, 2.25, 0.0), [3.0, np.nan, 5.0], angles, range_max=5.0)
    row = seen.data[4]
    assert (row[:10] == 0).all()  # 0 to 5 m, back to the edge beyond range
    assert row[10] == 100 and (row[11:] == -1).all()  # hit at 5.25 m: cell 10
    assert (np.delete(seen.data, 4, axis=0) == -1).all()  # NaN says nothing


def test_looking_through_an_obstacle_forgets_it():
    seen = OccupancyMap.unknown((0, 0, 5, 5), 0.5)
    seen.integrate((1.25, 1.25, 0), [2.0], [0.0], 4.0)
    at = seen.cell((3.3, 1.25))
    assert seen.data[at] == 100
    for left in (80, 60, 40):
        seen.integrate((1.25, 1.25, 0), [3.5], [0.0], 4.0, forget=20)
        assert seen.data[at] == left


def test_a_block_is_free_only_if_all_of_it_is():
    fine = np.array([[0, 0, 0, -1], [0, 0, 0, 0], [0, 100, -1, -1], [-1, -1, -1, -1]], np.int8)
    coarse = OccupancyMap(fine, 0.1).coarse(2)
    np.testing.assert_array_equal(coarse, [[0, -1], [100, -1]])
    with pytest.raises(ValueError, match="factor must be >= 1"):
        OccupancyMap(fine, 0.1).coarse(0)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="data must be"):
        OccupancyMap(np.zeros((2, 2)), 0.1)
    with pytest.raises(ValueError, match="resolution must be > 0"):
        OccupancyMap(np.zeros((2, 2), np.int8), 0)
    with pytest.raises(ValueError, match="bounds must be"):
        OccupancyMap.unknown((1, 0, 0, 1), 0.1)
    with pytest.raises(ValueError, match="ranges must be as many as angles"):
        OccupancyMap.unknown((0, 0, 1, 1), 0.1).integrate((0, 0, 0), [1.0], [0.0, 1.0], 2.0)
