"""Faults of training at smoke size; ``incognita bench faults`` runs the full sizes of the code."""

from __future__ import annotations

import pytest
import yaml

from incognita.bench import faults, training_faults


def test_killed_saves_lose_nothing_and_damage_is_passed_over(tmp_path, lines, check):
    totals = training_faults.checkpoint_kills(4, 1, tmp_path, emit=lines.append)
    check(totals, lines, 4 + 1 + 2 * (3 + 4))


def test_resumed_training_is_the_uninterrupted_one(tmp_path, lines, check):
    totals = training_faults.resumes(2, 2, tmp_path, emit=lines.append)
    check(totals, lines, 2)
    assert all(line["survived"] > 200 for line in lines[:2])  # leaves that are equal


def test_no_bad_number_reaches_a_parameter_and_no_missing_reward_is_zero(tmp_path, lines, check):
    totals = training_faults.bad_numbers(1, 3, tmp_path, emit=lines.append)
    check(totals, lines, 11)
    shares = {line["injected"]: line["missing_share"] for line in lines[:-1]}
    assert shares["every reward NaN"] == 1 and 0.2 < shares["30 % of rewards NaN"] < 0.4


@pytest.mark.slow
def test_ctrl_c_saves_and_twice_ends_at_once(tmp_path, lines, check):
    totals = training_faults.interrupts(1, 4, tmp_path, emit=lines.append)
    check(totals, lines, 2)


def test_hostile_files_are_refused_unrun_and_the_safe_format_named(tmp_path, lines, check):
    totals = training_faults.hostile_files(None, 5, tmp_path, emit=lines.append)
    check(totals, lines, 90)


def test_the_hostile_yaml_does_sing(tmp_path):
    canary = tmp_path / "canary"
    paths = training_faults.hostile_paths(tmp_path / "hostile", canary)
    yaml.unsafe_load(paths["!!python .yaml file"].read_text())
    assert canary.exists()


def test_the_audit_fails_where_it_must_and_prints_floors(tmp_path, lines, check):
    totals = training_faults.audits(None, 6, tmp_path, emit=lines.append)
    check(totals, lines, 7)
    (floors,) = (line["found"] for line in lines if "found" in line)
    assert {"floor/torch", "bundled/opencv-python/libavcodec"} <= floors.keys()


def test_without_a_checkout_the_audit_is_skipped_and_says_so(tmp_path, lines, monkeypatch):
    monkeypatch.setattr(training_faults, "ROOT", tmp_path)
    summary = faults.run(["S2"], smoke=True, folder=tmp_path, emit=lines.append)
    assert summary["passed"] and summary["skipped"] == ["S2"] == lines[-1]["skipped"]
    (totals,) = summary["checks"]
    assert not totals["passed"] and totals["survived"] == 0
    assert "needs a checkout" in totals["skipped"] and "needs a checkout" in lines[0]["skipped"]


def test_the_harness_catches_what_others_lose(tmp_path, lines, monkeypatch):
    """Negative controls; those of the episode store are in tests/episodes."""
    monkeypatch.setattr(faults, "controls", lambda *_, **__: [])
    summary = faults.run(["controls"], smoke=True, seed=7, folder=tmp_path, emit=lines.append)
    lost = {result["check"]: result["lost"] for result in summary["checks"]}
    names = {"T1-torch-save", "T2-weights-alone", "T3-missing-as-zero", "S1-trusted"}
    assert lost.keys() == names
    assert min(lost.values()) > 0 and summary["passed"]


def test_every_check_has_both_sizes():
    assert faults.FULL.keys() == faults.SMOKE.keys() >= training_faults.CHECKS.keys()
