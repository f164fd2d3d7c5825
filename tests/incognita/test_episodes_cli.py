"""incognita episodes, through its commands."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from episodes import EpisodeWriter
from incognita.episodes_cli import app


@pytest.fixture
def store(tmp_path):
    with EpisodeWriter(tmp_path / "store") as writer:
        for n in range(2):
            with writer.episode("agv", "go", rate_hz=10) as episode:
                for i in range(5):
                    frame = np.full((32, 32, 3), 10 * i, np.uint8)
                    episode.append({"obs": np.zeros(3, np.float32)}, {"front": frame})
                episode.finish({"success": bool(n)})
    return tmp_path / "store"


def call(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def test_ls_and_show(store, tmp_path):
    result = call("ls", store, "--json", tmp_path / "ls.json")
    assert result.exit_code == 0, result.output
    listed = json.loads((tmp_path / "ls.json").read_text())["episodes"]
    assert [row["outcome"] for row in listed] == [{"success": False}, {"success": True}]
    assert listed[0]["id"] in result.output and "0.5" in result.output
    shown = json.loads(call("show", store).output)
    assert shown["id"] == listed[1]["id"]
    assert shown["arrays"] == {"obs": {"shape": [5, 3], "dtype": "float32"}}
    assert shown["cameras"]["front"]["codec"] == "jpeg"


def test_verify_is_silent_on_whole_and_fails_on_damaged(store, tmp_path):
    result = call("verify", store)
    assert result.exit_code == 0 and "2 of 2 episodes are whole" in result.output
    chunk = next(store.glob("*/obs/c/0/0"))
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    result = call("verify", store, "--json", tmp_path / "v.json")
    assert result.exit_code == 1
    assert "obs/c/0/0, array 'obs': its sha256 does not match" in result.output
    report = json.loads((tmp_path / "v.json").read_text())
    assert (report["checked"], report["damaged"]) == (2, 1)
    assert report["damage"][0]["array"] == "obs"
    assert "unreadable" in call("ls", store).output


def test_export(store, tmp_path):
    result = call("export", store, "last", tmp_path / "a.mp4")
    assert result.exit_code == 0 and json.loads(result.output)["frames"] == 5
    result = call("export", store, "all", tmp_path / "set", "--robot", "agv")
    assert json.loads(result.output)["total_frames"] == 10
    assert json.loads((tmp_path / "set/meta/info.json").read_text())["robot_type"] == "agv"


def test_an_unknown_episode_is_bad_usage(store, tmp_path):
    for args in (
        ("show", store, "none"),
        ("verify", store, "../x"),
        ("export", store, "none", "a.mp4"),
    ):
        result = call(*args)
        assert result.exit_code == 2 and "no episode" in result.output
