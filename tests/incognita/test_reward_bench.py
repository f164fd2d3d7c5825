"""The harnesses of the reward service, in small."""

import httpx
import numpy as np
import pytest

from incognita.bench import reward_faults, serve
from incognita.bench.hostile_requests import cases
from incognita.bench.reward_load import Outcome, Reply, refusal_problems
from incognita.bench.reward_probe import unlike


def test_the_hostile_requests_are_many_and_differ(tmp_path):
    found = cases(tmp_path / "canary")
    assert len(found) >= 100
    assert len({str(case.encoded()) for case in found.values()}) == len(found)


def test_a_wrong_answer_counts_as_a_problem():
    good = {"content-type": "application/problem+json"}
    assert unlike(httpx.Response(422, headers=good, text="{}"), 422) == []
    for response in (
        httpx.Response(500, headers=good, text="{}"),
        httpx.Response(422, json={}),
        httpx.Response(429, headers=good, text="{}"),
        httpx.Response(422, headers=good, text='File "/usr/lib/x.py", line 1'),
        httpx.Response(422, headers=good, text="at 0x7f3a99001100"),
    ):
        assert unlike(response, 422, 429)


def test_overhead_is_paired():
    found = serve._paired(np.array([[12.0, 10.0], [22.0, 20.0], [33.0, 30.0]]))
    assert found["added_p50_ms"] == 2 and found["p50_ratio"] == 1.1


def test_refusals_need_a_whole_number_to_wait():
    replies = [Reply(200, 0, 0.1, None), Reply(429, 0, 0.1, "3")]
    assert refusal_problems(Outcome(replies, 1.0, 0.0)) == []
    for bad in (Reply(429, 0, 0.1, "1.5"), Reply(429, 0, 0.1, None), Reply(503, 0, 0.1, "1")):
        assert len(refusal_problems(Outcome([*replies, bad], 1.0, 0.0))) == 1
    assert refusal_problems(Outcome(replies, 1.0, 0.0, lost=2))


@pytest.mark.slow
def test_broken_models_give_no_rewards():
    lines = []
    result = reward_faults.run(["R8", "R9", "R11"], smoke=True, emit=lines.append)
    assert result["passed"] and len(lines) > 40
    assert all(line["lost"] == 0 for line in lines if "case" in line)


@pytest.mark.slow
def test_overload_is_borne():
    found = serve.overload(3.0)
    assert set(found["statuses"]) == {"200", "429"} and found["problems"] == []
    assert found["goodput_of_peak"] > 0.5 and found["recovery_s"] < 5
