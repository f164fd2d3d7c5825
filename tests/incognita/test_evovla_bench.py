"""The benchmarks of EvoVLA, end to end on tiny sizes, and their counts worked by hand."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("mujoco")

from incognita.bench import app  # noqa: E402
from incognita.bench.evovla import jobs_of, summary  # noqa: E402
from incognita.bench.evovla_pose import spotted  # noqa: E402
from incognita.bench.evovla_stages import passed  # noqa: E402
from incognita.kept import Kept  # noqa: E402
from incognita.recipes.evovla import EVO_VARIANTS  # noqa: E402


def run(arguments, tmp_path):
    file = tmp_path / "result.json"
    done = CliRunner().invoke(app, [*arguments, "--smoke", "--json", str(file)])
    assert done.exit_code == 0, done.output
    return json.loads(file.read_text())


@pytest.mark.slow
def test_bench_evovla_keeps_what_is_trained(tmp_path):
    keep = ["--keep", str(tmp_path / "rows.jsonl"), "--variants", "clone,default"]
    first = run(["evovla", *keep], tmp_path)
    row = first["table"]["default"]
    assert row["episodes"] == 1 and 0 <= row["success_95"][0] <= row["success_95"][1] <= 1
    assert [r["trained_steps"] for r in first["runs"]] == [0, 64]
    again = run(["evovla", *keep], tmp_path)
    assert again["runs"] == first["runs"]  # not trained anew


@pytest.mark.slow
def test_bench_evovla_stages_compares_hard_negatives_with_none(tmp_path):
    result = run(["evovla-stages"], tmp_path)
    assert set(result["table"]) == {"soft", "hard", "hard, not smoothed"}
    for row in result["table"].values():
        assert {"demonstration", "clumsy", "near miss"} == set(row["kinds"])
        assert row["kinds"]["near miss"]["episodes"] == 8  # four kinds at two picks


@pytest.mark.slow
def test_bench_evovla_pose_pays_the_same_for_true_poses_in_any_light(tmp_path):
    result = run(["evovla-pose"], tmp_path)
    assert result["passed"]["true poses"] and result["passed"]["less than pixels"]
    assert result["curves"][0][0]["unexplained"] == 1.0  # nothing moves, a fresh model says


def test_a_variant_gets_the_scorer_that_saw_what_it_is_told():
    jobs = jobs_of("stack", list(EVO_VARIANTS), 2, "hard", "soft", None, "mlp", 200)
    assert len(jobs) == 2 * len(EVO_VARIANTS)
    told = {job.variant: job.scorer for job in jobs}
    assert [k for k, v in told.items() if v == "soft"] == ["clone", "sparse", "stage-soft"]


def made(variant, seed, success, to_90, steps=1000, rate=0.1):
    found = {"episodes": 10, "success": success, "weak_success": 1.0, "hallucination": rate,
             "recall": 0.7, "stage_exact": 0.9}  # fmt: skip
    return {"variant": variant, "seed": seed, "steps": steps, "trained_steps": steps,
            "steps_to_90": to_90, "eval": found}  # fmt: skip


def test_a_training_that_never_got_there_counts_with_all_its_steps():
    rows = [made("sparse", 0, 0.8, None), made("sparse", 1, 0.9, 800.0),
            made("default", 0, 0.9, 400.0), made("default", 1, 1.0, 500.0)]  # fmt: skip
    found = summary(rows, "stack", ["sparse", "default"])
    assert found["table"]["sparse"]["steps_to_90"] == {"iqm": 900.0, "by_seed": [None, 800.0]}
    assert found["steps_sparse_over_full"] == 2.0
    assert found["table"]["default"]["success"] == pytest.approx(0.95)
    assert found["passed"] == {"strict success": True, "hallucination": True, "steps to 90 %": True}


def test_hallucination_does_not_pass_where_too_little_is_claimed():
    row = made("default", 0, 0.9, 1.0)
    row["eval"]["recall"] = 0.5
    assert not summary([row], "stack", ["default"])["passed"]["hallucination"]


def test_hard_negatives_must_take_away_twenty_points():
    kinds = {"demonstration": {"exact": 0.9, "within_one": 0.99},
             "near miss": {"believed_too_far": 0}}  # fmt: skip
    hard = {"hallucination": 0.1, "hallucination_frame": 0.3, "recall": 0.7, "kinds": kinds}
    soft = {"hallucination_frame": 0.49}
    assert not passed({"hard": hard, "soft": soft})["hard negatives"]
    soft["hallucination_frame"] = 0.6
    assert all(passed({"hard": hard, "soft": soft}).values())


def test_a_row_of_another_number_of_episodes_is_not_taken(tmp_path):
    job = jobs_of("stack", ["default"], 1, "oracle", "oracle", 64, "mlp", 10)[0]
    Kept(tmp_path / "rows.jsonl").add(made("default", 0, 1.0, 1.0) | asdict(job))
    kept = Kept(tmp_path / "rows.jsonl")
    assert kept.find(asdict(job)) is not None
    assert kept.find(asdict(job) | {"episodes": 20}) is None


@pytest.mark.parametrize("light", [0.5, 1.0])
def test_a_spot_is_found_where_it_is_in_any_brightness(light):
    image = np.full((96, 96, 3), 120 * light, np.uint8)
    image[40:60, 58:78] = np.array([200, 30, 30]) * light  # 20 px wide, its middle at 68, 50
    # its rim, half background, is left out, so it seems a tenth farther away
    (place,) = spotted(image[None], (0.82, 0.13, 0.12), edge_m=0.02)
    focal = 48 / np.tan(np.radians(31))
    depth = focal * 0.02 / 20
    np.testing.assert_allclose(place, [depth * 20 / focal, depth * 2 / focal, depth], rtol=0.15)
    assert np.isnan(spotted(np.zeros((1, 96, 96, 3), np.uint8), (0.8, 0.1, 0.1), 0.02)).all()
