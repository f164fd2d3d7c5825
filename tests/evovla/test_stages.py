"""Stage dictionaries: the published layout, the quality filters, the templates."""

import json
from dataclasses import replace

import pytest

from evovla.stage_check import LEAST_FRAMES, StageError, quality
from evovla.stage_text import from_steps
from evovla.stages import (
    PRIMITIVES,
    Stage,
    StageDictionary,
    Step,
    from_json,
    load,
    parse,
    save,
    to_json,
)

PUBLISHED = {
    "task_name": "stack",
    "task_description": "stack the green block on the blue block",
    "num_stages": 2,
    "triplets": {
        "stage_1": {
            "positive": "gripper is above the target block, fingers open",
            "negative": "arm is far from all objects",
            "hard_negative": "gripper is above a block that is not the target, fingers open",
        },
        "stage_2": {
            "positive": "fingers hold the target block, both in contact",
            "negative": "fingers are open and touch nothing",
            "hard_negative": "fingers are close to the target block without contact",
        },
    },
}


def pick_and_place(target, reference):
    held = ("over", "lower", "open", "retreat")
    return [Step(p, target, reference if p in held else "") for p in PRIMITIVES]


def stack():
    steps = pick_and_place("green cube", "blue cube") + pick_and_place("red cube", "green cube")
    return from_steps("stack", "stack the cubes: blue below, then green, red on top", steps)


def broken(stage, **fields):
    """The stack's JSON with some fields of one stage replaced."""
    content = json.loads(json.dumps(to_json(stack())))
    content["triplets"][stage].update(fields)
    return content


def refused(content):
    with pytest.raises(StageError) as caught:
        parse(json.dumps(content), "file.json")
    assert all(line.startswith("file.json: ") for line in str(caught.value).splitlines())
    return caught.value.problems


def test_the_published_layout_is_read_and_stages_may_count_from_one():
    found = parse(json.dumps(PUBLISHED))
    assert found.num_stages == 2
    assert found.stages[0] == Stage(*(
        (text,) if name == "hard_negative" else text
        for name, text in PUBLISHED["triplets"]["stage_1"].items()
    ))  # fmt: skip


def test_a_dictionary_comes_back_from_disk_as_it_was(tmp_path):
    made = stack().calibrated([0.04] * 18, [0.8] * 18)
    save(tmp_path / "deep" / "stack.json", made)
    assert load(tmp_path / "deep" / "stack.json") == made
    content = json.loads((tmp_path / "deep" / "stack.json").read_text())
    assert list(content)[:3] == ["task_name", "task_description", "num_stages"]
    assert set(PUBLISHED["triplets"]["stage_1"]) <= set(content["triplets"]["stage_0"])
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["stack.json"]


def test_a_dictionary_that_fails_a_filter_is_not_written(tmp_path):
    made = stack()
    bad = replace(made, stages=(replace(made.stages[0], positive="TODO"), *made.stages[1:]))
    with pytest.raises(StageError, match=r"stage_0\.positive: is unfinished, has 'TODO'"):
        save(tmp_path / "stack.json", bad)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_every_primitive_has_near_misses_that_differ_and_name_another_object(primitive):
    stage = next(s for s in stack().stages if s.step.primitive == primitive)
    assert len(stage.hard_negatives) >= 3
    assert len(set(stage.texts().values())) == len(stage.texts())
    assert all("{" not in text for text in stage.texts().values())
    if primitive != "retreat":
        assert any("red cube" in text for text in stage.hard_negatives)


def test_things_are_put_in_a_cup_and_on_a_plate():
    steps = pick_and_place("jujube", "cup") + pick_and_place("cup", "plate")
    made = from_steps("jujube_cup", "put the jujube in the cup, the cup on the plate", steps)
    assert "rests in the cup" in made.stages[7].positive
    assert "rests on the plate" in made.stages[16].positive
    assert "in the grasp has come down in the cup" in made.stages[6].positive


def test_of_two_equal_ways_over_in_a_row_the_first_is_the_rough_one():
    over = Step("over", "cup", "plate")
    first, second, _ = from_steps("c", "cup", [over, over, Step("lower", "cup", "plate")]).stages
    assert "roughly over the plate" in first.positive and first.step == second.step
    assert "centred over the plate" in second.positive


def test_a_step_twice_is_refused_by_the_filter_of_exclusivity():
    step = Step("over", "cup", "plate")
    with pytest.raises(StageError, match=r"stage_2\.positive: does not exclude stage_0\.positive"):
        from_steps("twice", "move over the plate twice", [step, Step("lift", "cup"), step])


