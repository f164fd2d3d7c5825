"""Training the explorer's meta-controller, on a tiny budget."""

import json

import numpy as np
import pytest

from incognita.explore import explore, snapshot
from incognita.recipes.explorer import ExplorerRecipe, train_explorer
from incognita.recipes.explorer_data import labelled, load, save, try_first
from incognita.recipes.explorer_improve import discounted, double
from sim.dungeon import DungeonRun, draw
from toponav.explorers import Utility
from toponav.meta import MetaExplorer

BASE = Utility(0.75, 1.25)
TINY = ExplorerRecipe(
    drawn=2, steps=6, batch=4, improved=(1,), improve_steps=4, checkpoint_every=2, n=2, width=32
)


def test_the_compiled_explorer_drives_as_the_one_of_the_benchmark():
    for seed in range(3):
        run = DungeonRun(draw(seed))
        view = snapshot(run, None)
        chosen = view.frontiers.cell[BASE.choose(view)]
        before = run.seen.copy(), run.grid.copy(), run.unseen_px
        whole = explore(DungeonRun(draw(seed)), BASE)
        assert try_first(run, BASE, chosen) == pytest.approx(whole.driven_px)
        np.testing.assert_array_equal(run.seen, before[0])
        np.testing.assert_array_equal(run.grid, before[1])
        assert run.unseen_px == before[2]


def test_labels_survive_a_file(tmp_path):
    states = labelled(draw(5), BASE, np.random.default_rng(0), share=0.2, stray=0.1)
    save(tmp_path / "a.npz", states)
    again = load(tmp_path / "a.npz")
    assert len(again) == len(states) > 3
    for a, b in zip(states, again, strict=True):
        assert len(a.cost) == len(a.features.numbers) - 1 > 1
        np.testing.assert_array_equal(a.cost, b.cost)
        np.testing.assert_array_equal(a.features.numbers, b.features.numbers)
        np.testing.assert_array_equal(a.features.pictures, b.features.pictures)


def test_an_exploration_without_a_choice_is_a_file_too(tmp_path):
    save(tmp_path / "a.npz", [])
    assert load(tmp_path / "a.npz") == []


def test_what_lies_ahead_is_discounted_by_distance():
    assert discounted(3.0, 1.0) == 3.0
    whole = discounted(3.0, 0.9)
    parts = discounted(1.0, 0.9) + 0.9 * discounted(2.0, 0.9)
    assert whole == pytest.approx(parts) and whole < 3


def test_one_half_picks_and_the_other_says_what_it_costs():
    cost = np.array([[1.0, 1.0, 9.0, 7.0], [2.0, 2.0, 0.0, 0.0]], np.float32)
    assert double(cost) == 8.0


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path):
    first = train_explorer(TINY, tmp_path / "a", quiet=True)
    with pytest.raises(FileExistsError, match="--resume"):
        train_explorer(TINY, tmp_path / "a", quiet=True)
    train_explorer(TINY, tmp_path / "b", quiet=True)
    newest = sorted((tmp_path / "b" / "checkpoints" / "1").glob("checkpoint-*"))[-1]
    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()
    (tmp_path / "b" / "data" / "drawn-00001.npz").unlink()
    train_explorer(TINY, tmp_path / "b", resume=True, quiet=True)
    a, b = ((tmp_path / x / "policy" / "policy.safetensors").read_bytes() for x in "ab")
    assert a == b
    curves = [(tmp_path / x / "curve.jsonl").read_text() for x in "ab"]
    assert curves[0] == curves[1] and len(curves[0].splitlines()) == 5
    assert first["states"] > 20 and np.isfinite(first["regret_ranges"])
    manifest = json.loads((tmp_path / "a" / "policy" / "manifest.json").read_text())
    assert manifest["recipe"]["settings"]["n"] == 2
    walk = explore(DungeonRun(draw(1)), MetaExplorer(tmp_path / "a" / "policy"))
    assert walk.finished
