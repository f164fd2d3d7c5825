"""The reward model that is shipped."""

import json

import numpy as np
import pytest

from incognita.bench.reward import examples
from incognita.recipes.reward import REWARD, RewardRecipe
from incognita.recipes.reward_data import load, make
from incognita.reward_metrics import auroc
from reward_vlm.backends import open_model
from reward_vlm.backends.small import ABOUT, SHIPPED, WEIGHTS

MOST = 8_000_000
"""Bytes of the weights."""


@pytest.fixture(scope="module")
def model():
    return open_model("small")


def test_it_is_small_and_says_how_it_was_made():
    assert (SHIPPED / WEIGHTS).stat().st_size < MOST
    about = json.loads((SHIPPED / ABOUT).read_text())
    fields = about["recipe"] | {"lengths": tuple(about["recipe"]["lengths"])}
    assert RewardRecipe(**fields).name == REWARD.name and about["git_revision"]


def test_it_is_ready_and_stamps_what_it_says(model):
    model.ready()
    assert model.info.backend == "small" and len(model.info.preprocess_sha) == 16
    assert "simulated" in model.info.domain


@pytest.mark.slow
def test_it_tells_what_was_done_from_what_was_not(model, tmp_path):
    make("iid", 40, tmp_path, first=7)
    found = list(examples(load(tmp_path, "iid"), False, 0))
    judged = model.judge([e.clip for e in found[:32]]) + model.judge([e.clip for e in found[32:64]])
    labels = np.array([e.truth.label for e in found[:64]])
    expected = np.array([j.expected for j in judged])
    assert auroc([j.success for j in judged], labels == 5) > 0.75
    assert np.corrcoef(expected, labels)[0, 1] > 0.4
    assert np.mean([abs(j.score - k) for j, k in zip(judged, labels, strict=True)]) < 1.1
