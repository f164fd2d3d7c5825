"""The clients against a real server process that fails in every way a network knows."""

import asyncio
import logging
import math
import os
import threading
import time

import numpy as np
import pytest

from reward_vlm.client import (
    AsyncRewardClient,
    Breaker,
    BreakerConfig,
    ClientConfig,
    Query,
    RewardClient,
    RewardRequestError,
)
from reward_vlm.results import Missing, Scored, packed

KEY = "test-key-1"
FRAMES = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 3), np.uint8)
QUICK = ClientConfig(deadline_s=5.0, backoff_s=0.01)


@pytest.fixture
def make(faulty):
    """Clients of the misbehaving service; a breaker that stays out of the way unless asked for."""
    made = []

    def client(config=QUICK, breaker=None, url=faulty, key=KEY):
        breaker = breaker or Breaker(BreakerConfig(failures=1000))
        made.append(RewardClient(url, key, config, breaker))
        return made[-1]

    yield client
    for one in made:
        one.close()


def score(client, task, **more):
    return client.score(task, FRAMES, fps=10, **more)


def test_an_answer_is_scored_and_its_float_is_the_reward(make):
    result = score(make(), "ok")
    assert isinstance(result, Scored) and not result.missing
    assert result.score == 4 and float(result) == result.reward == 0.7
    assert result.model == "tries=1"


@pytest.mark.parametrize("fault", ["429", "503", "502", "500", "504", "close", "half", "garbage",
                                   "prose", "nan", "wrong", "huge"])  # fmt: skip
def test_what_may_help_is_tried_again_with_the_same_key_and_body(make, fault):
    result = score(make(), f"{fault} {fault} ok")
    assert isinstance(result, Scored), result
    assert result.model == "tries=3" and len(result.revision.split()) == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("429", "overloaded"), ("503", "overloaded"), ("500", "refused"), ("502", "refused"),
        ("504", "timeout"), ("close", "refused"), ("half", "refused"), ("garbage", "bad_answer"),
        ("prose", "bad_answer"), ("nan", "bad_answer"), ("wrong", "bad_answer"),
        ("huge", "bad_answer"), ("redirect", "refused"), ("bad_output", "bad_answer"),
    ],
)  # fmt: skip
def test_a_reward_that_does_not_come_is_missing_and_never_zero(make, fault, reason):
    result = score(make(), fault)
    assert isinstance(result, Missing) and result.missing and result.reason == reason, result
    assert math.isnan(float(result)) and not hasattr(result, "reward")


def test_a_model_that_failed_on_a_clip_is_not_asked_again(make):
    assert score(make(), "bad_output ok").reason == "bad_answer"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 415, 422])
def test_a_wrong_request_raises_with_the_problems_text(make, status):
    with pytest.raises(RewardRequestError, match="as asked") as caught:
        score(make(), f"{status} ok")
    assert caught.value.status == status and caught.value.code == f"code_{status}"


def test_a_wrong_key_raises(make):
    with pytest.raises(RewardRequestError, match="401 key"):
        score(make(key="another"), "ok")


def test_a_field_of_a_newer_service_is_passed_over(make):
    assert score(make(), "new_field").score == 4


@pytest.mark.parametrize("fault", ["hang", "drip", "slow:3"])
def test_the_deadline_holds_for_every_byte(make, fault):
    client, begun = make(), time.monotonic()
    result = score(client, fault, deadline_s=0.4)
    assert isinstance(result, Missing) and result.reason == "timeout"
    assert time.monotonic() - begun < 0.7


def test_one_deadline_covers_all_tries(make):
    begun = time.monotonic()
    config = ClientConfig(tries=3, try_s=0.2, backoff_s=0.01)
    result = score(make(config), "hang", deadline_s=0.5)
    assert result.reason == "timeout" and time.monotonic() - begun < 0.8
    result = score(make(config), "hang hang ok", deadline_s=2.0)
    assert result.model == "tries=3" and int(result.prompt_version) < 1700  # what was left


def test_the_deadline_holds_where_all_connections_are_busy(make):
    client = make(ClientConfig(connections=2))
    busy = threading.Thread(
        target=client.score_many, args=([Query("hang", FRAMES, 10)] * 2,), kwargs={"deadline_s": 2}
    )
    busy.start()
    time.sleep(0.2)
    begun = time.monotonic()
    result = score(client, "ok", deadline_s=0.3)
    assert result.reason == "timeout" and time.monotonic() - begun < 0.6
    busy.join(5)
    assert score(client, "ok").score == 4


def test_retry_after_is_honoured_within_the_deadline(make):
    begun = time.monotonic()
    assert score(make(), "429:1 ok").model == "tries=2"
    assert 1.0 <= time.monotonic() - begun < 1.5
    begun = time.monotonic()
    result = score(make(), "503:30 ok")
    assert result.reason == "overloaded" and time.monotonic() - begun < 0.3  # no use in waiting


