"""Shipped policies: the task that each is scored on is the one its file asks for."""

import numpy as np
import pytest

from incognita.explore import explore
from incognita.shipped import fitted, folder_of, names, shipped, task_of
from learning.policy_file import OnnxPolicy
from sim.batch import BatchEnv
from sim.dungeon import DungeonRun, draw
from toponav.meta import MetaExplorer

DRIVERS = [name for name in names() if name != "explorer"]


def test_the_shipped_explorer_sees_all_of_a_map_in_less_way_than_its_base():
    explorer, maps = MetaExplorer(folder_of("explorer")), [draw(seed) for seed in range(500, 516)]
    mine, base = (
        [explore(DungeonRun(world), one) for world in maps] for one in (explorer, explorer.base)
    )
    assert all(walk.finished for walk in mine) and explorer.overruled > 0
    assert sum(walk.driven_px for walk in mine) < sum(walk.driven_px for walk in base)
    assert shipped()["explorer"]["bytes"] < 5e6


@pytest.mark.parametrize("name", DRIVERS)
def test_a_shipped_policy_fits_the_task_that_its_file_names(name):
    policy = OnnxPolicy(folder_of(name))
    task = task_of(policy.manifest)
    assert task.config.observation.spec() == policy.manifest["observation"]
    assert task.robot.limits.v_max == policy.manifest["action"]["limits"]["v_max"]
    assert task.config.terminal_collision and task.config.guide == "built" or name != "agv-barn"
    env = BatchEnv(task, 2, "kinematic")
    assert np.isfinite(policy(env.reset())).all()
    assert shipped()[name]["bytes"] < 2e6


def test_what_a_policy_sees_is_its_own_whatever_the_recipe_is_today():
    manifest = OnnxPolicy(folder_of("agv-warehouse")).manifest
    config = manifest["observation"]["config"]
    other = {**manifest["observation"], "config": {**config, "sectors": 24}}
    slow = {**manifest["action"], "limits": {**manifest["action"]["limits"], "v_max": 0.5}}
    task = task_of({**manifest, "observation": other, "action": slow})
    assert task.config.observation.sectors == 24 and task.robot.limits.v_max == 0.5
    assert fitted(manifest)["observation"].sectors == config["sectors"]


def test_a_file_that_names_no_task_is_refused_in_words():
    manifest = OnnxPolicy(folder_of("agv-warehouse")).manifest
    with pytest.raises(ValueError, match=r"must name its task under recipe.settings.*got \['name'"):
        task_of({**manifest, "recipe": {"name": "mine"}})
