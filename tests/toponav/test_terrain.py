"""Sensed ground: heights, planes, what stands; energy learned from driving; ways over it."""

import numpy as np
import pytest

from toponav.elevation import ElevationConfig, ElevationMap
from toponav.energy import EnergyConfig, EnergyModel
from toponav.terrain_mind import TerrainConfig, TerrainMind
from toponav.terrain_ways import WayConfig, Weights, ahead, find, shortest

BOUNDS = (-8.0, -8.0, 8.0, 8.0)


def ground(height, bounds=BOUNDS, trunks=(), config=None):
    """A map that has seen all of ``height(x, y)`` within bounds, and trunks at points."""
    seen = ElevationMap(bounds, config)
    line = np.arange(bounds[0] + 0.05, bounds[2], 0.1)
    x, y = np.meshgrid(line, line)
    z = np.broadcast_to(height(x, y), x.shape)
    points = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    for tx, ty in trunks:
        up = np.linspace(0, 2, 9)
        points = np.concatenate([points, np.stack([0 * up + tx, 0 * up + ty, up], axis=1)])
    for _ in range(3):
        seen.integrate(points, np.full(len(points), 0.01))
    return seen


def length(path):
    return float(np.hypot(*np.diff(path, axis=0).T).sum())


def test_mean_and_variance_of_a_cell_by_hand():
    seen = ElevationMap((0, 0, 1, 1))
    points = np.array([[0.1, 0.1, 1.0], [0.1, 0.1, 2.0]])
    seen.integrate(points[:1], [0.1])
    seen.integrate(points[1:], [0.2])  # weights 100 and 25
    assert seen.mean[0, 0] == pytest.approx(1.2)
    assert seen.variance[0, 0] == pytest.approx((100 * 0.04 + 25 * 0.64) / 125)
    assert np.isnan(seen.mean[0, 1]) and seen.seen.sum() == 1


def test_planes_are_fitted_exactly_and_noise_is_roughness():
    slope = ground(lambda x, y: 0.3 * x - 0.1 * y + 1.0).surface()
    inside = np.s_[5:-5, 5:-5]
    np.testing.assert_allclose(slope.slope_x[inside], 0.3, atol=1e-9)
    np.testing.assert_allclose(slope.slope_y[inside], -0.1, atol=1e-9)
    assert slope.rough[inside].max() < 1e-6
    centre = slope.centre(slope.cell((2.0, 3.0)))
    assert slope.height[slope.cell((2.0, 3.0))] == pytest.approx(
        0.3 * centre[0] - 0.1 * centre[1] + 1.0
    )
    rng = np.random.default_rng(0)
    rough = ground(lambda x, y: np.repeat(np.repeat(rng.normal(0, 0.05, (80, 80)), 2, 0), 2, 1))
    assert np.median(rough.surface().rough[inside]) == pytest.approx(0.05, rel=0.15)


def test_a_line_of_points_gives_no_plane():
    seen = ElevationMap(BOUNDS)
    x = np.linspace(-3, 3, 60)
    seen.integrate(np.stack([x, 0 * x, 0 * x], axis=1), np.full(60, 0.01))
    assert not seen.surface().known.any()


def test_what_stands_is_told_from_a_slope_and_forgotten_when_it_is_gone():
    assert not ground(lambda x, y: 0.6 * x).stands.any()
    seen = ground(lambda x, y: 0 * x, trunks=[(1.05, 1.05)])
    assert list(map(tuple, np.argwhere(seen.stands))) == [
        tuple(seen.cells(np.array([[1.05] * 2]))[0])
    ]
    around = seen.surface()
    assert abs(around.slope_x[around.cell((1.4, 1.05))]) < 1e-9  # the trunk is no ground
    low = np.array([[1.05, 1.05, 0.0], [1.06, 1.05, 0.02]])
    for _ in range(10):
        seen.integrate(low, [0.01, 0.01])
    assert not seen.stands.any()


