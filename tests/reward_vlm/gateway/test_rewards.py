import json
import threading
import time

import numpy as np
import pytest
from starlette.testclient import TestClient

from incognita.bench.reward_stand import BrightnessModel, clip_frames, mp4, npz

ROUTES = [
    ("POST", "/v1/rewards"), ("POST", "/v1/rewards:batch"), ("POST", "/v1/preferences"),
    ("GET", "/v1/models"), ("GET", "/readyz"), ("GET", "/metrics"), ("GET", "/openapi.json"),
    ("GET", "/nothing-here"),
]  # fmt: skip


def bright(level, count=4):
    return np.full((count, 8, 8, 3), level, np.uint8)


def is_problem(response, status, code=None):
    body = response.json()
    assert response.status_code == status == body["status"], body
    assert response.headers["content-type"] == "application/problem+json"
    assert body["id"] == response.headers["x-request-id"] and body["detail"]
    assert code in (None, body["code"]), body
    if status in (429, 503):
        assert int(response.headers["retry-after"]) >= 1
    return True


def test_a_clip_gets_a_score_with_all_that_belongs_to_it(bench):
    answer = bench.judge(frames=bright(255), want=["progress", "success"]).json()
    info = bench.model.info
    assert answer["score"] == 5 and answer["reward"] == 1 and answer["expected"] == 5
    assert answer["probs"] == [0, 0, 0, 0, 1] and answer["entropy"] == 0
    assert answer["frame_indices"] == [0, 1, 2, 3] and answer["progress"] == [1, 1, 1, 1]
    assert answer["p_success"] == 1 and answer["abstain"] is None
    assert answer["model"] == "brightness" and answer["preprocess_sha"] == info.preprocess_sha
    assert answer["timing_ms"]["total"] >= answer["timing_ms"]["model"] > 0
    assert bench.judge(frames=bright(0)).json()["reward"] == 0


def test_only_what_is_wanted_comes_besides_the_score(bench):
    answer = bench.judge(frames=bright(100)).json()
    assert answer["progress"] is answer["p_success"] is answer["probes"] is None


def test_multipart_json_and_mp4_say_the_same(bench, inline):
    frames = clip_frames(5, 20, 64)
    first = bench.judge(frames=frames).json()
    body = {"task": "make it bright", "fps": 10, "views": inline(frames)}
    second = bench.client.post("/v1/rewards", json=body).json()
    assert second["cached"] and second["probs"] == first["probs"]
    files = {
        "request": ("r", json.dumps({"task": "make it bright"}), "application/json"),
        "front": ("v.mp4", mp4(frames), "video/mp4"),
    }
    third = bench.client.post("/v1/rewards", files=files).json()
    assert third["frame_indices"] == first["frame_indices"]
    assert abs(third["expected"] - first["expected"]) < 0.1 and not third["cached"]


def test_the_request_id_is_ours_or_a_sane_one_of_the_client(bench):
    assert bench.judge(headers={"X-Request-Id": "run-7.3"}).json()["id"] == "run-7.3"
    for bad in ("", "a b", "x" * 65, "<script>"):
        assert bench.judge(headers={"X-Request-Id": bad}).json()["id"] != bad


