import json
from dataclasses import replace

import numpy as np
import pytest

from episodes import EpisodeReader
from incognita.recipes import evovla_policy, override, run_job, variants_of
from incognita.recipes.evovla import EVO_RECIPES, EVO_VARIANTS, EvoRecipe
from incognita.recipes.evovla_demos import load
from incognita.recipes.evovla_policy import Acting
from incognita.recipes.evovla_training import steps_to
from incognita.stage_eval import evaluate_file, evaluate_stages
from learning.policy_file import load_policy
from learning.ppo import PPOConfig

TINY = replace(
    EVO_RECIPES["evovla-stack"], demos=2, clone_epochs=2, num_envs=2, steps=96, watch_episodes=1,
    eval_every=64, ppo=PPOConfig(num_steps=16, minibatch=32, epochs=1, gamma=0.995, hidden=(16,)),
)  # fmt: skip
SHOWN = {"console": None, "quiet": True}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny training, stopped half-way, and its folder."""
    folder = tmp_path_factory.mktemp("evovla") / "run"
    result = run_job(replace(TINY, steps=64), folder, eval_episodes=0, **SHOWN)
    return folder, result


@pytest.mark.slow
def test_a_training_leaves_demonstrations_curve_policy_and_result(run):
    folder, result = run
    ids = EpisodeReader(folder / "demos").ids()
    assert len(ids) == 2
    assert EpisodeReader(folder / "demos").open(ids[0]).attrs["outcome"] == {"success": True}
    lines = [json.loads(x) for x in (folder / "curve.jsonl").read_text().splitlines()]
    assert [x["steps"] for x in lines] == [0, 32, 64]
    assert "eval" in lines[0] and "eval" in lines[-1]  # the clone, and at the end
    assert {"reward/stage", "reward/success", "intrinsic/error"} <= set(lines[1])
    policy = load_policy(folder / "policy")
    assert policy.obs_dim == TINY.make_task().obs_dim
    assert result["steps"] == 64 and json.loads((folder / "result.json").read_text()) == result


@pytest.mark.slow
def test_a_stopped_training_goes_on_where_it_was(run):
    folder, _ = run
    with pytest.raises(FileExistsError, match="resume"):
        run_job(TINY, folder, eval_episodes=0, **SHOWN)
    result = run_job(TINY, folder, eval_episodes=1, resume=True, **SHOWN)
    assert result["steps"] == 96 and result["eval"]["episodes"] == 1
    lines = [json.loads(x) for x in (folder / "curve.jsonl").read_text().splitlines()]
    assert [x["steps"] for x in lines] == [0, 32, 64, 96]


@pytest.mark.slow
def test_returns_of_demonstrations_are_discounted_sums_of_all_rewards(run):
    told = load(run[0] / "demos", gamma=0.5)
    arrays = EpisodeReader(run[0] / "demos").open(EpisodeReader(run[0] / "demos").ids()[0]).arrays
    paid = arrays["reward/success"] + arrays["reward/stage"]
    assert told.returns[len(paid) - 1] == paid[-1]
    np.testing.assert_allclose(told.returns[0], paid @ 0.5 ** np.arange(len(paid)), rtol=1e-5)
    assert told.obs.shape == (len(told.action), TINY.make_task().obs_dim)


def test_the_variants_are_the_rows_of_the_ablation():
    recipe = EVO_RECIPES["evovla-stack"]
    made = {name: change(recipe) for name, change in EVO_VARIANTS.items()}
    assert variants_of(recipe) == EVO_VARIANTS
    assert made["clone"].steps == 0 and made["sparse"].env.stage_coef == 0.0
    assert not made["stage-soft"].hard and made["stage"].hard
    assert made["stage"].env.tracker.alpha == 1.0 > made["smooth"].env.tracker.alpha
    assert made["default"].pose and not made["smooth"].pose
    assert all(r.demos == recipe.demos and r.seed == recipe.seed for r in made.values())


def test_steps_to_a_level_lie_on_the_line_between_two_looks():
    looks = [{"steps": 0, "success": 0.6}, {"steps": 100, "success": 0.8},
             {"steps": 200, "success": 1.0}]  # fmt: skip
    assert steps_to(looks, 0.9) == 150.0 and steps_to(looks, 0.5) == 0.0
    assert steps_to(looks[:2], 0.9) is None


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="gamma"):
        replace(TINY, ppo=PPOConfig(gamma=0.9))
    with pytest.raises(ValueError, match="task"):
        EvoRecipe("x", "knit")
    assert override(TINY, ["env.stage_coef=0.1"]).env.stage_coef == 0.1


@pytest.mark.slow
def test_a_policy_that_remembers_is_trained_filed_and_run_as_a_robot_runs_it(tmp_path):
    job = replace(EVO_VARIANTS["memory"](TINY), steps=32, pose=True,
                  ppo=replace(TINY.ppo, sequence=8))  # fmt: skip
    run_job(job, tmp_path / "run", eval_episodes=0, **SHOWN)
    line = json.loads((tmp_path / "run" / "curve.jsonl").read_text().splitlines()[-1])
    assert 0 <= line["intrinsic/gate"] < 1  # the memory gates the progress reward
    told = evaluate_file(tmp_path / "run" / "policy", 1, seed=5)
    assert told["task"] == "stack" and told["episodes"] == 1
    net = evovla_policy.load(tmp_path / "run" / "policy")
    again = evaluate_stages(
        job.make_task(), Acting(net), job.make_judge(), 1, config=job.env, seed=5
    ).summary()
    assert told["stopped_at"] == again["stopped_at"]  # ONNX and torch drive alike
