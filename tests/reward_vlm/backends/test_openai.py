import base64
import json
import logging
import math
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from reward_vlm.backends import open_model
from reward_vlm.backends.engine_http import Patience
from reward_vlm.backends.openai import EngineConfig, EngineModel, distribution
from reward_vlm.backends.vlm_input import SAMPLING, videos
from reward_vlm.breaker import BreakerConfig
from reward_vlm.model import BadOutput, EngineUnavailable

QUICK = Patience(budget_s=1.0, wait_s=0.02)


@pytest.fixture
def ask(engine, clips):
    """Judge one clip with an engine that answers with a fault."""
    opened = []

    def judge(fault, patience=QUICK):
        model = EngineModel(engine.source(fault), EngineConfig(patience=patience))
        opened.append(model)
        return model.judge(clips[:1])[0]

    yield judge
    for model in opened:
        model.close()


@pytest.mark.parametrize("exact", [True, False], ids=["token ids", "top 20"])
@pytest.mark.parametrize("order", ["text_first", "video_first"])
def test_an_engine_gives_the_distribution_of_the_model_in_process(
    engine, checkpoints, clips, order, exact
):
    here = open_model(f"qwen:{checkpoints['5']}", order=order)
    ids = tuple(here.digits) if exact else None
    there = open_model(f"openai:{engine.source()}", order=order, token_ids=ids)
    pairs = zip(here.judge(clips), there.judge(clips), strict=True)
    for mine, theirs in pairs:
        np.testing.assert_allclose(mine.probs, theirs.probs, atol=1e-3)
        assert mine.lost_mass == pytest.approx(theirs.lost_mass, abs=1e-3)
    spread = [judged.probs for judged in there.judge(clips)]
    assert np.ptp(spread, axis=0).max() > 0.05  # else equal numbers would say little
    there.close()


def test_jpeg_frames_are_another_preprocessing(engine, clips):
    plain, lossy = (
        EngineModel(engine.source(), EngineConfig(image=image, jpeg_quality=60))
        for image in ("bmp", "jpeg")
    )
    assert plain.info.preprocess_sha != lossy.info.preprocess_sha
    clip = clips[1]
    assert np.abs(plain.judge([clip])[0].probs - lossy.judge([clip])[0].probs).max() > 1e-4


def test_frames_can_go_as_images_with_their_times(engine, clips):
    model = EngineModel(engine.source(), EngineConfig(media="images"))
    assert [judged.probs.sum() for judged in model.judge(clips[:2])] == pytest.approx([1, 1])
    (video,) = videos(clips[0], SAMPLING)
    body = model.request("go", video)
    kinds = [part["type"] for part in body["messages"][0]["content"]]
    assert kinds == ["text"] + ["text", "image_url"] * 6
    assert body["messages"][0]["content"][3]["text"] == "<0.5 seconds>"
    assert "media_io_kwargs" not in body


