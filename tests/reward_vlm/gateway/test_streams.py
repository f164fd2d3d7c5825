import contextlib
import json
import time

import cv2
import numpy as np
import pytest
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from incognita.bench.hostile_media import images
from incognita.bench.reward_stand import BrightnessModel
from reward_vlm.gateway.problems import Refused
from reward_vlm.gateway.streams import History
from reward_vlm.wire import StreamOpen


def png(level, side=16):
    return cv2.imencode(".png", np.full((side, side, 3), level, np.uint8))[1].tobytes()


@contextlib.contextmanager
def opened(bench, **changes):
    with bench.client.websocket_connect("/v1/streams") as socket:
        socket.send_json({"task": "make it bright", "fps": 10} | changes)
        assert socket.receive_json()["model"] == "brightness"
        yield socket


def test_a_stream_is_judged_as_it_grows(bench):
    with opened(bench) as socket:
        for n, level in enumerate((0, 102, 255)):
            socket.send_bytes(png(level))
            said = socket.receive_json()
            assert said["frames"] == n + 1 and not said["final"]
            assert said["answer"]["frame_indices"] == list(range(n + 1))
            assert said["answer"]["progress"][-1] == pytest.approx(level / 255)
        socket.send_json({"end": True})
        said = socket.receive_json()
        assert said["final"] and said["frames"] == 3 and said["answer"]["score"] == 5
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
        assert closed.value.code == 1000
    assert bench.gauge("reward_streams_open") == 0 and bench.gauge("reward_held_bytes") == 0


def test_every_so_many_frames_are_judged(bench):
    with opened(bench, every=4) as socket:
        for level in range(10):
            socket.send_bytes(png(level))
            time.sleep(0.02)
        socket.send_json({"end": True})
        frames = [socket.receive_json()["frames"] for _ in range(3)]
        assert frames == [4, 8, 10]


def test_judgements_that_are_late_are_skipped_not_queued(serving):
    with serving(BrightnessModel(0.3)) as bench, opened(bench) as socket:
        for level in range(30):
            socket.send_bytes(png(level))
        socket.send_json({"end": True})
        said = [socket.receive_json()]
        while not said[-1]["final"]:
            said.append(socket.receive_json())
        assert said[-1]["frames"] == 30 and len(said) <= 3


def test_a_long_stream_keeps_an_even_history_and_its_newest_frame():
    class Only:
        model = BrightnessModel()

    history = History(most=16)
    for n in range(1000):
        history.add(np.full((4, 4, 3), n % 256, np.uint8))
        kept = sorted(history._frames)
        assert len(kept) <= 17 and kept[-1] == n and kept[0] == 0
        steps = np.diff(kept[:-1])
        assert len(set(steps)) <= 1
    opened = StreamOpen(task="go", fps=10)
    clip = history.clip(opened, Only)
    assert clip.length == 8 and clip.frame_indices[-1] == 999
    assert (clip.views["front"][:, 0, 0, 0] == clip.frame_indices % 256).all()
    with pytest.raises(Refused, match="one size"):
        history.add(np.zeros((5, 4, 3), np.uint8))


@pytest.mark.parametrize("name", images())
def test_what_is_no_image_ends_the_stream_with_a_problem(bench, name):
    with opened(bench) as socket:
        socket.send_bytes(images()[name])
        problem = socket.receive_json()
        assert 400 <= problem["status"] < 500 and problem["code"]
        with pytest.raises(WebSocketDisconnect):
            socket.receive_json()
    assert bench.judge("after").status_code == 200


@pytest.mark.parametrize(
    "message", ["", "[", "{}", '{"end": 1}', '{"end": true, "x": 1}', "[" * 9000]
)
def test_other_text_ends_the_stream(bench, message):
    with opened(bench) as socket:
        socket.send_text(message)
        assert socket.receive_json()["code"] == "stream_message"


@pytest.mark.parametrize(
    "first", ["{}", "x", '{"task": "go", "fps": NaN}', json.dumps({"task": "x" * 9999, "fps": 1})]
)
def test_a_stream_must_open_well(bench, first):
    with bench.client.websocket_connect("/v1/streams") as socket:
        socket.send_text(first)
        assert socket.receive_json()["status"] in (400, 422)


def test_an_empty_stream_has_nothing_to_judge(bench):
    with opened(bench) as socket:
        socket.send_json({"end": True})
        assert socket.receive_json()["code"] == "no_frames"


def test_a_stream_needs_a_key(bench):
    with pytest.raises(WebSocketDenialResponse) as denied:
        with bench.client.websocket_connect(
            "/v1/streams", headers={"Authorization": "Bearer rvk_no"}
        ):
            pass
    assert denied.value.status_code == 401


def test_streams_are_few_and_never_idle(serving):
    with serving(streams=1, stream_idle_s=0.3) as bench, opened(bench) as socket:
        with pytest.raises(WebSocketDenialResponse) as denied:
            with bench.client.websocket_connect("/v1/streams"):
                pass
        assert denied.value.status_code == 429
        assert int(denied.value.headers["retry-after"]) >= 1
        begun = time.monotonic()
        assert socket.receive_json()["code"] == "stream_idle"
        assert time.monotonic() - begun < 1


def test_a_broken_final_judgement_is_a_problem(bench):
    with opened(bench, task="fault:nan") as socket:
        socket.send_bytes(png(1))
        socket.send_json({"end": True})
        assert socket.receive_json()["code"] == "bad_output"
