"""``incognita score`` as a command: real store, real gateway, sidecar beside it."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from episodes import EpisodeReader, EpisodeWriter, verify
from incognita.score import Asked, read_scores, score_store, sidecar, write_scores
from incognita.score_cli import score
from reward_vlm.results import Missing, Scored
from reward_vlm.wire import Timing


def record(store, lights, instruction="turn the light up", cameras=("front",), steps=20):
    """An episode for each light that it ends with."""
    with EpisodeWriter(store, lossless=True) as writer:
        for light in lights:
            builder = writer.episode("light", instruction, rate_hz=10)
            for b in np.linspace(0, light, steps):
                frame = np.full((8, 8, 3), round(255 * b), np.uint8)
                builder.append({"b": np.float32(b)}, frames={name: frame for name in cameras})
            builder.finish("over")


@pytest.fixture(scope="module")
def server(root, tmp_path_factory):
    """URL and key of the real gateway with the model of tests/reward_vlm/gray_server.py."""
    folder = tmp_path_factory.mktemp("gray")
    line = [sys.executable, root / "tests/reward_vlm/gray_server.py", folder]
    env = os.environ | {"PYTHONPATH": str(root)}
    process = subprocess.Popen(line, stdout=subprocess.PIPE, env=env, text=True)
    url = process.stdout.readline().split()[-1]
    yield url, (folder / "key").read_text()
    process.terminate()
    process.wait(15)
    process.stdout.close()


def start(root, server, *words):
    line = [sys.executable, "-m", "incognita.cli", "score", *map(str, words), "--server", server[0]]
    env = os.environ | {"INCOGNITA_REWARD_KEY": server[1]}
    return subprocess.Popen(
        line, cwd=root, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.fixture
def run(server, monkeypatch):
    """The command in this process: exit code, result, error."""
    app = typer.Typer()
    app.command()(score)

    def call(*words, url=server[0], key=server[1]):
        monkeypatch.setenv("INCOGNITA_REWARD_KEY", key)
        words = [*map(str, words), "--quiet", "--server", url]
        got = CliRunner().invoke(app, words)
        return got.exit_code, json.loads(got.stdout) if got.stdout else None, got.exception

    return call


def test_episodes_are_scored_once_and_stay_whole(run, server, tmp_path):
    store = tmp_path / "episodes"
    record(store, [0.2, 0.6, 1.0])
    code, first, err = run(store, "--json", tmp_path / "out.json")
    assert code == 0, err
    assert (first["new"], first["known"], first["missing"]) == (3, 0, {})
    assert first["mean_reward"] == pytest.approx(0.6, abs=0.01) and first["model"] == "gray"
    assert first["scores"] == {"1": 0, "2": 1, "3": 1, "4": 0, "5": 1}
    assert json.loads((tmp_path / "out.json").read_text()) == first
    rows = read_scores(sidecar(store))
    assert [row["score"] for row in rows] == [2, 3, 5]
    assert all(row["task"] == "turn the light up" and row["revision"] == "1" for row in rows)
    assert rows[2]["progress"][-1] == 1 and rows[2]["p_success"] == 1
    record(store, [0.4])
    code, second, _ = run(store)
    assert code == 0 and (second["new"], second["known"], second["scored"]) == (1, 3, 4)
    _, other, _ = run(store, "--task", "turn it down")
    assert other["new"] == 4 and len(read_scores(sidecar(store))) == 8
    assert verify(store) == [] and server[1] not in sidecar(store).read_text()


def test_without_a_server_or_a_key_it_says_so(run, tmp_path):
    record(tmp_path / "e", [0.5])
    assert "does not answer (refused" in str(run(tmp_path / "e", url="http://127.0.0.1:9")[2])
    assert str(run(tmp_path / "e", key="a-wrong-one")[2]).startswith("401")
    assert "model must be one of ['gray']" in str(run(tmp_path / "e", "--model", "gpt")[2])


def test_cameras_and_instructions_are_asked_for(run, tmp_path):
    record(tmp_path / "two", [0.5], cameras=("front", "wrist"))
    code, _, err = run(tmp_path / "two")
    assert code == 1 and "view must be one or more of ['front', 'wrist']" in str(err)
    code, got, _ = run(tmp_path / "two", "--view", "front", "--view", "wrist")
    assert code == 0 and got["views"] == ["front", "wrist"] and got["new"] == 1
    record(tmp_path / "mute", [0.5], instruction="")
    code, got, _ = run(tmp_path / "mute")
    assert code == 1 and "give --task" in next(iter(got["unreadable"].values()))


def test_ctrl_c_keeps_what_was_answered_and_the_next_run_goes_on(run, root, server, tmp_path):
    store = tmp_path / "episodes"
    record(store, np.linspace(0.01, 1, 64), steps=3)
    process = start(root, server, store)
    until = time.monotonic() + 20
    while not sidecar(store).exists() and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) in (130, 0)
    process.communicate()
    done = len(read_scores(sidecar(store)))
    assert 16 <= done <= 64
    code, got, err = run(store)
    assert code == 0 and (got["known"], got["new"]) == (done, 64 - done), err
    assert not list(tmp_path.glob(".*tmp*"))


STAMPS = {"model": "m", "revision": "r", "prompt_version": "p", "preprocess_sha": "s"}


class Half:
    """Every second answer is missing."""

    def score_many(self, queries, *, deadline_s=None):
        scored = Scored(
            id="i", score=1, expected=1, reward=0, probs=[1, 0, 0, 0, 0], entropy=0, lost_mass=0,
            abstain=None, ood=None, p_success=0, progress=None, probes=None, frame_indices=[0],
            cached=False, timing_ms=Timing(decode=0, queue=0, model=0, total=0), **STAMPS,
        )  # fmt: skip
        return [scored if k % 2 else Missing("timeout") for k in range(len(queries))]


def test_a_missing_score_is_counted_and_asked_for_again(tmp_path):
    store = tmp_path / "e"
    record(store, [0.5] * 4)
    file = sidecar(store)
    first = score_store(store, Half(), STAMPS, Asked(), file)
    assert (first["new"], first["missing"], first["scored"]) == (2, {"timeout": 2}, 2)
    second = score_store(store, Half(), STAMPS, Asked(), file)
    assert (second["new"], second["known"], second["missing"]) == (1, 2, {"timeout": 1})


def test_a_damaged_episode_is_named_and_the_others_are_scored(tmp_path):
    store = tmp_path / "e"
    record(store, [0.5] * 3)
    hurt = EpisodeReader(store).ids()[1]
    (store / hurt / "b/c/0").unlink()
    got = score_store(store, Half(), STAMPS, Asked(), sidecar(store))
    assert list(got["unreadable"]) == [hurt] and got["new"] == 1


def test_a_file_that_is_no_sidecar_is_left_alone(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("mine\n")
    with pytest.raises(ValueError, match="notes.txt:1 is no score"):
        write_scores(file, [])
    assert file.read_text() == "mine\n"


@pytest.mark.slow
def test_a_model_in_this_process_scores_as_incognita_serve_does(run, root, tmp_path):
    import torch

    from reward_vlm.backends.small import write_small
    from reward_vlm.backends.small_net import SmallConfig, SmallNet

    width = SmallConfig().width
    torch.manual_seed(0)
    plain = {"temperature": np.ones(2), "centre": np.zeros(width), "whiten": np.eye(width),
             "quantiles": np.linspace(5, 20, 201)}  # fmt: skip
    write_small(tmp_path / "model", SmallNet(), plain, {"note": "untrained"})
    record(tmp_path / "e", [0.2, 0.9], steps=30)
    spec = f"small:{tmp_path / 'model'}"
    line = ["serve", "--port", "0", "--keys", tmp_path / "keys.json", "--model", spec]
    line = [sys.executable, "-m", "incognita.cli", *map(str, line)]
    process = subprocess.Popen(line, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        key = process.stdout.readline().decode().split()[-1]
        url = process.stdout.readline().decode().split()[-1]
        code, served, _ = run(tmp_path / "e", url=url, key=key)
        assert code == 0 and served["new"] == 2 and served["model"] == "small"
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()
    code, again, _ = run(tmp_path / "e", "--local", spec)
    assert code == 0 and (again["known"], again["new"]) == (2, 0)  # it is the same model
    code, local, _ = run(tmp_path / "e", "--local", spec, "--scores", tmp_path / "local.jsonl")
    assert code == 0 and local["new"] == 2
    there, here = read_scores(sidecar(tmp_path / "e")), read_scores(tmp_path / "local.jsonl")
    for a, b in zip(there, here, strict=True):
        np.testing.assert_allclose(a["probs"], b["probs"], atol=1e-5)
        np.testing.assert_allclose(a["progress"], b["progress"], atol=1e-5)
        assert a["frame_indices"] == b["frame_indices"] and a["probes"] == b["probes"]
