"""Beliefs on numbers worked by hand, and whole searches by a point in furnished floors."""

import numpy as np
import pytest

from incognita.find import (
    BEAMS,
    FOUND_M,
    RANGE_M,
    Eyes,
    Quest,
    find_as_point,
    quest,
    search_of,
)
from rnd_agv.observation import full_circle
from sim.labels import PERFECT, LabelNoise
from sim.worlds.furnished import furnished
from toponav.explorers import Utility
from toponav.frontier import find
from toponav.occupancy import OccupancyMap
from toponav.places import Places, PlacesConfig
from toponav.prior import Prior, office_floor
from toponav.semantics import Thing
from toponav.thing_search import SemanticExplorer, ThingSearch, _expected, _order


def tiny():
    """Kitchens in one zone, offices in the other; sinks in kitchens alone."""
    return Prior(
        ("corridor", "kitchen", "office"), ("sink", "desk"), ("a", "b"), np.array([0.5, 0.5]),
        np.array([[0.0, 0.8, 0.2], [0.0, 0.0, 1.0]]), np.array([[0, 0], [1.0, 0], [0, 1.0]]),
        np.array([20.0, 16.0, 16.0]),
    )  # fmt: skip


def test_types_and_transitions_follow_from_the_zones():
    prior = tiny()
    assert prior.of_type == pytest.approx([0, 0.4, 0.6])
    # a kitchen is of zone a for sure; an office is of zone a with .1 / .6
    assert prior.transition[1] == pytest.approx([0, 0.8, 0.2])
    assert prior.transition[2] == pytest.approx([0, 0.8 / 6, 0.2 / 6 + 5 / 6])
    assert prior.transition.sum(axis=1) == pytest.approx([1, 1, 1])


def test_a_shuffled_prior_has_the_same_numbers_in_other_places():
    prior = office_floor()
    other = prior.shuffled(3)
    assert np.sort(other.count.ravel()) == pytest.approx(np.sort(prior.count.ravel()))
    assert not np.allclose(other.count, prior.count)
    with pytest.raises(ValueError, match="types must begin with 'corridor'"):
        Prior(("room",), ("a",), ("z",), np.ones(1), np.ones((1, 1)), np.ones((1, 1)), np.ones(1))


def believed(things, wanted):
    """Two rooms of 4 m that a corridor joins, each with an open end; belief and chances."""
    data = np.full((80, 160), 100, np.int8)
    data[5:25, 5:155] = 0  # the corridor, 2 m wide
    for x in (5, 115):
        data[27:67, x : x + 40] = 0
        data[25:27, x + 15 : x + 25] = 0
        data[67:, x + 5 : x + 35] = -1
        data[60:67, x + 5 : x + 35] = -1
    known = OccupancyMap(data, 0.1)
    free = known.coarse(2) == 0
    doors = np.array([[2.5, 2.6, np.pi / 2, 1.0], [13.5, 2.6, np.pi / 2, 1.0]])
    frontiers = find(known.coarse(2), free, 30.0)
    places = Places(tiny(), known, free, doors, things, frontiers, PlacesConfig())
    chances = places.chances(frontiers, wanted)
    left = frontiers.cell[:, 1] < 40
    return places, float(chances[left].sum()), float(chances[~left].sum())


def thing(xy, p):
    return Thing(np.array(xy), np.eye(2) * 0.01, np.log(np.array(p)), count=3)


def test_a_desk_makes_an_office_and_where_no_desk_is_a_kitchen_is_likelier():
    places, left, right = believed([thing((2.5, 4.0), (0.01, 0.99))], wanted=0)
    assert len(places.places) == 3
    office = min(places.places, key=lambda place: place.at[1] + place.area_m2 * (place.p[0] > 0.5))
    assert office.p.argmax() == 2 and office.p[2] > 0.95
    hall = max(places.places, key=lambda place: place.long_m)
    assert hall.p.argmax() == 0
    assert right > 3 * left


def test_what_was_seen_and_lacks_a_thing_is_less_likely_to_hide_it():
    _, left, right = believed([], wanted=1)
    assert left == pytest.approx(right, rel=0.3) and 0 < left < 0.5


