"""The lean renderer: what is drawn is where it is, at the settings that make it cheap."""

import numpy as np
import pytest

from rnd_agv.robot import AGV
from sim.render import Canvas, RobotView
from sim.robots import robot_spec
from sim.worlds import World


@pytest.fixture()
def view():
    walls = [[0, -5, 5, 0.1], [0, 5, 5, 0.1], [-5, 0, 0.1, 5], [5, 0, 0.1, 5]]
    world = World(
        "room", 0, (-5.0, -5.0, 5.0, 5.0), np.array(walls, np.float32), np.zeros(4, np.int8)
    )
    try:
        made = RobotView(world, AGV, 120, 100, n_movers=1)
    except RuntimeError as error:
        pytest.skip(f"no off-screen OpenGL: {error}")
    with made:
        yield made


def changed(view, a, b):
    """Centre of the pixels that differ, as world x, y of the top view."""
    rows, columns = np.nonzero(np.abs(a.astype(int) - b).max(axis=2) > 30)
    scale = 1.04 * 10 / 100  # metres a pixel: the world's height fills the image
    return (columns.mean() + 0.5 - 60) * scale, (50 - rows.mean() - 0.5) * scale


def test_top_view_shows_robot_mover_and_goal_where_they_are(view):
    away = view.frame((-3.0, -3.0, 0.0))
    assert away.shape == (100, 120, 3) and away.dtype == np.uint8
    mover = view.frame((-3.0, -3.0, 0.0), np.array([[2.0, 1.0, 0.4]]))
    assert changed(view, away, mover) == pytest.approx((2.0, 1.0), abs=0.1)
    goal = view.frame((-3.0, -3.0, 0.0), goal_w=(-1.0, 3.0))
    assert changed(view, away, goal) == pytest.approx((-1.0, 3.0), abs=0.1)
    path = view.frame((-3.0, -3.0, 0.0), path_w=np.tile([3.0, -2.0], (5, 1)))
    assert changed(view, away, path) == pytest.approx((3.0, -2.0), abs=0.1)


def test_chase_view_follows_the_robot(view):
    here, there = (
        view.frame((0.0, 0.0, 0.0), view="chase"),
        view.frame((2.0, 1.0, 1.0), view="chase"),
    )
    centre = np.s_[55:65, 55:65]  # the yellow hull is in the middle, whatever the pose
    for image in (here, there):
        red, _, blue = image[centre].reshape(-1, 3).mean(axis=0)
        assert red > blue + 50
    assert (here != there).any()


def test_settings_are_lean(view):
    quality, screen = view.model.vis.quality, view.model.vis.global_
    assert (quality.shadowsize, quality.offsamples) == (0, 0)
    assert (screen.offwidth, screen.offheight) == (120, 100)
    with pytest.raises(ValueError, match="off-screen buffer of 64 x 64"):
        Canvas(robot_spec(AGV).compile(), 64, 64)


def test_bad_input_is_refused(view):
    with pytest.raises(ValueError, match='view must be "top" or "chase"'):
        view.frame((0.0, 0.0, 0.0), view="side")
    with pytest.raises(ValueError, match="movers must be at most 1"):
        view.frame((0.0, 0.0, 0.0), np.ones((2, 3)))