def test_the_map_grows_and_keeps_what_it_has():
    seen = ElevationMap((0, 0, 1, 1))
    seen.integrate([[0.5, 0.5, 3.0]], [0.1])
    seen.integrate([[-4.0, 9.0, 1.0]], [0.1])
    at = seen.cells(np.array([[0.5, 0.5], [-4.0, 9.0]]))
    np.testing.assert_allclose(seen.mean[at[:, 0], at[:, 1]], [3.0, 1.0])
    assert np.isfinite(seen.mean).sum() == 2


def test_wrong_arguments_are_named():
    seen = ElevationMap((0, 0, 1, 1))
    with pytest.raises(ValueError, match="sigma_m"):
        seen.integrate([[0, 0, 0.0]], [0.0])
    with pytest.raises(ValueError, match="points_w"):
        seen.integrate([[0, 0]], [1.0])
    with pytest.raises(ValueError, match="plane_m"):
        ElevationConfig(plane_m=0.3)
    with pytest.raises(ValueError, match="rolling"):
        EnergyConfig(rolling=0.0)
    with pytest.raises(ValueError, match="theta"):
        Weights(np.zeros(5))


def test_the_prior_is_rolling_and_climbing_work():
    model = EnergyModel(EnergyConfig(mass_kg=10.0, rolling=0.1, efficiency=0.5))
    assert model.energy([3.0, 0, 0, 0, 0]) == pytest.approx(10 * 9.81 * 0.1 * 3 / 0.5)
    climb = model.energy([0.0, 2.0, 0, 0, 0])
    assert climb == pytest.approx(10 * 9.81 * 2 / 0.5)
    assert model.energy([1.0, 0, 5.0, 0, 0]) == pytest.approx(0.1 * model.theta[0])  # never paid


def test_the_model_finds_what_driving_costs():
    rng = np.random.default_rng(1)
    true = np.array([9.0, 150.0, -60.0, 240.0, 70.0])
    model = EnergyModel()
    before = np.abs(model.theta - true)
    for _ in range(300):
        rise = rng.normal(0, 0.15)
        phi = np.array([0.6, max(rise, 0), max(-rise, 0), rng.uniform(0, 0.03), rng.uniform(0, 1)])
        model.learn(phi, max(phi @ true + rng.normal(0, 3.0), 0.0))
    after = np.abs(model.theta - true)
    assert model.samples == 300
    assert after[[0, 1, 4]].max() < 0.15 * true[[0, 1, 4]].max() and (after < before).sum() >= 4


def hill(x, y):
    """1.2 m high, at most 0.36 steep, across the straight way."""
    return 1.2 * np.exp(-((x**2 + y**2) / (2 * 2.0**2)))


def test_little_energy_goes_round_a_hill_that_the_shortest_way_climbs():
    surface = ground(hill).surface()
    pose, goal = (-6.0, 0.2, 0.0), (6.0, 0.2)
    straight = find(surface, BOUNDS, pose, goal, shortest())
    cheap_turns = EnergyModel(EnergyConfig(turn_j_per_rad=25.0))
    around = find(surface, BOUNDS, pose, goal, Weights(cheap_turns.theta))
    assert straight.complete and around.complete
    assert length(straight.path_w) == pytest.approx(12.0, abs=0.1)
    assert np.abs(around.path_w[:, 1]).max() > 2.0
    top = max(hill(*p) for p in np.linspace(around.path_w[0], around.path_w[-1], 3)[[0, 2]])
    assert max(hill(x, y) for x, y in around.path_w) < 0.7 + top
    np.testing.assert_allclose(around.path_w[[0, -1]], [(-6.0, 0.2), goal])


