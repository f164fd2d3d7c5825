"""What counts as right in the lifelong benchmark, and its commands in smoke size."""

import json

import numpy as np
import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner  # noqa: E402

from incognita.bench import app  # noqa: E402
from incognita.lifelong import edge_is_right, true_floor  # noqa: E402
from rnd_agv.robot import JACKAL  # noqa: E402
from sim.worlds.world import WALL, Draft  # noqa: E402


def test_an_edge_is_right_where_the_way_is_free_and_as_long_as_it_says() -> None:
    draft = Draft(12.2, 6.0)
    draft.add(WALL, -0.1, -3.0, 0.1, 1.0)  # a wall with a gap of 2 m at its upper end
    truth = true_floor(draft.world("rooms", 0), JACKAL)
    left, right, near = (np.array(p) for p in ((-1.5, -2.0), (1.5, -2.0), (-1.5, 0.0)))
    assert edge_is_right(2.0, [left, near], [left, near], truth)
    assert not edge_is_right(4.0, [left, near], [left, near], truth)  # it says 4 m
    assert not edge_is_right(3.0, [left, right], [left, right], truth)  # through the wall
    around = truth.ways_m(left, right[None])[0]
    assert 7.0 < around < 9.5 and edge_is_right(around, [left, right], [left, right], truth)
    assert edge_is_right(2.0, [left + 0.3, near], [left, near], truth)
    assert not edge_is_right(2.0, [left + 0.4, near], [left, near], truth)  # 0.57 m off


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("lifelong", {"success", "spl", "edge_precision", "most_tries", "kidnaps", "passed"}),
        ("soak", {"growth_after_10_min", "most_nodes", "memory_mib", "goals_reached", "passed"}),
    ],
)
def test_the_benchmarks_run_in_smoke_size(command, keys, tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "result.json"
    done = CliRunner().invoke(app, [command, "--smoke", "--json", str(file)])
    assert done.exit_code == 0, done.output
    result = json.loads(file.read_text())
    assert result["command"] == f"bench {command}" and keys <= result.keys()
    assert result["machine"] and result["most_nodes"] > 2
