"""The loop of a real robot in small: nodes drive and record, scores tune, a test follows."""

import json
import os
import signal
import sys
import time

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here: neither a distribution nor the wheels")
pytest.importorskip("torch", reason="tuning needs torch")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from incognita.bench import reward_loop  # noqa: E402
from incognita.recipes.reward import calibration  # noqa: E402
from reward_vlm.backends.small import write_small  # noqa: E402
from reward_vlm.backends.small_net import SmallNet  # noqa: E402
from sim.tasks import make  # noqa: E402


@pytest.fixture
def untrained(tmp_path):
    """Folder of a small model that has learned nothing."""
    torch.manual_seed(0)
    net = SmallNet().eval()
    found = {
        "labels": torch.arange(64) % 5 + 1, "score": torch.randn(64, 5),
        "success": torch.randn(64), "features": torch.randn(64, net.config.width),
    }  # fmt: skip
    write_small(tmp_path / "model", net, calibration(found), {"note": "untrained"})
    return tmp_path / "model"


@pytest.mark.slow
def test_the_loop_runs_in_small(untrained, tmp_path):
    import typer

    app = typer.Typer()
    app.callback()(lambda: None)
    reward_loop.register(app)
    out = tmp_path / "result.json"
    words = ["reward-loop", "--smoke", "--model", f"small:{untrained}", "--rtf", "4"]
    done = CliRunner().invoke(app, [*words, "--json", str(out)])
    assert done.exit_code == 0, done.output
    result = json.loads(out.read_text())
    (row,) = result["rows"]
    assert row["recorded"] == 2 and 0 <= row["true_success"] <= 1
    assert all(0 <= row[name] <= 1 for name in ("before", "score", "truth"))
    assert result["gain"]["score"]["mean"] == pytest.approx(row["score"] - row["before"])


STUBBORN = """
import signal, sys, time
for name in sys.argv[1:]:
    signal.signal(getattr(signal, name), signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("ignored", "ended_by", "said"),
    [((), "SIGINT", ()), (("SIGINT",), "SIGTERM", ("SIGINT",)),
     (("SIGINT", "SIGTERM"), "SIGKILL", ("SIGINT", "SIGTERM"))],
)  # fmt: skip
def test_no_node_outlives_an_exception_or_ctrl_c(tmp_path, capsys, ignored, ended_by, said):
    log, line = tmp_path / "nodes.log", [sys.executable, "-c", STUBBORN, *ignored]
    begun = time.monotonic()
    with (
        pytest.raises(KeyboardInterrupt),
        reward_loop.running(line, dict(os.environ), log, (0.4, 0.4)) as process,
    ):
        while "ready" not in log.read_text():
            time.sleep(0.02)
            assert time.monotonic() - begun < 10
        raise KeyboardInterrupt
    if ended_by == "SIGINT":
        assert process.returncode != 0 and "KeyboardInterrupt" in log.read_text()
    else:
        assert process.returncode == -getattr(signal, ended_by)
    told = capsys.readouterr().err
    assert all(f"after {name}" in told for name in said) and bool(told) == bool(said)


def test_gains_are_paired_by_seed():
    rows = [{"before": b, "score": b + 0.1, "truth": b + 0.3} for b in (0.2, 0.5, 0.6)]
    found = reward_loop.gains(rows)
    assert found["score"]["mean"] == pytest.approx(0.1)
    np.testing.assert_allclose(found["score"]["interval"], [0.1, 0.1])
    assert found["truth"]["mean"] == pytest.approx(0.3)


@pytest.mark.slow
def test_the_weak_policy_is_worse_than_the_driver_that_it_is_cloned_from(tmp_path):
    class Driver:
        def reset(self, env):
            self.env = env

        def __call__(self, _):
            return reward_loop.script(self.env)

    task = make("agv-arena", first_layout=reward_loop.TEST_ARENAS, max_steps=400)
    best = reward_loop.evaluate(task, Driver(), 50, tier="kinematic").success.mean()
    reward_loop.weak_policy(tmp_path / "weak", 1)
    weak = reward_loop.success(tmp_path / "weak", task, 50)
    assert 0.2 < weak < best and best > 0.9