def test_too_steep_and_trunks_are_driven_round_by_all():
    steep = ground(lambda x, y: 2.0 * np.exp(-((x**2 + y**2) / 2)), trunks=[(-4.05, 0.05)])
    c = WayConfig()
    for weights in (shortest(), Weights(EnergyModel().theta)):
        path = find(steep.surface(), BOUNDS, (-6.0, 0.0, 0.0), (6.0, 0.0), weights).path_w
        dense = np.concatenate([
            np.linspace(a, b, 20) for a, b in zip(path[:-1], path[1:], strict=True)
        ])  # fmt: skip
        assert np.hypot(dense[:, 0] + 4.05, dense[:, 1] - 0.05).min() > c.clearance_m - 0.2
        surface = steep.surface()
        tilt = [np.hypot(surface.slope_x[surface.cell(p)], surface.slope_y[surface.cell(p)])
                for p in dense]  # fmt: skip
        assert max(tilt) < np.hypot(c.pitch_max, c.roll_max)


def test_a_goal_behind_a_closed_ring_gives_the_way_to_its_rim():
    ring = ground(lambda x, y: 3.0 * np.exp(-((np.hypot(x - 4, y) - 2) ** 2) / 0.3))
    way = find(ring.surface(), BOUNDS, (-6.0, 0.0, 0.0), (4.0, 0.0), shortest())
    assert not way.complete and np.isinf(way.cost)
    assert 1.5 < np.hypot(*(way.path_w[-1] - (4.0, 0.0))) < 4.5


def test_a_way_in_hand_is_kept_unless_another_saves_enough():
    surface = ground(lambda x, y: 0 * x, trunks=[(0.05, 0.05)]).surface()
    old = np.array([[-6.0, -0.2], [0.0, 0.9], [6.0, -0.2]])  # left of the trunk; right is shorter
    pose, goal = (-6.0, -0.2, 0.0), (6.0, -0.2)
    kept = find(surface, BOUNDS, pose, goal, shortest(), old_w=old, keep=0.1)
    left = find(surface, BOUNDS, pose, goal, shortest(), old_w=old, keep=0.0)
    assert kept.path_w[1, 1] > 0.5 and kept.cost > left.cost
    assert left.path_w[:, 1].max() < 0
    np.testing.assert_allclose(ahead(old, np.array([1.0, 0.8])), [(1.0, 0.8), (6.0, -0.2)])


def test_no_way_leaves_the_fence():
    surface = ground(lambda x, y: 0 * x, trunks=[(0.05, k / 5) for k in range(-30, 20)]).surface()
    way = find(surface, (-8, -5, 8, 5), (-6.0, 0.0, 0.0), (6.0, 0.0), shortest())
    assert np.abs(way.path_w[:, 1]).max() <= 5.0


def test_edges_of_the_topological_map_learn_how_rough_they_are():
    def drive(mind, x_from, x_to, y, j_per_m, t, energy):
        for x in np.arange(x_from, x_to, 0.2 * np.sign(x_to - x_from)):
            t, energy = t + 0.25, energy + 0.2 * j_per_m
            mind.drive(t, (x, y, 0.0), 0.0, energy)
        return t, energy

    mind = TerrainMind(BOUNDS)
    even = float(mind.model.theta[0])
    t, energy = drive(mind, -7.0, 0.0, 0.0, even, 0.0, 0.0)
    drive(mind, 0.0, 7.0, 0.0, 5 * even, t, energy)
    edges = {
        (mind.graph.nodes[a].pose_w[0] + mind.graph.nodes[b].pose_w[0]) / 2: edge
        for a, b, edge in mind.graph.edges()
    }
    smooth = [e.roughness for x, e in edges.items() if x < -1.5]
    rough = [e.roughness for x, e in edges.items() if x > 1.5]
    assert len(smooth) >= 2 and len(rough) >= 2
    assert max(smooth) < 0.5 < min(rough)
    assert mind.model.samples > 10


def test_without_learning_the_prior_stays():
    mind = TerrainMind(BOUNDS, TerrainConfig(learn=False))
    before = mind.model.theta.copy()
    for k in range(20):
        mind.drive(0.5 * k, (0.4 * k - 4, 0.0, 0.0), 0.0, 100.0 * k)
    np.testing.assert_array_equal(mind.model.theta, before)