def test_a_positive_that_is_true_of_a_later_stage_too_is_refused():
    problems = refused(broken("stage_4", positive="the green cube is in the grasp"))
    assert any(
        p.startswith("stage_4.positive: does not exclude stage_6.positive") for p in problems
    )


def test_a_negation_excludes():
    first = Stage("the fingers touch the ball", "fingers far away", ("fingers just above it",))
    second = Stage("the fingers do not touch the ball", "fingers at rest", ("fingers hold it",))
    assert quality(StageDictionary("t", "touch it", (first, second))) == []


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"negative": "the shiny fingers are far away"}, "stage_3.negative: must tell place"),
        ({"hard_negative": "next to the black spot, not at it"}, "has 'black' outside the names"),
        ({"positive": "fill in ..."}, "stage_3.positive: is unfinished, has '...'"),
        ({"negative": "<object> is far away"}, "stage_3.negative: is unfinished"),
        ({"positive": "held"}, "stage_3.positive: must have 3 to 48 words, got 1"),
        ({"positive": "held " * 60}, "stage_3.positive: must have 3 to 48 words, got 60"),
        ({"min_frames": 5}, f"stage_3.min_frames: must be >= {LEAST_FRAMES}, got 5"),
        ({"min_frames": 7.5}, "stage_3.min_frames: must be int in [1, 1e+06], got 7.5"),
        ({"theta": 1.5}, "stage_3.theta: must be float in [0, 1], got 1.5"),
        ({"tau": True}, "stage_3.tau: must be float"),
        ({"negative": 7}, "stage_3.negative: must be a text, got 7"),
        ({"more_hard_negatives": "one"}, "stage_3.more_hard_negatives: must be a list of texts"),
        ({"colour": "red"}, "stage_3.colour: is no field of a stage"),
        ({"primitive": "throw"}, "stage_3.primitive must be one of above"),
        ({"target": ""}, "stage_3.target must name an object"),
    ],
)
def test_a_problem_names_stage_and_field(fields, problem):
    problems = refused(broken("stage_3", **fields))
    assert any(problem in p and p.startswith("stage_3") for p in problems), problems


def test_two_texts_of_one_stage_must_differ():
    text = to_json(stack())["triplets"]["stage_2"]["positive"]
    (problem,) = refused(broken("stage_2", negative=text.upper()))
    assert problem.startswith("stage_2.negative: says the same as stage_2.positive")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"num_stages": 17}, "num_stages: must be 18"),
        ({"triplets": {}}, "triplets: must be an object of stages"),
        ({"task_name": ""}, "task_name: must not be empty"),
        ({"task_description": None}, "task_description: must be a text"),
        ({"objects": ["cube", 1]}, "objects: must be a list of texts"),
        ({"version": 2}, "version: is no field of a dictionary"),
    ],
)
def test_a_problem_of_the_whole_names_its_field(change, problem):
    assert any(p.startswith(problem) for p in refused(to_json(stack()) | change))


def test_a_missing_stage_is_named():
    content = to_json(stack())
    content["triplets"]["stage_20"] = content["triplets"].pop("stage_5")
    problems = refused(content)
    assert "stage_5: is missing" in problems
    assert any(p.startswith("stage_20: must be one of stage_0..stage_17") for p in problems)


def test_all_problems_are_told_at_once():
    content = broken("stage_3", negative="TODO later on")
    content["triplets"]["stage_7"]["positive"] = "a dark place on the left"
    assert {p.split(":")[0] for p in refused(content)} == {"stage_3.negative", "stage_7.positive"}


def test_stages_that_are_too_short_in_a_demonstration_are_named():
    frames = [[8] * 18, [8] * 18]
    assert quality(stack(), frames) == []
    frames[1][4] = 2
    (problem,) = quality(stack(), frames)
    assert problem.startswith("stage_4.min_frames: must last >= 6 frames, demonstration 1 has 2")
    with pytest.raises(ValueError, match=r"frames must be \(M, 18\), got \(2, 3\)"):
        quality(stack(), [[8] * 3] * 2)


def test_what_is_no_json_is_refused_with_its_place():
    with pytest.raises(StageError, match="here: must be JSON"):
        parse("{", "here")
    with pytest.raises(StageError, match="stages: must be an object"):
        from_json([1])


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (("throw", "cube"), "primitive must be one of"),
        (("reach", " "), "target must name an object"),
        (("over", "cube"), "reference must name an object for 'over'"),
        (("over", "cube", "cube"), "reference must differ from target"),
    ],
)
def test_a_step_says_what_it_lacks(fields, problem):
    with pytest.raises(ValueError, match=problem):
        Step(*fields)
