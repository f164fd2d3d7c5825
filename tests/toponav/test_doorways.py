"""Doorways and branchings on maps drawn by hand, and on whole floors against the truth."""

import numpy as np
import pytest

from sim.worlds.furnished import furnished
from toponav.doorways import BRANCHING, DOORWAY, DoorwayConfig, LidarPerception, closed
from toponav.occupancy import OccupancyMap
from toponav.perception import Detections, Frame


def drawn(width, height, free):
    """A map in cells of 0.1 m, occupied but for rectangles x0, y0, x1, y1 in m."""
    data = np.full((round(height * 10), round(width * 10)), 100, np.int8)
    for x0, y0, x1, y1 in free:
        data[round(y0 * 10) : round(y1 * 10), round(x0 * 10) : round(x1 * 10)] = 0
    return OccupancyMap(data, 0.1, (-1.0, 2.0))


def found(known):
    return LidarPerception().detect(Frame(np.zeros(3), map=known))


def test_a_door_between_two_rooms_is_found_with_its_width_and_direction():
    known = drawn(10, 5, [(0.5, 0.5, 4.4, 4.5), (5.6 - 1.0, 0.5, 9.5, 4.5), (4.4, 2.0, 4.6, 3.0)])
    doors = found(known)
    assert doors.kind == (DOORWAY,)
    assert doors.pose_w[0, :2] == pytest.approx([4.5 - 1.0, 2.5 + 2.0], abs=0.1)
    assert abs(np.cos(doors.pose_w[0, 2])) > 0.98  # along x
    assert doors.width_m[0] == pytest.approx(1.0, abs=0.1) and doors.ways[0] == 2
    assert 0.5 <= doors.confidence[0] <= 1 and doors.scores[0, 1] == 0


@pytest.mark.parametrize("free", [[(0.5, 2.0, 9.5, 3.0)], [(0.5, 0.5, 9.5, 4.5)]])
def test_neither_a_narrow_corridor_nor_a_room_has_doorways(free):
    assert len(found(drawn(10, 5, free))) == 0


def test_a_wide_opening_is_no_doorway():
    known = drawn(10, 8, [(0.5, 0.5, 4.4, 7.5), (4.6, 0.5, 9.5, 7.5), (4.4, 2.5, 4.6, 5.0)])
    assert len(found(known).of(DOORWAY)) == 0


@pytest.mark.parametrize(("arms", "ways"), [("ew", 0), ("ewn", 3), ("ewns", 4), ("en", 0)])
def test_a_crossing_of_corridors_has_as_many_ways_as_arms(arms, ways):
    spans = {"e": (5, 5, 11.5, 7), "w": (0.5, 5, 7, 7), "n": (5, 5, 7, 11.5), "s": (5, 0.5, 7, 7)}
    crossing = found(drawn(12, 12, [spans[arm] for arm in arms]))
    if ways == 0:
        assert len(crossing) == 0
    else:
        assert crossing.kind == (BRANCHING,) and crossing.ways[0] == ways
        assert crossing.pose_w[0, :2] == pytest.approx([6 - 1, 6 + 2], abs=0.5)


def test_doors_do_not_make_a_corridor_branch():
    rooms = [(0.5, 5.0, 15.5, 7.0), (1.0, 7.2, 15.0, 11.5), (6.0, 7.0, 7.2, 7.2)]
    assert found(drawn(16, 12, rooms)).kind == (DOORWAY,)


def test_unknown_floor_has_no_doorways():
    known = drawn(10, 5, [(0.5, 0.5, 4.4, 4.5)])
    known.data[:, 44:] = -1
    assert len(found(known)) == 0
    assert len(found(OccupancyMap(np.full((20, 20), -1, np.int8), 0.1))) == 0


def test_a_shut_door_parts_the_floor():
    known = drawn(10, 5, [(0.5, 0.5, 4.4, 4.5), (4.6, 0.5, 9.5, 4.5), (4.4, 2.0, 4.6, 3.0)])
    doors = found(known)
    row = np.column_stack([doors.pose_w, doors.width_m])
    parted = closed(known.data == 0, known, row)
    import cv2

    assert cv2.connectedComponents((known.data == 0).astype(np.uint8), connectivity=4)[0] == 2
    assert cv2.connectedComponents(parted.astype(np.uint8), connectivity=4)[0] == 3


def test_nearly_all_doors_of_whole_floors_are_found_and_little_else():
    hits = missed = wrong = 0
    for seed in range(4):
        building = furnished(9000 + seed)
        grid = building.world.grid(0.1)
        known = OccupancyMap(grid.data.astype(np.int8), 0.1, tuple(grid.origin_w))
        seen = found(known)
        at = seen.pose_w[seen.of(DOORWAY), :2]
        doors = np.array([(door.x, door.y) for door in building.doors])
        gap = np.hypot(*(at[:, None] - doors[None]).transpose(2, 0, 1))
        hits += int((gap.min(axis=0) < 0.4).sum())
        missed += int((gap.min(axis=0) >= 0.4).sum())
        wrong += int((gap.min(axis=1) >= 0.4).sum())
    assert hits / (hits + missed) > 0.88 and hits / (hits + wrong) > 0.93


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="frame must have a map"):
        LidarPerception().detect(Frame(np.zeros(3)))
    with pytest.raises(ValueError, match="width_m must be 0 < low < high"):
        DoorwayConfig(width_m=(2.0, 1.0))
    with pytest.raises(ValueError, match=r"pose_w must be \(1, 3\)"):
        Detections(("door",))