@pytest.mark.parametrize(("method", "route"), ROUTES)
@pytest.mark.parametrize(
    "header", [None, "", "Bearer ", "Bearer rvk_wrong", "Basic {key}", "{key}"]
)
def test_without_a_key_nothing_answers(bench, method, route, header):
    calls = bench.model.calls
    headers = {} if header is None else {"Authorization": header.format(key=bench.key)}
    response = TestClient(bench.client.app).request(method, route, headers=headers)
    assert is_problem(response, 401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer" and bench.model.calls == calls


def test_liveness_needs_no_key(bench):
    assert TestClient(bench.client.app).get("/healthz").json() == {"alive": True}


@pytest.mark.parametrize("url", ["http://127.0.0.1:{}/v.mp4", "file:///etc/hostname", "data:,x"])
def test_no_url_is_ever_fetched(bench, url):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as canary:
        canary.settimeout(0.2)
        url = url.format(canary.getsockname()[1])
        media = {"type": "video/mp4", "data": url}
        asked = [
            {"task": "go", "views": {"front": media}},
            {"task": "go", "views": {"front": {"type": "video/mp4", "url": url}}},
            {"task": "go", "views": {"front": url}},
            {"task": "go", "video_url": url},
        ]
        for body in asked:
            assert is_problem(bench.client.post("/v1/rewards", json=body), 422)
        files = {"request": ("r", '{"task": "go"}', "application/json")}
        for kind in ("video/mp4", "text/uri-list"):
            response = bench.client.post(
                "/v1/rewards", files=files | {"front": ("f", url.encode(), kind)}
            )
            assert response.status_code in (415, 422)
        with pytest.raises(TimeoutError):
            canary.accept()


def test_a_large_body_is_refused_by_its_length_alone(serving):
    with serving(body_bytes=100_000) as bench:
        taken = []

        def chunks(count):
            for _ in range(count):
                taken.append(1)
                yield bytes(10_000)

        head = {"Content-Type": "application/json"}
        long = bench.client.post("/v1/rewards", content=bytes(100_001), headers=head)
        assert is_problem(long, 413, "body_too_large")
        sent = bench.client.post("/v1/rewards", content=chunks(11), headers=head)
        assert is_problem(sent, 413, "body_too_large")
        assert bench.judge().status_code == 200
        assert bench.gauge("reward_held_bytes") == 0


def test_all_bodies_together_have_a_budget(serving):
    with serving(held_bytes=1000) as bench:
        assert is_problem(bench.judge(frames=bright(1, 40)), 429, "memory_full")
        assert bench.gauge("reward_held_bytes") == 0


@pytest.mark.parametrize("fault", ["nan", "inf", "range", "prose", "long", "number", "bad"])
def test_a_broken_judgement_is_never_a_reward(bench, fault):
    response = bench.judge(f"fault:{fault}")
    assert is_problem(response, 502, "bad_output") and len(response.content) < 1000


def test_a_crashing_model_is_a_typed_error_that_tells_nothing(bench, caplog):
    response = bench.judge("fault:crash")
    assert is_problem(response, 502, "model_failed")
    said = response.text + "".join(str(vars(record)) for record in caplog.records)
    assert "secret-task-text" not in said


def test_progress_of_the_wrong_length_is_refused(bench):
    assert is_problem(bench.judge("fault:progress"), 502, "bad_output")


def test_out_of_memory_is_503_and_the_next_are_served(bench):
    assert is_problem(bench.judge("fault:oom"), 503, "model_out_of_memory")
    assert is_problem(bench.judge("fault:gone"), 503, "engine_unavailable")
    for n in range(20):
        assert bench.judge(f"after {n}").status_code == 200


def test_a_judgement_is_kept_by_all_that_it_depends_on(bench):
    frames, calls = clip_frames(11, 6, 8), bench.model.calls
    assert not bench.judge("cache me", frames).json()["cached"]
    assert bench.judge("cache me", frames).json()["cached"]
    assert bench.model.calls == calls + 1
    assert not bench.judge("cache me not", frames).json()["cached"]
    assert not bench.judge("cache me", frames, fps=11).json()["cached"]
    assert not bench.judge("cache me", frames.reshape(6, 4, 16, 3)).json()["cached"]
    assert not bench.judge("cache me", frames[:5]).json()["cached"]


def test_views_must_show_the_same_frames(bench):
    def both(second):
        files = [
            ("request", ("r", '{"task": "two views", "fps": 10}', "application/json")),
            ("front", ("f", npz(bright(255)), "application/x-npz")),
            ("side", ("f", npz(second), "application/x-npz")),
        ]
        return bench.client.post("/v1/rewards", files=files)

    assert both(bright(0)).json()["expected"] == 3
    assert is_problem(both(bright(0, 5)), 422, "views_differ")


def test_a_batch_answers_each_on_its_own(bench, inline):
    good = {"task": "go", "fps": 10, "views": inline(bright(255))}
    requests = [good, good | {"model": "other"}, good | {"views": inline(bright(0))}]
    requests.append({"task": "fault:nan", "fps": 10, "views": good["views"]})
    results = bench.client.post("/v1/rewards:batch", json={"requests": requests}).json()["results"]
    assert [r["answer"] and r["answer"]["score"] for r in results] == [5, None, 1, None]
    assert [r["problem"] and r["problem"]["code"] for r in results] == [
        None, "unknown_model", None, "bad_output"
    ]  # fmt: skip
    assert is_problem(bench.client.post("/v1/rewards:batch", json={"requests": []}), 422)


def test_the_better_clip_is_preferred(bench, inline):
    body = {"task": "go", "fps": 10, "first": inline(bright(250)), "second": inline(bright(20))}
    answer = bench.client.post("/v1/preferences", json=body).json()
    assert answer["p_first"] == 1 and answer["first"]["score"] > answer["second"]["score"]
    files = {
        "request": ("r", '{"task": "go", "fps": 10}', "application/json"),
        "first.front": ("f", npz(bright(20)), "application/x-npz"),
        "second.front": ("f", npz(bright(250)), "application/x-npz"),
    }
    assert bench.client.post("/v1/preferences", files=files).json()["p_first"] == 0
    files["third.front"] = files["first.front"]
    assert is_problem(bench.client.post("/v1/preferences", files=files), 422, "parts")


def test_one_key_and_body_are_worked_on_once(bench):
    key, calls = {"Idempotency-Key": "episode-17"}, bench.model.calls
    first = bench.judge("once", headers=key)
    again = bench.judge("once", headers=key)  # another multipart boundary, the same request
    assert again.content == first.content and again.headers["idempotency-replayed"] == "true"
    assert bench.model.calls == calls + 1
    assert is_problem(bench.judge("twice", headers=key), 422, "idempotency_key")
    for bad in ("", "x" * 201, "with blank"):
        assert is_problem(bench.judge(headers={"Idempotency-Key": bad}), 422)


def test_a_refused_request_can_be_tried_again_with_its_key(serving):
    with serving() as bench:
        key = {"Idempotency-Key": "k"}
        assert bench.judge("fault:oom", headers=key).status_code == 503
        assert bench.judge("fault:oom", headers=key).status_code == 503
        assert bench.model.calls == 2


def in_threads(count, work):
    """Results of ``work(n)``, all at once."""
    results = [None] * count

    def run(n):
        results[n] = work(n)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_duplicates_at_the_same_time_wait_for_the_first(serving):
    with serving(BrightnessModel(0.3)) as bench:
        calls = bench.model.calls
        key = {"Idempotency-Key": "same"}
        found = in_threads(4, lambda n: bench.judge("once", headers=key))
        assert len({r.content for r in found}) == 1 and found[0].status_code == 200
        assert bench.model.calls == calls + 1


def test_what_waits_goes_in_one_batch(serving):
    with serving(BrightnessModel(0.25, max_batch=4), decoders=2) as bench:
        bench.model.batches.clear()
        found = in_threads(7, lambda n: bench.judge(f"clip {n}"))
        assert {r.status_code for r in found} == {200}
        sizes = bench.model.batches
        assert sum(sizes) == 7 and max(sizes) == 4 and len(sizes) <= 4


def test_a_batch_too_large_for_memory_is_halved(serving):
    with serving(BrightnessModel(0.2)) as bench:
        found = in_threads(4, lambda n: bench.judge(f"fault:oom-batch {n}"[:15], bright(50 * n)))
        assert {r.status_code for r in found} == {200}
        assert max(bench.model.batches) > 1


def test_a_full_queue_is_429_at_once(serving):
    with serving(BrightnessModel(0.4, max_batch=1), queue=2) as bench:
        begun = time.monotonic()

        def timed(n):
            time.sleep(0.02 * n)
            at = time.monotonic()
            return bench.judge(f"clip {n}"), time.monotonic() - at

        found = in_threads(6, timed)
        statuses = sorted(r.status_code for r, _ in found)
        assert statuses == [200, 200, 429, 429, 429, 429] and time.monotonic() - begun < 3
        for response, seconds in found:
            if response.status_code == 429:
                assert is_problem(response, 429, "queue_full") and seconds < 0.3
        assert bench.gauge("reward_rejects_total", reason="queue_full") == 4
        assert bench.judge("later").status_code == 200


def test_a_deadline_is_kept(serving):
    with serving(BrightnessModel(0.5, max_batch=1)) as bench:
        begun = time.monotonic()
        late = bench.judge("late", headers={"X-Deadline-Ms": "150"})
        assert is_problem(late, 504, "deadline") and time.monotonic() - begun < 0.45
        for bad in ("0", "-5", "1.5", "soon", "9999999"):
            assert is_problem(bench.judge(headers={"X-Deadline-Ms": bad}), 400, "deadline")


def test_work_whose_deadline_has_passed_is_not_begun(serving):
    with serving(BrightnessModel(0.5, max_batch=1)) as bench:
        bench.model.batches.clear()

        def ask(n):
            time.sleep(0.1 * n)
            return bench.judge(f"{n}", headers={"X-Deadline-Ms": "200"} if n else None)

        found = in_threads(3, ask)
        assert [r.status_code for r in found] == [200, 504, 504]
        time.sleep(0.2)
        assert len(bench.model.batches) == 1


def test_readiness_is_a_forward_pass_but_not_one_each(serving):
    class Counting(BrightnessModel):
        passes = 0
        broken = None

        def ready(self):
            self.passes += 1
            if self.broken:
                raise self.broken
            super().ready()

    from reward_vlm.model import EngineUnavailable

    with serving(Counting(), ready_cache_s=0.3) as bench:
        for _ in range(20):
            assert bench.client.get("/readyz").json() == {"brightness": "ok"}
        assert bench.model.passes == 1
        bench.model.broken = EngineUnavailable("at http://10.0.0.1")
        time.sleep(0.35)
        failed = bench.client.get("/readyz")
        assert is_problem(failed, 503, "not_ready") and "10.0" not in failed.text
        bench.model.broken = None
        time.sleep(0.35)
        assert bench.client.get("/readyz").status_code == 200


def test_a_hanging_model_is_not_ready(serving):
    class Hanging(BrightnessModel):
        hang = threading.Event()

        def ready(self):
            self.hang.wait(10)

    model = Hanging()
    model.hang.set()
    with serving(model, ready_s=0.3, ready_cache_s=0.05) as bench:
        assert bench.client.get("/readyz").status_code == 200
        model.hang.clear()
        time.sleep(0.1)
        begun = time.monotonic()
        assert is_problem(bench.client.get("/readyz"), 503, "not_ready")
        assert 0.2 < time.monotonic() - begun < 1
        begun = time.monotonic()
        assert bench.client.get("/readyz").status_code == 503
        assert time.monotonic() - begun < 0.2  # the same pass: known to be late
        model.hang.set()
        time.sleep(0.2)
        assert bench.client.get("/readyz").status_code == 200


def test_models_are_listed_and_chosen_by_name(bench):
    (card,) = bench.client.get("/v1/models").json()["models"]
    assert card["default"] and card["frames"] == 8 and card["name"] == "brightness"
    assert bench.judge(model="brightness").status_code == 200
    assert is_problem(bench.judge(model="gpt"), 404, "unknown_model")


def test_metrics_count_what_happened(bench):
    before = bench.gauge("reward_score_count", model="brightness")
    bench.judge("counted")
    assert bench.gauge("reward_score_count", model="brightness") == before + 1
    text = bench.client.get("/metrics").text
    for name in ("queue_depth", "batch_size", "stage_seconds", "rejects", "score", "requests"):
        assert f"# TYPE reward_{name}" in text


def test_a_draining_service_takes_nothing_new(serving):
    with serving() as bench:
        bench.service.draining = True
        assert is_problem(bench.judge(), 503, "draining")
        assert is_problem(bench.client.get("/readyz"), 503, "draining")
        assert bench.client.get("/healthz").status_code == 200


def test_the_description_is_openapi_3_1_and_names_every_error(bench):
    spec = bench.client.get("/openapi.json").json()
    assert spec["openapi"].startswith("3.1")
    post = spec["paths"]["/v1/rewards"]["post"]
    assert {"200", "401", "413", "415", "422", "429", "502", "503", "504"} <= set(post["responses"])
    assert set(post["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert "views" in spec["components"]["schemas"]["RewardRequest"]["properties"]


@pytest.mark.parametrize("route", ["/v1/rewards", "/v1/rewards:batch", "/v1/preferences"])
def test_the_example_in_the_description_is_answered(bench, route):
    body = bench.client.get("/openapi.json").json()["paths"][route]["post"]["requestBody"]
    response = bench.client.post(route, json=body["content"]["application/json"]["example"])
    assert response.status_code == 200 and 'problem":{' not in response.text


def test_an_unknown_route_or_method_is_a_problem_too(bench):
    assert is_problem(bench.client.get("/v2/rewards"), 404, "no_such_route")
    assert is_problem(bench.client.get("/v1/rewards"), 405, "method_not_allowed")


def test_log_lines_hold_no_task_frame_or_key(bench, caplog):
    with caplog.at_level("DEBUG", logger="reward_vlm"):
        bench.judge("a-very-private-task")
        bench.client.get("/v1/models")
    text = "".join(str(vars(record)) for record in caplog.records)
    assert "'route': '/v1/rewards'" in text and "tester" in text
    assert "private" not in text and bench.key not in text
