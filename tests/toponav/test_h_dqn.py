"""The baseline without torch: what it sees, and that it keeps to its sub-goal."""

import subprocess
import sys

import numpy as np
import pytest

from toponav.exploration import Decision, Task
from toponav.h_dqn import PRIMITIVES, Hdqn, HdqnConfig, ahead, meta_features, sub_features, way_left
from toponav.snapshot import Snapshot

C = HdqnConfig(sectors=4, hidden=(8,))


def weights(config=C, seed=0):
    rng = np.random.default_rng(seed)
    return {k: rng.normal(size=s).astype(np.float32) for k, s in config.shapes().items()}


def view(target=None, goal=None):
    grid = np.full((21, 60), 100, np.int8)
    grid[9:12, 5:30] = 0
    grid[6:15, 30:40] = 0
    grid[9:12, 2:5] = -1
    grid[6:15, 40:55] = -1
    return Snapshot(grid, (10, 12), 10.0, target=target, goal=goal)


def test_the_upper_level_sees_every_frontier_relative_to_the_robot():
    v = view(goal=(10, 32))
    seen = meta_features(C, v, 0.0, np.ones(4))
    assert seen.shape == (2, C.meta_dim) and np.isfinite(seen).all()
    right = int(v.frontiers.cell[:, 1].argmax())
    far = (v.frontiers.cell[right, 1] - 12) / 10
    choice = seen[right, -8:]
    assert choice[:3] == pytest.approx([far, 1.0, 0.0])  # ahead
    assert choice[3] == pytest.approx(v.distance[right] / 10)
    assert choice[6] == pytest.approx(abs(v.frontiers.cell[right, 1] - 32) / 10)
    assert seen[right, 4 + 3 : 4 + 3 + 4] == pytest.approx([1.0, 2.0, 1.0, 0.0])  # the goal
    turned = meta_features(C, v, np.pi / 2, np.ones(4))
    assert turned[right, -8:][:3] == pytest.approx([far, 0.0, -1.0], abs=1e-6)
    with pytest.raises(ValueError, match="sectors"):
        meta_features(C, v, 0.0, np.ones(3))


def test_the_lower_level_sees_its_sub_goal_and_a_point_on_the_way():
    path = np.array([[0, 0], [1, 0], [2, 0], [2, 1], [2, 2]], float)
    assert ahead(path, [0.1, 0], 1.2).tolist() == [2, 0]
    assert ahead(path, [2, 1.8], 1.2).tolist() == [2, 2]
    assert way_left(path, [1, 0]) == pytest.approx(3.0)
    assert way_left(path, [1, 0.5]) == pytest.approx(3.5)
    seen = sub_features(C, [0, 0, 0], [0.5, 0.1], np.ones(4), [2, 2], path)
    assert seen.shape == (C.sub_dim,)
    assert seen[4:6] == pytest.approx([0.5, 0.1])
    assert seen[6:9] == pytest.approx([np.sqrt(8) / 8, np.sqrt(0.5), np.sqrt(0.5)])
    assert seen[9:] == pytest.approx([2 / 8, 1.0, 0.0])
    plain = HdqnConfig(sectors=4, guided=False, hidden=(8,))
    assert len(sub_features(plain, [0, 0, 0], [0, 0], np.ones(4), [2, 2], path)) == plain.sub_dim


def test_a_sub_goal_is_kept_while_it_stands():
    agents = [Hdqn(weights(seed=s), C) for s in range(20)]
    for agent in agents:
        agent.sense([0, 0, 0], [0, 0], np.ones(4))
    assert {agent.choose(view()) for agent in agents} == {0, 1}
    for k in (0, 1):
        held = tuple(view().frontiers.cell[k])
        assert {agent.choose(view(target=held)) for agent in agents} == {k}


def test_the_nets_are_what_their_weights_say():
    w = weights()
    x = np.random.default_rng(1).normal(size=(3, C.sub_dim)).astype(np.float32)
    by_hand = np.maximum(x @ w["sub.w0"].T + w["sub.b0"], 0) @ w["sub.w1"].T + w["sub.b1"]
    np.testing.assert_allclose(Hdqn(w, C).values("sub", x), by_hand, rtol=1e-5)
    agent = Hdqn(w, C)
    agent.sense([0, 0, 0], [0, 0], np.ones(4))
    drive = Decision(Task.EXPLORE, np.array([1.0, 0.0]), np.array([[0.0, 0.0], [1.0, 0.0]]))
    assert agent.primitive(drive).tolist() in PRIMITIVES.tolist()
    assert agent.primitive(Decision(Task.BACK_UP)).tolist() == PRIMITIVES[-1].tolist()
    assert agent.primitive(Decision(Task.DONE)).tolist() == [0.0, 0.0]


def test_weights_that_do_not_fit_are_refused():
    w = weights()
    del w["sub.b1"]
    with pytest.raises(ValueError, match=r"sub\.b1"):
        Hdqn(w, C)
    w = weights()
    w["meta.w0"][0, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        Hdqn(w, C)


def test_a_robot_needs_no_torch_for_it():
    code = "import sys, toponav.h_dqn, toponav.goal, toponav.hodat, toponav.go_explore; "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
