"""The topological map: what becomes a node, what an edge costs, what is forgotten."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toponav.graph import Edge, GraphConfig, TopologicalMap

COV = np.diag([0.01, 0.01, 0.01])
EVERYTHING = lambda node_id: True  # noqa: E731
NOTHING: set[int] = set()
HERE, ELSEWHERE = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]


def drive(
    graph: TopologicalMap, *points: Iterable[float], visible: Any = EVERYTHING, step_m: float = 0.5,
    t_s: float | None = None, **seen: Any,
) -> list[int]:  # fmt: skip
    """Drive along straight lines from where the robot is, 0.5 m/s; what each observation says."""
    said, at = [], graph._pose_w
    for point in points:
        goal = np.array([*point, 0.0])
        start = goal if at is None else at
        pieces = max(1, round(math.dist(start[:2], goal[:2]) / step_m))
        for k in range(1, pieces + 1):
            t = max(graph._now_s, 0.0) + step_m / 0.5 if t_s is None else t_s
            pose = start + (goal - start) * k / pieces
            said.append(graph.observe(pose, COV, t, visible, **seen))
        at = goal
    return said


def chain(length: int = 3, **config: Any) -> TopologicalMap:
    """Nodes 0, 1, ... 2.5 m apart on the x axis, each driven to once; the robot is at the last."""
    graph = TopologicalMap(GraphConfig(**config))
    drive(graph, (0, 0), (2.5 * (length - 1), 0))
    assert list(graph.nodes) == list(range(length))
    return graph


def wander(
    seed: int, steps: int, config: GraphConfig, graph: TopologicalMap | None = None
) -> TopologicalMap:
    """A random drive with views, landmarks, gains and failures."""
    rng = np.random.default_rng(seed)
    graph = TopologicalMap(config) if graph is None else graph
    x = np.zeros(3) if graph._pose_w is None else graph._pose_w.copy()
    for t in range(steps):
        x = x + [*rng.normal(0, 0.8, 2), rng.normal()]
        graph.observe(
            x, COV * rng.uniform(0.1, 2), max(graph._now_s, 0.0) + rng.uniform(0, 3),
            lambda i, t=t: (i * 7 + t) % 3 > 0, rng.normal(1, 0.7, 6) if t % 2 else None,
            ("", "door", "shelf")[t % 3], bool(rng.random() < 0.1), lambda i: (i % 10) / 10,
        )  # fmt: skip
        if rng.random() < 0.2:
            graph.nodes[int(rng.choice(list(graph.nodes)))].gain = rng.uniform(0, 5)
        edges = list(graph.edges())
        if edges and rng.random() < 0.1:
            a, b, edge = edges[rng.integers(len(edges))]
            edge.roughness = rng.uniform(0, 2)
            if not edge.doubted:  # once: doubted and blocked, not dropped
                graph.fail(a, b, graph._now_s)
    return graph


def reached(graph: TopologicalMap, start: int) -> set[int]:
    """Nodes connected to one, blocked or not."""
    found, left = {start}, [start]
    while left:
        new = set(graph.neighbours(left.pop())) - found
        found |= new
        left += new
    return found


# What becomes a node


def test_a_node_is_made_only_when_the_nearest_is_more_than_two_metres_away():
    graph = TopologicalMap()
    assert drive(graph, (0, 0), (6, 0)) == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2]
    assert [graph.nodes[i].pose_w[0] for i in range(3)] == [0.0, 2.5, 5.0]
    assert [(a, b) for a, b, _ in graph.edges()] == [(0, 1), (1, 2)]
    assert graph.home == 0 and graph.current == 2


def test_a_node_behind_a_wall_is_as_far_as_the_way_around_it():
    for wall, places in (
        (True, [(0, 0), (2.5, 0), (0.5, 0.5)]),
        (False, [(0.25, 0.25), (2.5, 0)]),  # back at home, which is half way between the visits
    ):
        graph = TopologicalMap()

        def visible(node_id: int, graph: TopologicalMap = graph, wall: bool = wall) -> bool:
            side = graph.nodes[node_id].pose_w[1] > 0.25, graph._pose_w[1] > 0.25
            return not wall or side[0] == side[1]

        drive(graph, (0, 0), (2.5, 0), (2.5, 0.5), (0, 0.5), visible=visible)
        np.testing.assert_allclose([n.pose_w[:2] for n in graph.nodes.values()], places)


def test_without_sight_the_way_driven_decides():
    graph = TopologicalMap()
    said = drive(graph, (0, 0), (1, 0), (1, 1), (0, 1), visible=NOTHING)  # 3 m, 1 m from home
    assert said == [0, 0, 0, 0, 0, 1, 1] and graph.edge(0, 1).length_m == 2.5


def test_standing_still_makes_neither_visits_nor_certainty():
    graph = TopologicalMap()
    for t in range(50):
        graph.observe([0.2 * (t % 2), 0, 0], COV, t, EVERYTHING)
    node = graph.nodes[0]
    assert node.visits == 1 and node.seen_s == 49
    assert np.array_equal(node.cov, COV) and np.array_equal(node.pose_w, [0, 0, 0])


def test_a_second_visit_fuses_position_by_covariance_but_not_heading():
    graph = TopologicalMap()
    prior = [[0.04, 0, 0.02], [0, 0.01, 0], [0.02, 0, 0.1]]
    graph.observe([0, 0, 0], prior, 0, EVERYTHING)
    drive(graph, (3, 0))
    assert graph.observe([0.5, 0.4, 3.0], np.diag([0.04, 0.03, 0.1]), 99, EVERYTHING) == 0
    # K = P H' (P_xy + R_xy)^-1 = [[.04/.08, 0], [0, .01/.04], [.02/.08, 0]]
    node = graph.nodes[0]
    assert node.pose_w == pytest.approx([0.25, 0.1, 0.125])
    left = [[0.02, 0, 0.01], [0, 0.0075, 0], [0.01, 0, 0.095]]
    np.testing.assert_allclose(node.cov, left, atol=1e-15)
    assert node.visits == 2


def test_an_exact_node_does_not_move():
    graph = TopologicalMap()
    for pose in ([0, 0, 0], [3, 0, 0], [0.5, 0, 0]):
        graph.observe(pose, np.zeros((3, 3)), 0, EVERYTHING)
    assert graph.nodes[0].visits == 2 and np.array_equal(graph.nodes[0].pose_w, [0, 0, 0])


def test_a_view_unlike_all_within_five_metres_makes_a_node_of_its_own():
    between = [0.81, math.sqrt(1 - 0.81**2), 0.0]
    for view, nodes in ((HERE, 1), (between, 1), (ELSEWHERE, 2), (None, 1)):
        graph = TopologicalMap()
        graph.observe([0, 0, 0], COV, 0, EVERYTHING, HERE)
        graph.observe([1.5, 0, 0], COV, 1, EVERYTHING, view)
        assert len(graph) == nodes
    graph.observe([0.5, 0, 0], COV, 2, EVERYTHING, ELSEWHERE)
    assert len(graph) == 1  # still at the node


def test_the_descriptor_of_a_node_is_the_mean_of_its_visits():
    graph = TopologicalMap()
    for x, view in ((0, HERE), (3, None), (0, ELSEWHERE), (3, HERE), (0, ELSEWHERE)):
        graph.observe([x, 0, 0], COV, 0, EVERYTHING, view)
    # mean of the first two, then of that (counted twice) and the third
    first = np.array([1, 1, 0]) / math.sqrt(2)
    want = 2 * first + [0, 1, 0]
    assert graph.nodes[0].descriptor == pytest.approx(want / np.linalg.norm(want))
    assert graph.nodes[1].descriptor == pytest.approx(HERE)  # the first that it was given


def test_a_doorway_is_one_node_however_often_it_is_seen():
    graph = TopologicalMap()
    drive(graph, (0, 0))
    said = drive(graph, (1.6, 0), step_m=0.2, landmark=True, kind="door")
    assert said[3:] == [0, 1, 1, 1, 1]  # from 1.0 m on
    assert graph.nodes[1].landmark and graph.nodes[1].kind == "door"


@pytest.mark.parametrize(
    ("view", "inliers", "cov", "closed"),
    [
        (HERE, 0.7, 1.0, True),
        (HERE, 0.6, 1.0, False),  # the scan does not fit
        (ELSEWHERE, 0.7, 1.0, False),  # it looks different
        (HERE, 0.7, 0.1, False),  # too far off to be drift
        (None, 0.7, 1.0, False),
        (HERE, None, 1.0, False),
    ],
)
def test_a_loop_closes_if_view_scan_and_position_agree(view, inliers, cov, closed):
    graph = chain(3)
    for node in graph.nodes.values():
        node.descriptor = np.array(ELSEWHERE, np.float32)
    graph.nodes[0].descriptor = np.array(HERE, np.float32)
    drive(graph, (5, 3), (1.5, 3), visible=NOTHING)
    before = len(graph)
    match = None if inliers is None else {0: inliers}
    # 3 m off in y: 9 / (0.01 + cov) against 9.21
    at = graph.observe([0, 3, 0], COV * 100 * cov, 99, NOTHING, view, inliers=match)
    assert (at == 0) == closed
    assert len(graph) == before or not closed
    if closed:
        assert graph.nodes[0].pose_w[1] == pytest.approx(3 * 0.01 / 1.01)
        assert graph.neighbours(0) == [1, before - 1]
        # the robot is at the node, wherever it thinks it is
        assert graph.observe([0.5, 3, 0], COV, 99, NOTHING) == 0


def test_a_view_like_that_of_the_current_node_does_not_hold_the_robot_there():
    graph = TopologicalMap()
    for x, node in ((0, 0), (3, 1)):  # so uncertain that it might be the same place
        assert graph.observe([x, 0, 0], 9 * np.eye(3), 0, NOTHING, HERE, inliers={0: 1.0}) == node


def test_sight_is_asked_only_of_nodes_that_may_be_nearest():
    graph, asked = chain(5), []
    graph.lost()
    graph.observe([9.0, 1.0, 0.0], COV, 99, lambda i: bool(asked.append(i)))
    assert asked == [4, 3]  # those within 2 m, the nearest first


def test_a_node_that_is_passed_by_is_seen():
    graph = chain(2)
    assert graph.observe([1.2, 0, 0], COV, 99, {0}) == 0
    assert graph.nodes[0].seen_s == 99 and graph.nodes[0].visits == 1 and graph.current == 1


def test_the_first_node_after_being_lost_joins_no_other():
    graph = chain(2)
    graph.lost()
    assert graph.current is None
    assert drive(graph, (9, 9)) == [2] and graph.neighbours(2) == []
    graph.lost()
    assert graph.observe([2.5, 0, 0], COV, 99, EVERYTHING) == 1
    assert graph.neighbours(1) == [0] and graph.current == 1


# Edges


def test_edge_cost_is_length_over_success_times_roughness_plus_age():
    graph = chain(2)
    edge = graph.edge(0, 1)
    edge.length_m, edge.roughness = 3.0, 0.5
    assert (edge.alpha, edge.beta) == (2, 1)
    # 3 / (2/3) * 1.5 + 0.001 * 100
    assert graph.cost(edge, edge.seen_s + 100) == pytest.approx(6.85)
    assert graph.cost(edge, edge.seen_s + 1e6) == pytest.approx(6.75 + 2.0)
    hopeless = Edge(3.0, 0.0, alpha=1, beta=99)
    assert graph.cost(hopeless, 0.0) == pytest.approx(3 / 0.05)


def test_an_edge_keeps_the_mean_time_and_the_shortest_way():
    graph = TopologicalMap()
    for pose in ([0, 0, 0], [4, 0, 0]):
        graph.observe(pose, COV, 0, EVERYTHING)
    for node, t in ((0, 10), (1, 30), (0, 36)):
        graph.arrive(node, t, 5.0)
    edge = graph.edge(0, 1)
    assert edge.length_m == 4.0 and (edge.alpha, edge.beta) == (5, 1)
    assert edge.time_s == pytest.approx((0 + 10 + 20 + 6) / 4)


def test_the_way_of_an_edge_leads_from_middle_to_middle():
    graph = TopologicalMap()
    for x in (0.0, 3.0, 0.8):  # home is reached 0.8 m off
        graph.observe([x, 0, 0], COV, 0, EVERYTHING)
    assert graph.edge(0, 1).length_m == pytest.approx(3.0)


def test_a_reported_arrival_counts_the_way_that_was_observed_and_else_the_line():
    for observed, length in (([(3, 3), (0, 3)], 6.0), ([], 3.0)):
        graph = TopologicalMap(GraphConfig(spacing_m=10))
        graph.observe([0, 0, 0], COV, 0, NOTHING)
        graph.lost()
        graph.observe([3, 0, 0], COV, 0, NOTHING)
        drive(graph, *observed, visible=NOTHING)
        graph.arrive(0, 99)
        assert graph.edge(0, 1).length_m == pytest.approx(length)


def test_waiting_at_a_node_is_no_driving_time():
    graph = TopologicalMap()
    for x, t in ((0, 0), (0.1, 100), (3, 110)):
        graph.observe([x, 0, 0], COV, t, EVERYTHING)
    assert graph.edge(0, 1).time_s == 10 and graph.edge(0, 1).length_m == pytest.approx(3.0)


def test_a_drive_that_a_failure_interrupted_is_not_timed():
    graph = TopologicalMap(GraphConfig(drop_failures=9))
    for x in (0, 3):
        graph.observe([x, 0, 0], COV, 0, EVERYTHING)
    graph.fail(1, 0, 50)
    graph.arrive(0, 60)
    assert graph.edge(0, 1).time_s == 0.0 and graph.edge(0, 1).alpha == 3


def test_a_failed_edge_is_blocked_opens_again_and_success_clears_the_doubt():
    graph = chain(2, drop_failures=9)
    edge, t = graph.edge(0, 1), 100.0
    for times, wait in ((1, 30), (2, 60), (3, 120)):
        assert not graph.fail(1, 0, t)
        assert edge.doubted and edge.failures_in_a_row == times and graph.nodes[0].failures == times
        assert graph.plan(1, 0, t + wait - 0.1) is None and graph.plan(1, 0, t + wait) == [1, 0]
        t += wait
    assert edge.success == pytest.approx(2 / 6)
    graph.arrive(0, t)
    assert not edge.doubted and graph.nodes[0].failures == 0
    graph.fail(0, 1, t)
    assert graph.plan(0, 1, t) is None and graph.plan(0, 1, t + 30) == [0, 1]


def test_an_edge_that_fails_twice_in_a_row_is_dropped():
    graph = chain(2)
    assert not graph.fail(1, 0, 10)
    graph.arrive(0, 50)
    assert not graph.fail(0, 1, 60)  # a success lay between
    assert graph.fail(0, 1, 99)
    assert graph.edge(0, 1) is None and graph.neighbours(0) == []
    assert graph.plan(0, 1, 1e9) is None and len(graph) == 2
    with pytest.raises(ValueError, match="a and b must be joined by an edge, got 0 and 1"):
        graph.fail(0, 1, 99)


def test_a_closed_door_is_driven_around_and_used_again_later():
    graph = TopologicalMap()
    drive(graph, (0, 0), (3, 0), (3, 3), (0, 3), (0, 0))
    a, b = 0, graph.neighbours(0)[0]
    direct = graph.plan(a, b, graph._now_s)
    assert direct == [a, b]
    graph.fail(a, b, graph._now_s)
    around = graph.plan(a, b, graph._now_s)
    assert len(around) > 2 and (around[0], around[-1]) == (a, b)
    assert graph.plan(a, b, graph._now_s + 3600) == direct


@st.composite
def networks(draw: st.DrawFn) -> TopologicalMap:
    """Up to 8 nodes anywhere, any edges, some blocked until 100 s."""
    count = draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    graph = TopologicalMap()
    for _ in range(count):
        graph.lost()
        graph.observe([*rng.uniform(0, 99, 2), 0], COV, 0, NOTHING)
    state = graph.state_dict()
    state["edges"] = [
        {
            "a": a, "b": b, "length_m": rng.uniform(0, 9), "seen_s": rng.uniform(0, 99),
            "time_s": None, "alpha": rng.uniform(1, 9), "beta": rng.uniform(1, 9),
            "roughness": rng.uniform(0, 2), "failures_in_a_row": 0,
            "blocked_until_s": 100.0 if rng.random() < 0.3 else None,
        }
        for a, b in itertools.combinations(range(count), 2) if rng.random() < 0.4
    ]  # fmt: skip
    graph.load_state_dict(state)
    return graph


@settings(max_examples=60, deadline=None)
@given(networks(), st.sampled_from([50.0, 100.0]))
def test_plans_are_the_cheapest_over_open_edges(graph, t):
    n = len(graph)
    want = np.full((n, n), math.inf)
    np.fill_diagonal(want, 0)
    for a, b, edge in graph.edges():
        if edge.blocked_until_s <= t:
            want[a, b] = want[b, a] = graph.cost(edge, t)
    for k in range(n):  # Floyd 1962, Warshall 1962
        want = np.minimum(want, want[:, k, None] + want[None, k])
    for a in range(n):
        assert list(graph.distances_from(a, t).values()) == pytest.approx(list(want[a]))
        for b in range(n):
            plan = graph.plan(a, b, t)
            assert (plan is None) == math.isinf(want[a, b])
            if plan is not None:
                steps = [graph.edge(*step) for step in itertools.pairwise(plan)]
                assert (plan[0], plan[-1]) == (a, b) and None not in steps
                assert sum(graph.cost(e, t) for e in steps) == pytest.approx(want[a, b])


def test_the_nearest_node_may_be_asked_to_be_within_reach():
    graph = chain(3)
    assert graph.nearest([0.4, 1]) == 0 and graph.nearest([2.4, -1]) == 1
    graph.fail(1, 0, 100)
    assert graph.nearest([0.4, 1], 101) == 1 and graph.nearest([0.4, 1], 131) == 0
    assert TopologicalMap().nearest([0, 0]) is None


# Thinning


def test_pruning_takes_the_middle_of_a_straight_chain_and_keeps_its_length():
    graph = chain(5)
    graph.edge(0, 1).time_s, graph.edge(1, 2).time_s = 5.0, 7.0
    graph.edge(0, 1).roughness = 1.0
    graph.edge(1, 2).beta = 4.0
    assert graph.prune() == [1, 3]  # 0 1 2 3 4: an edge is at most 6 m long
    assert [(a, b) for a, b, _ in graph.edges()] == [(0, 2), (2, 4)]
    edge = graph.edge(0, 2)
    assert edge.length_m == 5.0 and edge.time_s == 12.0 and edge.roughness == 0.5
    assert edge.success == pytest.approx(2 / 6)  # that of the weaker
    assert edge.seen_s == 6.0  # the older
    assert graph.plan(0, 4, 0) == [0, 2, 4]


def test_driving_along_a_pruned_edge_does_not_bring_its_nodes_back():
    graph = chain(3)
    graph.prune()
    said = drive(graph, (0, 0), (5, 0), (0, 0.1))
    assert set(said) == {0, 2} and graph.edge(0, 2).alpha == 2 + 3
    drive(graph, (2.4, 1.0))
    assert len(graph) == 3  # off the line it is a place of its own
    graph = chain(3)
    graph.prune()
    graph.fail(2, 0, graph._now_s)
    assert set(drive(graph, (2.5, 0))) == {2, 3}  # what blocks the edge may be a place to be


def test_pruning_keeps_what_matters():
    def middle(graph: TopologicalMap) -> Any:
        return graph.nodes[1]

    kept = {
        "landmark": lambda g: setattr(middle(g), "landmark", True),
        "frontier gain": lambda g: setattr(middle(g), "gain", 0.1),
        "home": lambda g: setattr(g, "home", 1),
        "current": lambda g: g.arrive(1, 99),
        "corner": lambda g: setattr(middle(g), "pose_w", np.array([2.5, 0.4, 0])),
        "doubted": lambda g: g.fail(1, 2, 99),
        "detour": lambda g: setattr(g.edge(0, 1), "length_m", 3.0),
    }
    for name, change in kept.items():
        graph = chain(3)
        change(graph)
        assert graph.prune() == [], name
    assert chain(3).prune() == [1]
    assert chain(3, prune_m=4.9).prune() == []


def test_above_the_cap_the_least_useful_node_is_contracted():
    graph = TopologicalMap(GraphConfig(max_nodes=4))
    drive(graph, (0, 0), (2.5, 0), (2.5, 2.5), (5, 2.5))
    assert list(graph.nodes) == [0, 1, 2, 3]
    graph.nodes[1].visits = 9
    drive(graph, (5, 5))  # no straight chain: node 2, visited once and longest ago, must go
    assert list(graph.nodes) == [0, 1, 3, 4]
    assert graph.edge(1, 3).length_m == 5.0 and graph.plan(0, 4, 0) == [0, 1, 3, 4]


def test_landmarks_and_then_frontiers_outlive_other_nodes():
    graph = TopologicalMap(GraphConfig(max_nodes=4))
    drive(graph, (0, 0), (2.5, 0), (2.5, 2.5), (5, 2.5))
    graph.nodes[1].gain, graph.nodes[2].landmark, graph.nodes[3].visits = 0.1, True, 9
    drive(graph, (5, 5))
    assert list(graph.nodes) == [0, 1, 2, 4]
    drive(graph, (7.5, 5))
    assert list(graph.nodes) == [0, 1, 2, 5]  # 4 is no landmark
    graph.nodes[5].landmark = True
    drive(graph, (7.5, 7.5))
    assert list(graph.nodes) == [0, 1, 5, 6]  # of landmarks the older one goes
    graph.nodes[5].gain = 0.2
    drive(graph, (10, 7.5))
    assert list(graph.nodes) == [0, 1, 5, 7]


@pytest.mark.parametrize(
    ("direct", "doubted", "length"), [(2.0, False, 2.0), (9.0, False, 4.0), (2.0, True, 4.0)]
)
def test_of_a_direct_edge_and_the_way_over_a_contracted_node_the_better_stays(
    direct, doubted, length
):
    graph = TopologicalMap()
    for x in (0, 3, 6, 0):
        graph.observe([x, 0, 0], COV, 0, EVERYTHING)
    graph.edge(0, 1).length_m = graph.edge(1, 2).length_m = 2.0
    graph.edge(0, 2).length_m, graph.edge(0, 2).failures_in_a_row = direct, int(doubted)
    graph._contract(1)
    assert graph.edge(0, 2).length_m == length and not graph.edge(0, 2).doubted


def test_a_doubted_edge_is_not_the_way_for_all_neighbours_of_a_contracted_node():
    graph = TopologicalMap()
    drive(graph, (0, 0), (3, 0), (0, 0), (0, 4), (0, 0), (-5, 0), step_m=5)
    graph.fail(0, 1, 1000)  # the nearest
    graph._contract(0)
    assert [(a, b, e.doubted) for a, b, e in graph.edges()] == [(1, 2, True), (2, 3, False)]


def test_the_neighbours_of_a_contracted_node_stay_connected_over_the_best_way():
    graph = TopologicalMap()
    drive(graph, (0, 0), (3, 0), (0, 0), (0, 4), (0, 0), (-5, 0), visible=EVERYTHING, step_m=5)
    assert graph.neighbours(0) == [1, 2, 3]
    graph.fail(3, 0, 1000)
    graph.home = 1
    graph._contract(0)
    assert [(a, b, e.length_m, e.doubted) for a, b, e in graph.edges()] == [
        (1, 2, 7.0, False), (1, 3, 8.0, True),
    ]  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12))
def test_the_cap_holds_ids_are_never_used_again_and_the_map_stays_connected(seed, cap):
    graph = TopologicalMap(GraphConfig(max_nodes=cap, merge_m=0.5, spacing_m=0.7))
    gone: set[int] = set()
    for k in range(12):
        before = set(graph.nodes)
        wander(seed + k, 8, graph.config, graph)
        gone |= before - set(graph.nodes)
        assert 0 < len(graph) <= cap and not gone & set(graph.nodes)
        assert {graph.home, graph.current} <= set(graph.nodes)
        assert reached(graph, 0) == set(graph.nodes)
    assert gone or len(graph) < cap


# Correction, state, doors


def test_a_correction_is_spread_linearly_over_the_chain_since_the_last_fixed_node():
    graph = chain(4)
    graph.correct(2, [5.0, 1.0, 0.2], COV / 2)
    want = [[0, 0, 0], [2.5, 0.5, 0.1], [5, 1, 0.2], [7.5, 1, 0.2]]
    np.testing.assert_allclose([n.pose_w for n in graph.nodes.values()], want)
    assert np.array_equal(graph.nodes[2].cov, COV / 2) and np.array_equal(graph.nodes[1].cov, COV)
    assert [e.length_m for *_, e in graph.edges()] == [2.5] * 3
    # node 2 is fixed now: only what was made since moves, in its share of the way since
    drive(graph, (10.0, 1.0))
    assert 4 in graph.nodes
    graph.correct(4, [10.0, 3.0, 0.0], COV)
    want = [[0, 0, 0], [2.5, 0.5, 0.1], [5, 1, 0.2], [7.5, 2, 0.2], [10, 3, 0]]
    np.testing.assert_allclose([n.pose_w for n in graph.nodes.values()], want)


def test_after_a_correction_the_robot_has_not_driven():
    graph = chain(3)
    graph.correct(2, [5.0, 3.0, 0.0], COV)
    assert graph.observe([5.5, 3.0, 0.0], COV, 99, NOTHING) == 2
    graph.correct(0, [0.0, -7.0, 0.0], COV)  # not in the chain: moves alone
    np.testing.assert_allclose([n.pose_w[1] for n in graph.nodes.values()], [-7, 1.5, 3])


def test_a_corrected_heading_takes_the_short_way_around():
    graph = TopologicalMap()
    graph.observe([0, 0, 3.0], COV, 0, NOTHING)
    graph.observe([2.5, 0, 3.0], COV, 1, NOTHING)
    graph.observe([5.0, 0, 3.0], COV, 2, NOTHING)
    graph.correct(2, [5.0, 0, -3.0], COV)
    assert graph.nodes[1].pose_w[2] == pytest.approx(math.pi)


def test_arrays_hold_the_map_row_by_row():
    graph = chain(3)
    graph.nodes[2].descriptor = np.array([0.6, 0.8], np.float32)
    graph.fail(2, 1, 99)
    graph._contract(1)
    graph.nodes[0].kind = "dock"
    a = graph.arrays()
    assert a["id"].tolist() == [0, 2] and a["edge_index"].tolist() == [[0, 1]]
    assert a["pose_w"].shape == (2, 3) and a["cov"].shape == (2, 3, 3)
    assert a["descriptor"].tolist() == [[0, 0], pytest.approx([0.6, 0.8])]
    assert a["kind"].tolist() == ["dock", ""] and a["visits"].tolist() == [1, 1]
    assert a["length_m"].tolist() == [5.0] and a["doubted"].tolist() == [True]
    empty = TopologicalMap().arrays()
    assert empty["pose_w"].shape == (0, 3) and empty["edge_index"].shape == (0, 2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 60))
def test_a_loaded_map_is_the_same_and_goes_on_the_same(seed, steps):
    graph = wander(seed, steps, GraphConfig(max_nodes=10))
    state = json.loads(json.dumps(graph.state_dict(), allow_nan=False))
    copy = TopologicalMap(graph.config)
    copy.load_state_dict(state)
    assert copy.state_dict() == graph.state_dict() == state
    for one in (graph, copy):
        wander(seed + 1, 20, one.config, one)
        one.correct(max(one.nodes), [1, 2, 3], COV)
    assert copy.state_dict() == graph.state_dict()
    assert all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in
               zip(copy.arrays().values(), graph.arrays().values(), strict=True))  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("nodes", 1, "pose_w"), [0, 0], r"nodes\[1\]\.pose_w must be \(3,\) finite numbers"),
        (("nodes", 1, "pose_w", 0), math.nan, r"nodes\[1\]\.pose_w\[0\] must be finite"),
        (("nodes", 1, "cov"), [0.0] * 8, r"nodes\[1\]\.cov must be 9 numbers, got 8"),
        (("nodes", 1, "cov", 0), -1.0, r"nodes\[1\]\.cov must be symmetric and not negative"),
        (("nodes", 1, "descriptor"), [1.0, 1.0], r"nodes\[1\]\.descriptor must be of unit length"),
        (("nodes", 1, "descriptor"), [1.0], r"nodes\[1\]\.descriptor must be 3 numbers, got 1"),
        (("nodes", 1, "kind"), 3, r"nodes\[1\]\.kind must be str, got 3"),
        (("nodes", 1, "visits"), 1.5, r"nodes\[1\]\.visits must be a whole number >= 0, got 1\.5"),
        (("nodes", 1, "gain"), -1, r"nodes\[1\]\.gain must be finite and >= 0"),
        (("nodes", 1, "gain"), 10**400, r"nodes\[1\]\.gain must be finite"),
        (("nodes", 1, "id"), 0, r"nodes\[1\]\.id must be above the one before, got 0"),
        (("nodes", 1), {}, r"nodes\[1\] must have all its fields .* missing \['cov'"),
        (("edges", 0, "b"), 7, r"edges\[0\]\.b must be one of the nodes, got 7"),
        (("edges", 0, "b"), 0, r"edges\[0\] must join a new pair a < b, got 0 and 0"),
        (("edges", 0, "time_s"), -1, r"edges\[0\]\.time_s must be finite and >= 0"),
        (("edges", 0, "alpha"), None, r"edges\[0\]\.alpha must be a number, got None"),
        (("edges", 0, "colour"), 1, r"edges\[0\] must have .* unknown \['colour'\]"),
        (("home",), 7, "home must be one of the nodes, got 7"),
        (("next_id",), 1, "next_id must be a whole number >= 2, got 1"),
        (("chain", 0), [1], r"chain\[0\] must be \[id, way\], got \[1\]"),
        (("driven_m",), True, "driven_m must be a number, got True"),
    ],
)
def test_a_damaged_state_is_refused_by_field_and_changes_nothing(path, value, words):
    graph = TopologicalMap()
    for x in (0, 3):
        graph.observe([x, 0, 0], COV, 0, NOTHING, HERE)
    before = graph.state_dict()
    state: Any = graph.state_dict()
    inner = state
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(ValueError, match=words):
        graph.load_state_dict(state)
    assert graph.state_dict() == before


def test_a_map_larger_than_the_cap_is_refused():
    state = chain(5).state_dict()
    with pytest.raises(ValueError, match="nodes must be at most max_nodes 4, got 5"):
        TopologicalMap(GraphConfig(max_nodes=4)).load_state_dict(state)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pose_w": [0, 0]}, r"pose_w must be \(3,\) finite numbers, got \[0"),
        ({"pose_w": [0, 0, math.nan]}, "pose_w must be"),
        ({"pose_w": ["a", 0, 0]}, "pose_w must be"),
        ({"cov": np.eye(2)}, r"cov must be \(3, 3\)"),
        ({"cov": [[1, 2, 0], [0, 1, 0], [0, 0, 1]]}, "cov must be symmetric"),
        ({"descriptor": [1, 0]}, r"descriptor must be \(3,\), got \(2,\)"),
        ({"descriptor": [0, 0, 0]}, "descriptor must be finite and not zero"),
        ({"t_s": -1}, "t_s must be finite and not before 5.0, got -1"),
        ({"t_s": math.nan}, "t_s must be finite"),
    ],
)
def test_bad_observations_are_refused_by_name(changes, words):
    graph = TopologicalMap()
    good = {"pose_w": [0, 0, 0], "cov": COV, "t_s": 5, "visible": NOTHING, "descriptor": HERE}
    graph.observe(**good)
    with pytest.raises(ValueError, match=words):
        graph.observe(**good | changes)


def test_unknown_nodes_are_refused():
    graph = chain(2)
    for ask in (
        lambda: graph.plan(0, 9, 0), lambda: graph.plan(9, 0, 0), lambda: graph.arrive(9, 99),
        lambda: graph.distances_from(9, 0), lambda: graph.neighbours(9),
        lambda: graph.correct(9, [0, 0, 0], COV),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="node_id must be one of the 2 nodes, got 9"):
            ask()


@pytest.mark.parametrize(
    "field", ["spacing_m", "merge_m", "near_m", "block_s", "max_nodes", "drop_failures",
              "min_success", "prune_detour", "prune_m", "merge_gate", "age_m_per_s"],
)  # fmt: skip
def test_a_config_out_of_range_is_refused_by_name(field):
    for value in (-1, math.nan):
        with pytest.raises(ValueError, match=f"{field} must be"):
            GraphConfig(**{field: value})


def test_observing_and_planning_among_512_nodes_takes_under_5_ms():
    rng, cov, rows = np.random.default_rng(0), COV.ravel().tolist(), range(512)
    views = rng.normal(1, 0.5, (512, 64))
    views /= np.linalg.norm(views, axis=1, keepdims=True)
    node = {"kind": "", "landmark": True, "visits": 1, "seen_s": 0, "gain": 0, "failures": 0}
    edge = {"length_m": 2.5, "seen_s": 0, "time_s": 5, "alpha": 2, "beta": 1, "roughness": 0,
            "blocked_until_s": None, "failures_in_a_row": 0}  # fmt: skip
    graph = TopologicalMap()
    graph.load_state_dict(
        graph.state_dict()
        | {"next_id": 512, "home": 0, "current": 0, "pose_w": [0, 0, 0]}
        | {"nodes": [node | {"id": i, "pose_w": [2.5 * (i % 23), 2.5 * (i // 23), 0], "cov": cov,
                             "descriptor": views[i].tolist()} for i in rows]}
        | {"edges": [edge | {"a": i, "b": i + n} for i in rows for n in (1, 23)
                     if i + n < 512 and (n == 23 or i % 23 < 22)]}
    )  # fmt: skip
    took = []
    for k in range(30):
        start = time.perf_counter()
        at = graph.observe([2.5 * (k % 20), 1.2, 0], COV, k, EVERYTHING, views[k])
        path = graph.plan(at, 511, k)
        took.append(time.perf_counter() - start)
        assert len(path) > 20
    assert min(took) < 0.005