@pytest.mark.parametrize("image", ["bmp", "png"])
def test_every_pixel_is_sent_once_with_its_time(engine, clips, image):
    model = EngineModel(engine.source(), EngineConfig(image=image))
    (video,) = videos(clips[1], SAMPLING)
    body = model.request("go", video)
    text, part = body["messages"][0]["content"]
    head, _, data = part["video_url"]["url"].partition(";base64,")
    frames = [
        cv2.imdecode(np.frombuffer(base64.b64decode(one), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        for one in data.split(",")
    ]
    np.testing.assert_array_equal(frames, video.frames)
    assert json.dumps(body).count(data[:200]) == 1 and head == "data:video/jpeg"
    told = body["media_io_kwargs"]["video"]
    assert told["frames_indices"] == list(video.indices) and told["fps"] == 10.0
    assert told["total_num_frames"] == 30 and told["num_frames"] == len(video.frames)
    assert told["do_sample_frames"] is body["mm_processor_kwargs"]["do_sample_frames"] is False
    assert body["messages"][1] == {"role": "assistant", "content": "ANSWER: "}


def test_both_spellings_of_a_digit_count(ask):
    judged = ask("spaced")
    np.testing.assert_allclose(judged.probs, [0, 0, 0.5, 0.5, 0], atol=1e-9)
    assert judged.lost_mass == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    "fault",
    ["nan", "infinity", "above", "twice", "prose", "range", "text", "none", "empty", "list",
     "long", "cut", "deep", "gzip", "400", "413", "422"],
)  # fmt: skip
def test_a_wrong_answer_is_no_judgement(ask, engine, fault):
    with pytest.raises(BadOutput) as caught:
        ask(fault)
    assert len(engine.seen(fault)) == 1  # asking again would not help
    assert "secret" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("fault", ["500", "503", "429"])
def test_a_failing_engine_is_asked_three_times(ask, engine, fault):
    with pytest.raises(EngineUnavailable, match=f"status {fault}"):
        ask(fault)
    assert len(engine.seen(fault)) == 3


@pytest.mark.parametrize("fault", ["redirect", "401", "403", "404"])
def test_a_wrong_set_up_is_not_tried_again(ask, engine, fault):
    with pytest.raises(EngineUnavailable, match="set up"):
        ask(fault)
    assert len(engine.seen(fault)) == 1
    assert engine.paths() == {"/v1/chat/completions"}  # a redirect is not followed


def test_an_engine_that_comes_back_is_heard(ask, engine):
    assert ask("flaky").score == 3
    assert len(engine.seen("flaky")) == 3


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_slow_engine_costs_no_more_than_the_budget(ask, fault):
    begun = time.monotonic()
    with pytest.raises(EngineUnavailable):
        ask(fault)
    assert time.monotonic() - begun < 2.0


def test_nobody_listening_is_unavailable(clips):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    model = EngineModel(f"http://127.0.0.1:{port}#tiny", EngineConfig(patience=QUICK))
    with pytest.raises(EngineUnavailable, match="ConnectError, try 3"):
        model.judge(clips[:1])
    with pytest.raises(EngineUnavailable, match="try 1"):
        model.ready()


def test_an_engine_that_keeps_failing_is_left_alone_until_it_is_ready(engine, clips):
    patience = Patience(budget_s=1.0, tries=1, breaker=BreakerConfig(failures=3, open_s=0.4))
    model = EngineModel(engine.source("502"), EngineConfig(patience=patience))
    for _ in range(6):
        with pytest.raises(EngineUnavailable):
            model.judge(clips[:1])
    assert len(engine.seen("502")) == 3
    time.sleep(0.45)
    for _ in range(2):  # one tries, the next waits again
        with pytest.raises(EngineUnavailable):
            model.judge(clips[:1])
    assert len(engine.seen("502")) == 4
    object.__setattr__(model.info, "name", "tiny:spaced")  # the engine is back
    model.ready()
    assert model.judge(clips[:1])[0].score == 3


def test_clips_of_one_call_wait_together(engine, clips):
    model = EngineModel(engine.source("drip"), EngineConfig(patience=QUICK, max_batch=6))
    begun = time.monotonic()
    with pytest.raises(EngineUnavailable):
        model.judge([clips[0]] * 6)
    assert time.monotonic() - begun < 2.5  # one after another would take six seconds


def test_an_engine_that_hangs_does_not_hold_up_the_exit(engine):
    code = (
        "import sys, threading, time, numpy as np\n"
        "from reward_vlm.backends import open_model\n"
        "from reward_vlm.model import Clip\n"
        "model = open_model(sys.argv[1])\n"
        "clip = Clip('go', {'a': np.zeros((4, 32, 32, 3), np.uint8)}, 2.0)\n"
        "threading.Thread(target=model.judge, args=([clip] * 3,), daemon=True).start()\n"
        "time.sleep(1)\n"
        "print(time.time(), flush=True)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, f"openai:{engine.source('hang')}"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert time.time() - float(run.stdout) < 3, run.stderr


def test_the_key_is_sent_and_never_told(engine, clips, monkeypatch, caplog):
    monkeypatch.setenv("INCOGNITA_ENGINE_KEY", "sk-very-secret")
    caplog.set_level(logging.DEBUG)
    model = EngineModel(engine.source("418"), EngineConfig(patience=QUICK))
    with pytest.raises(BadOutput) as caught:
        model.judge(clips[:1])
    assert engine.seen("418")[0]["key"] == "Bearer sk-very-secret"
    told = caplog.text + str(caught.value) + repr(model.info) + repr(model.config)
    assert "very-secret" not in told


@pytest.mark.parametrize(
    "source",
    ["http://127.0.0.1:8000", "ftp://host#m", "file:///etc/passwd#m", "http://u:p@host#m",
     "http://host?x=1#m", "//host#m", "http://#m"],
)  # fmt: skip
def test_only_a_plain_address_with_a_model_is_taken(source):
    with pytest.raises(ValueError, match="MODEL|http"):
        EngineModel(source)


def test_the_revision_is_the_word_of_the_operator():
    model = open_model("openai:http://127.0.0.1:1/v1#org/model@abc123")
    assert (model.info.name, model.info.revision) == ("org/model", "abc123")
    assert open_model("openai:http://127.0.0.1:1#m").info.revision == "unpinned"
    assert model.info.workers > 1


def test_a_missing_digit_counts_as_nothing():
    top = [{"token": "2", "logprob": math.log(0.6)}, {"token": "x", "logprob": math.log(0.4)}]
    probs, lost = distribution({"choices": [{"logprobs": {"content": [{"top_logprobs": top}]}}]})
    assert probs.tolist() == [0, 1, 0, 0, 0] and lost == pytest.approx(0.4)