def test_nobody_there_is_refused(make):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: nobody else gets it
        client = make(url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        assert score(client, "ok").reason == "refused"
        assert not client.ready()


def test_many_clips_go_out_at_once_and_come_back_in_order(make):
    tasks = ["slow:0.3", "503", "ok"] * 4
    begun = time.monotonic()
    queries = [Query(task, FRAMES, 10) for task in tasks]
    results = make().score_many(queries, deadline_s=3.0)
    assert time.monotonic() - begun < 1.2  # one after the other the slow ones take that alone
    assert [r.missing for r in results] == [False, True, False] * 4
    with pytest.raises(RewardRequestError):
        make().score_many([Query("ok", FRAMES, 10), Query("422", FRAMES, 10)])


def test_the_breaker_opens_lets_one_through_and_closes(make):
    now = [0.0]
    breaker = Breaker(BreakerConfig(failures=3, open_s=10), clock=lambda: now[0])
    once = make(ClientConfig(tries=1), breaker)
    assert [score(once, "500").reason for _ in range(3)] == ["refused"] * 3
    assert breaker.state == "open"
    assert score(once, "ok").reason == "breaker_open"
    now[0] = 10.0
    assert breaker.state == "half-open"
    assert score(once, "500").reason == "refused" and breaker.state == "open"
    now[0] = 20.0
    assert score(once, "ok").score == 4 and breaker.state == "closed"


def test_half_open_lets_exactly_one_through():
    now = [0.0]
    breaker = Breaker(BreakerConfig(failures=1, open_s=1), clock=lambda: now[0])
    breaker.failure()
    now[0] = 1.5
    assert [breaker.allow() for _ in range(3)] == [True, False, False]
    now[0] = 2.6  # whoever was let through never told: another one may
    assert breaker.allow() and not breaker.allow()


def test_being_busy_or_asked_too_much_opens_no_breaker(make):
    breaker = Breaker(BreakerConfig(failures=1))
    client = make(ClientConfig(tries=1), breaker)
    for task in ("429", "503:1", "bad_output"):
        assert score(client, task).missing
    with pytest.raises(RewardRequestError):
        score(client, "422")
    assert breaker.state == "closed"


def test_a_service_that_comes_back_is_found_again(start_fault_server, make):
    process, url = start_fault_server()
    breaker = Breaker(BreakerConfig(failures=2, open_s=0.3))
    client = make(ClientConfig(tries=1, deadline_s=2), breaker, url)
    assert score(client, "ok").score == 4
    process.kill()
    process.wait(5)
    assert score(client, "ok").reason == "refused"
    assert score(client, "ok").reason == "refused"
    assert score(client, "ok").reason == "breaker_open"
    start_fault_server(url.rpartition(":")[2])
    time.sleep(0.35)
    assert score(client, "ok").score == 4


def test_threads_share_a_client(make):
    client, results = make(), []
    threads = [
        threading.Thread(target=lambda: results.append(score(client, "429 ok"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert [r.model for r in results] == ["tries=2"] * 8


def test_a_forked_process_starts_its_own_loop(make):
    client = make()
    assert score(client, "ok").score == 4
    child = os.fork()
    if child == 0:
        os._exit(0 if float(score(client, "ok")) == 0.7 else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_the_async_client_does_the_same(faulty):
    async def run():
        breaker = Breaker(BreakerConfig(failures=1000))
        async with AsyncRewardClient(faulty, KEY, QUICK, breaker) as client:
            results = await asyncio.gather(
                *(client.score(task, FRAMES, fps=10) for task in ("503 ok", "500", "ok"))
            )
            assert [r.missing for r in results] == [False, True, False]
            assert (await client.models()).models == [] and await client.ready()

    asyncio.run(run())


def test_the_key_is_in_no_log_and_no_repr(make, monkeypatch, caplog):
    secret = "rvk_very-secret"
    monkeypatch.setenv("INCOGNITA_REWARD_KEY", secret)
    with caplog.at_level(logging.DEBUG):
        client = make(key=None)
        with pytest.raises(RewardRequestError) as caught:
            score(client, "ok")
    said = [repr(client), repr(client._async), repr(caught.value), caplog.text]
    assert caplog.text and not any(secret in text for text in said)


@pytest.mark.parametrize(
    "url", ["ftp://a", "gpu:8300", "http://", "http://me:pw@gpu:8300", "http://gpu/?key=1"]
)
def test_a_url_that_is_none_of_ours_is_an_error_without_its_password(url):
    with pytest.raises(ValueError, match="url must") as caught:
        RewardClient(url)
    assert "pw" not in str(caught.value)


def test_frames_go_as_npz_and_files_as_they_are(tmp_path):
    kind, data = packed(FRAMES)
    (tmp_path / "a.npz").write_bytes(data)
    assert kind == "application/x-npz" and packed(tmp_path / "a.npz") == (kind, data)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["frames"], FRAMES)
    assert len(packed(np.zeros_like(FRAMES), compress=True)[1]) < len(data)
    assert packed(b"\0\0\0\x18ftypisom")[0] == "video/mp4"
    for wrong in (FRAMES[0], FRAMES.astype(np.float32), FRAMES[:0], b"RIFF1234AVI "):
        with pytest.raises(ValueError, match="frames must"):
            packed(wrong)


@pytest.mark.parametrize("wrong", [0, -1, math.nan, math.inf])
def test_a_deadline_is_a_time(make, wrong):
    with pytest.raises(ValueError, match="deadline_s must"):
        score(make(), "ok", deadline_s=wrong)