def test_the_order_of_least_expected_way_is_that_of_all_orders():
    import itertools

    rng = np.random.default_rng(0)
    near = 0
    for _ in range(20):
        xy = rng.uniform(0, 10, (6, 2))
        p = rng.dirichlet(np.ones(6))
        between = np.hypot(*(xy[:, None] - xy[None]).transpose(2, 0, 1))
        first = np.hypot(*xy.T)
        order, cost = _order(p, first, between, -1)
        assert sorted(order) == list(range(6))
        orders = [np.array(o) for o in itertools.permutations(range(6))]
        best = min(_expected(o, p, first, between) for o in orders)
        assert cost == pytest.approx(_expected(order, p, first, between))
        assert best - 1e-9 <= cost <= 1.35 * best
        near += cost <= 1.02 * best
    assert near >= 15
    order, _ = _order(p, first, between, 4)
    assert order[0] == 4


def test_expected_way_worked_by_hand():
    between = np.array([[0.0, 3.0], [3.0, 0.0]])
    # 2 m to the first, which has it with .75; else 3 m more
    order = np.array([1, 0])
    cost = _expected(order, np.array([0.25, 0.75]), np.array([1.0, 2.0]), between)
    assert cost == pytest.approx(2 + 0.25 * 3)


@pytest.mark.parametrize("seed", [5008, 5011])
def test_a_search_ends_before_the_thing_in_view(seed):
    one = quest(seed)
    assert 8 <= one.shortest_m < 60
    walk = find_as_point(one, SemanticExplorer(office_floor()), LabelNoise())
    assert walk.success and walk.reason == "goal" and walk.driven_m >= 0.9 * one.shortest_m - 1
    end = np.array([*walk.path_w[-1], 0.0])
    assert Eyes(one.building).near(end, one.wanted)
    gap = one.building.boxes_of(one.wanted)
    off = np.maximum(np.abs(gap[:, :2] - end[:2]) - gap[:, 2:], 0)
    assert np.hypot(*off.T).min() < FOUND_M


def test_a_thing_that_is_not_there_is_not_found():
    for seed in range(100):
        building = furnished(seed, (24.0, 20.0))
        missing = [name for name in office_floor().classes if not len(building.boxes_of(name))]
        if missing:
            break
    start = np.array([*building.world.free_points(np.random.default_rng(0), 1, 0.5)[0], 0.0])
    walk = find_as_point(Quest(building, missing[0], start, np.inf, 1), Utility(), PERFECT)
    assert not walk.success and walk.reason in ("complete", "unreachable")


def test_doorways_that_the_robot_drives_through_become_nodes_of_the_map():
    one = quest(5008)
    mind, eyes = search_of(one, SemanticExplorer(office_floor())), Eyes(one.building)
    pose = one.start_w.copy()
    for t in range(2):
        ranges, labels = eyes.look(pose)
        mind.observe(float(t), pose, ranges, full_circle(BEAMS, RANGE_M).angles, RANGE_M,
                     labels=labels)  # fmt: skip
        mind.decide(float(t))
        assert len(mind.doors) > 0
        pose[:2] = mind.doors[np.hypot(*(mind.doors[:, :2] - pose[:2]).T).argmin(), :2]
    marked = [node for node in mind.graph.nodes.values() if node.landmark]
    assert [node.kind for node in marked] == ["doorway"]
    doors = np.array([(door.x, door.y) for door in one.building.doors])
    assert np.hypot(*(doors - marked[0].pose_w[:2]).T).min() < 0.5
    assert mind.things.things and all(
        thing.node in mind.graph.nodes for thing in mind.things.things
    )


def test_bad_searches_are_refused():
    classes = ("sink",)
    with pytest.raises(ValueError, match="wanted must be one of sink, got 'desk'"):
        ThingSearch("desk", classes, classes)
    with pytest.raises(ValueError, match="landmarks must be True"):
        ThingSearch("sink", classes, classes, explorer=SemanticExplorer(tiny()), landmarks=False)
    with pytest.raises(ValueError, match="know must come before choose"):
        SemanticExplorer(tiny()).choose(None)
