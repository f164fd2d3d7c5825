"""Doors of generated floors: where they are, and what shutting them does."""

import numpy as np
import pytest

from sim import worlds


def test_doors_are_openings_and_a_shut_one_is_a_wall() -> None:
    world = worlds.rooms(3)
    assert len(world.doors) > 4
    assert (world.clearance(world.doors[:, :2]) >= 0.5).all()  # doors are 1.1 m wide at least
    shut = world.shut([2, 0])
    assert shut.clearance(world.doors[:, :2])[[0, 2]] == pytest.approx([0.0, 0.0])
    assert (shut.clearance(world.doors[[1, 3], :2]) >= 0.5).all()
    assert len(shut.boxes) == len(world.boxes) + 2 == len(shut.box_labels)
    assert np.array_equal(shut.doors, world.doors)
    assert len(world.boxes) == len(worlds.rooms(3).boxes)  # the open one is as it was


@pytest.mark.parametrize("seed", range(5))
def test_points_stay_joined_while_a_fifth_of_the_doors_is_shut(seed: int) -> None:
    world = worlds.rooms(seed, (24.0, 16.0), loop_factor=0.5)
    rng = np.random.default_rng(seed)
    points = world.free_points(rng, 3, 0.5)
    shut, which = world.shut_some(rng, 0.2, points)
    assert 0 < len(which) <= round(0.2 * len(world.doors))
    assert shut.connects(points)
    assert (shut.clearance(world.doors[which, :2]) == 0).all()


def test_all_doors_can_be_asked_for_and_those_that_would_part_the_points_stay_open() -> None:
    world = worlds.rooms(1, loop_factor=0.0)
    rng = np.random.default_rng(0)
    points = world.free_points(rng, 2, 0.5)
    shut, which = world.shut_some(rng, 1.0, points)
    assert shut.connects(points) and 0 < len(which) < len(world.doors)
    assert world.shut_some(rng, 0.0, points) == (world, [])
    with pytest.raises(ValueError, match=r"share must be in \[0, 1\], got 2"):
        world.shut_some(rng, 2, points)
