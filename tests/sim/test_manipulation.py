"""The long tasks: true stages, strict success, the expert, the batch, images and episodes."""

import dataclasses

import numpy as np
import pytest

from evovla.stages import PRIMITIVES
from sim.manipulation.batch import ArmBatch
from sim.manipulation.episodes import demonstrations
from sim.manipulation.events import STRAY_STEPS, Evidence, Tracker, advance, hold, stage_events
from sim.manipulation.expert import CLUMSY, NEAR_MISSES, Expert
from sim.manipulation.pieces import Pick, Place, Plan
from sim.manipulation.randomization import ARM_TRAINING, ArmRandomization
from sim.manipulation.view import ArmView
from sim.tasks import ARM_TASKS, make_arm


def evidence(plan, **changes):
    """One row whose hand is far and whose pieces lie about; ``changes`` of every pick."""
    shape = (1, len(plan.target))
    far, none = np.full((*shape, 3), 0.3), np.zeros(shape)
    flags = np.zeros(shape, bool)
    base = Evidence(far, far, far, none, none, none + 1, none, none + 0.02, flags, flags)
    arrays = {k: np.broadcast_to(np.asarray(v), getattr(base, k).shape) for k, v in changes.items()}
    return dataclasses.replace(base, **arrays)


def run(task, num_envs=2, seed=0, steps=None, act=None, **options):
    """Play; the terms of every step, (T,) each a dict of (N,)."""
    batch = ArmBatch(task, num_envs, seed, **options)
    batch.reset()
    expert = Expert(batch)
    return batch, [
        batch.step(expert.act() if act is None else act(batch))
        for _ in range(steps or task.config.max_steps)
    ]


# stages


@pytest.mark.parametrize(
    ("name", "stages"),
    [("stack", 18), ("jujube-cup", 19), ("bridge-lite", 38), ("bridge", 74), ("stack-cue", 9)],
)
def test_stages_are_primitives_of_targets_and_references(name, stages):
    task = make_arm(name)
    assert len(task.steps) == task.plan.stages == stages
    names = {piece.name for piece in task.pieces}
    for step in task.steps:
        assert step.primitive in PRIMITIVES and step.target in names
        assert not step.reference or set(step.reference.split(" or ")) <= names
    if name == "stack":
        assert [s.primitive for s in task.steps] == list(PRIMITIVES) * 2
        assert task.steps[5].reference == "blue cube" and task.steps[14].reference == "green cube"


def test_an_event_holds_within_its_tolerance_and_ceases_beyond_half_as_much_again():
    plan = make_arm("stack").plan
    tracker = Tracker.start(1, 2)
    seen = []
    for aside in (0.016, 0.014, 0.016, 0.022, 0.024, 0.016):  # above: 15 mm, slack 22.5 mm
        tracker = advance(tracker, evidence(plan, reach=[aside, 0, 0.10]), plan)
        seen.append(bool(stage_events(tracker, plan)[0, 0]))
    assert seen == [False, True, True, True, False, False]


def test_each_primitive_has_its_event():
    plan = make_arm("stack").plan
    steps, placed = np.full((1, 2), 9), np.array([[False, False]])
    here, over = [0, 0, 0.0], [0, 0, 0.05]
    cases = {
        "above": evidence(plan, reach=[0, 0, 0.10]),
        "reach": evidence(plan, reach=here),
        "close": evidence(plan, held=True, touched=True),
        "lift": evidence(plan, held=True, touched=True, raised=0.071),
        "over": evidence(plan, held=True, touched=True, off_release=over),
        "lower": evidence(plan, held=True, touched=True, off_release=here),
        "open": evidence(plan),
        "retreat": evidence(plan, reach=[0, 0, 0.05]),
    }
    for name, e in cases.items():
        there = name in ("open", "retreat")
        got = hold(e, plan, steps, placed | there)[0, 0]
        assert got[PRIMITIVES.index(name)], name
    # a finger's touch, a closed hand, a hand 1.1 cm too high, one finger only: not yet
    assert not hold(evidence(plan, reach=here, touched=True), plan, steps, placed)[0, 0, 1]
    assert not hold(evidence(plan, reach=here, opening=-0.005), plan, steps, placed)[0, 0, 1]
    assert not hold(evidence(plan, reach=[0, 0, 0.011]), plan, steps, placed)[0, 0, 1]
    assert not hold(evidence(plan, touched=True), plan, steps, placed)[0, 0, 2]
    assert not hold(cases["close"], plan, 0 * steps, placed)[0, 0, 3]  # settled: held for a while


def test_the_true_stage_rises_by_one_in_order_and_falls_back_when_a_piece_is_lost():
    plan = make_arm("stack").plan
    held = {"held": True, "touched": True, "raised": 0.08, "off_release": [0, 0, 0.05]}
    tracker = advance(Tracker.start(1, 2), evidence(plan, **held), plan)
    assert tracker.stage == [0], "held, lifted and over, but never above nor reached"
    tracker.stage[:] = 4
    for want in (5, 6, 6):
        tracker = advance(tracker, evidence(plan, **held), plan)
        assert tracker.stage == [want]
    for want in (6, 6, 0):  # out of the fingers for three steps
        tracker = advance(tracker, evidence(plan), plan)
        assert tracker.stage == [want]


def test_the_true_stage_falls_back_to_the_pick_that_is_undone():
    plan = make_arm("stack").plan
    tracker = Tracker.start(1, 2)
    tracker.stage[:] = 13
    tracker.straying[:] = 0
    held = np.array([[False, True]])
    for k in range(1, STRAY_STEPS + 1):  # the green cube has left the blue one
        before = tracker.stage.copy()
        tracker = advance(tracker, evidence(plan, held=held, touched=held), plan)
        assert tracker.stage == ([0] if k == STRAY_STEPS else before)


def test_advance_leaves_its_argument_alone():
    plan = make_arm("stack").plan
    tracker = Tracker.start(1, 2)
    advance(tracker, evidence(plan, reach=[0, 0, 0.1]), plan)
    fresh = Tracker.start(1, 2)
    for field in dataclasses.fields(tracker):
        np.testing.assert_array_equal(getattr(tracker, field.name), getattr(fresh, field.name))


def test_a_pick_must_name_pieces():
    pieces = make_arm("stack").pieces
    with pytest.raises(ValueError, match="a pick names 'grey cube'"):
        Plan(pieces, (Pick("grey cube", ("blue cube",), Place((0, 0, 0))),))


# success and expert


@pytest.mark.parametrize("name", ["stack", "jujube-cup", "stack-cue"])
def test_the_expert_succeeds(name):
    task = make_arm(name)
    ends = {}
    batch = ArmBatch(task, 3, seed=5)
    batch.reset()
    expert = Expert(batch)
    for _ in range(task.config.max_steps):
        step = batch.step(expert.act())
        for i in np.flatnonzero(step.terminated | step.truncated):
            ends.setdefault(int(i), {k: step.terms[k][i] for k in ("success", "stage")})
        if len(ends) == 3:
            break
    assert all(end == {"success": True, "stage": task.plan.stages} for end in ends.values())


@pytest.mark.slow
def test_the_expert_builds_a_small_bridge():
    task = make_arm("bridge-lite")
    _, steps = run(task, 2, steps=260)
    assert np.any([s.terms["success"] for s in steps], axis=0).all()


def test_strict_success_is_not_the_weak_one():
    """The tower in the wrong order, held above, or still in the hand: weak says yes to all."""
    task = make_arm("stack")
    batch = ArmBatch(task, 1, seed=0)
    batch.reset()
    s = batch.state
    s.pos[0] = [[0.3, 0, 0.018], [0.3, 0.0, 0.09], [0.3, 0.0, 0.054]]  # red under green
    s.up[:], s.touch[:] = 1.0, False
    assert task.weak(s).all()
    tracker = batch.tracker
    for _ in range(30):
        tracker = advance(tracker, task.evidence(s), task.plan)
    assert tracker.stage == [0] and not task.standing(s, tracker).any()
    s.pos[0, 1:] = [[0.3, 0, 0.054], [0.3, 0, 0.09]]  # right, but held
    for _ in range(3):
        tracker = advance(tracker, task.evidence(s), task.plan)
    tracker.stage[:] = 18
    assert task.standing(s, tracker).all()
    s.touch[0, 2, 0] = True
    assert not task.standing(s, tracker).any()
    s.touch[:], s.speed[0, 2] = False, 0.1
    assert not task.standing(s, tracker).any()


def test_the_weak_predicate_of_the_cup_never_asks_for_the_jujube():
    task = make_arm("jujube-cup")
    batch = ArmBatch(task, 1)
    batch.reset()
    s = batch.state
    s.pos[0, 1] = s.pos[0, 2] + [0, 0, 0.035]  # an empty cup on the plate
    assert task.weak(s).all() and not task.standing(s, batch.tracker).any()
    e = task.evidence(s)
    tracker = advance(batch.tracker, e, task.plan)
    assert tracker.placed[0].tolist() == [False, True]
    s.pos[0, 0] = s.pos[0, 1] + [0.01, 0, -0.0135]  # and one with the jujube in it
    assert advance(batch.tracker, task.evidence(s), task.plan).placed[0].all()


@pytest.mark.parametrize("kind", NEAR_MISSES)
def test_a_static_near_miss_never_finishes_its_stage(kind):
    task = make_arm("stack", max_steps=70)
    batch = ArmBatch(task, 2, seed=1)
    batch.reset()
    expert = Expert(batch, near_miss=kind)
    stages = np.array([batch.step(expert.act()).terms["stage"] for _ in range(60)])
    assert stages.max() == (1 if kind == "almost" else 0)
    assert len(np.unique(stages[-20:])) == 1


def test_a_clumsy_expert_fails_sometimes_and_its_errors_follow_their_seed():
    task = make_arm("stack", max_steps=60)
    batch = ArmBatch(task, 4)
    batch.reset()
    one, two, other = (Expert(batch, CLUMSY, seed) for seed in (0, 0, 1))
    assert np.array_equal(one.act(), two.act()) and not np.array_equal(one.act(), other.act())


def test_the_cue_is_seen_at_first_and_the_wrong_place_ends_the_episode():
    task = make_arm("stack-cue")
    batch = ArmBatch(task, 8, seed=0)
    obs = batch.reset()
    cue = obs[:, task.base_dim - 2 : task.base_dim]
    assert np.array_equal(cue.argmax(axis=1), batch.state.cue) and set(batch.state.cue) == {0, 1}
    for _ in range(task.config.cue_steps):
        obs = batch.step(np.zeros((8, 5), np.float32)).obs
    assert not obs[:, task.base_dim - 2 : task.base_dim].any()
    # nothing else in the observation tells: the same episode with the other cue looks the same
    before = batch.observe()
    batch.state.cue = 1 - batch.state.cue
    assert np.array_equal(before, batch.observe())
    expert = Expert(batch)
    ends = np.zeros(8, int)
    for _ in range(80):
        now = ends == 0
        real = batch.state.cue.copy()
        action = expert.act()
        batch.state.cue = np.where(now, 1 - real, real)  # judged by the cue that was meant
        step = batch.step(action)
        batch.state.cue = np.where(step.terminated | ~now, batch.state.cue, real)
        ends[now & step.terms["wrong"]] = -1
        assert not (now & step.terms["success"]).any()
    assert (ends == -1).all()


# the batch


def test_a_batch_of_one_is_row_0_of_a_batch_on_any_number_of_threads():
    actions = np.random.default_rng(0).uniform(-1, 1, (25, 3, 5)).astype(np.float32)
    task = make_arm("stack", max_steps=20)
    one = ArmBatch(task, 1, seed=3, randomization=ARM_TRAINING)
    many = ArmBatch(task, 3, seed=3, randomization=ARM_TRAINING, threads=2)
    last = ArmBatch(task, 1, seed=3, randomization=ARM_TRAINING, first_row=2)
    obs = many.reset()
    assert np.array_equal(one.reset(), obs[:1]) and np.array_equal(last.reset(), obs[2:])
    for action in actions:
        whole = many.step(action)
        for batch, rows in ((one, slice(0, 1)), (last, slice(2, 3))):
            step = batch.step(action[rows])
            for name in ("obs", "reward", "final_obs", "explore", "truncated"):
                assert np.array_equal(getattr(step, name), getattr(whole, name)[rows]), name


def test_a_saved_state_goes_on_bit_for_bit():
    task = make_arm("jujube-cup", max_steps=40)
    first = ArmBatch(task, 2, seed=1, randomization=ARM_TRAINING)
    first.reset()
    expert = Expert(first)
    for _ in range(30):
        first.step(expert.act())
    state = first.state_dict()
    actions = np.random.default_rng(0).uniform(-1, 1, (15, 2, 5)).astype(np.float32)
    went_on = [first.step(a) for a in actions]
    second = ArmBatch(task, 2, seed=1, randomization=ARM_TRAINING)
    second.load_state_dict(state)
    for a, b in zip(went_on, (second.step(a) for a in actions), strict=True):
        assert np.array_equal(a.obs, b.obs) and np.array_equal(a.terms["stage"], b.terms["stage"])
    with pytest.raises(ValueError, match="seed must be 2 as in this env, got 1"):
        ArmBatch(task, 2, seed=2).load_state_dict(state)


def test_observations_follow_a_believed_stage():
    task = make_arm("stack")
    batch = ArmBatch(task, 2)
    obs = batch.reset()
    believed = batch.observe(np.array([9, 18]))
    assert np.array_equal(obs[:, : task.base_dim], believed[:, : task.base_dim])
    assert believed[:, task.base_dim :][:, 10].tolist() == [0.0, 1.0]  # all done
    hidden = ArmBatch(make_arm("stack", show_stage=False), 2)
    assert hidden.reset().shape == (2, task.base_dim)


def test_explore_is_the_pose_of_the_stage_object_in_the_gripper():
    batch = ArmBatch(make_arm("stack"), 1)
    batch.reset()
    away = batch.state.pos[0, 1] - batch.state.grip[0]
    explore = batch.explore()[0]
    assert np.linalg.norm(explore[:3]) == pytest.approx(np.linalg.norm(away), abs=1e-5)
    assert explore[2] == pytest.approx(-away[2], abs=1e-3)  # the tool points down
    red = batch.relative_pose(np.array([9]))[0]
    away = batch.state.pos[0, 2] - batch.state.grip[0]
    assert np.linalg.norm(red[:3]) == pytest.approx(np.linalg.norm(away), abs=1e-5)


def test_actions_are_joint_targets_within_their_speed():
    batch = ArmBatch(make_arm("stack"), 2)
    batch.reset()
    before = batch.state.asked.copy()
    for _ in range(10):
        batch.step(np.float32([[1, 1, -1, 1, -1], [-1, -1, 1, -1, 1]]))
        assert (np.abs(batch.state.asked - before) <= 0.05 * 3.0 + 1e-9).all()
        before = batch.state.asked.copy()
    assert batch.state.at_opening.tolist() == [0.0, 1.0]
    lag = np.linalg.norm(batch.state.grip - batch.state.at, axis=1)
    assert lag.max() < 0.1  # on a leash, whatever is asked of it
    for _ in range(12):
        batch.step(np.zeros((2, 5), np.float32))
    np.testing.assert_allclose(batch.state.grip, batch.state.at, atol=0.005)


def test_late_actions_and_friction_come_from_the_ranges():
    late = ArmRandomization(action_delay_s=(0.1, 0.1), friction=(0.5, 0.5))
    batch = ArmBatch(make_arm("stack"), 1, randomization=late)
    batch.reset()
    assert batch.episode_parameters(0)["friction"] == 0.5
    at = batch.state.at.copy()
    moved = []
    for _ in range(4):
        batch.step(np.float32([[1, 0, 0, 0, 0]]))
        moved.append(float(batch.state.at[0, 0] - at[0, 0]))
    np.testing.assert_allclose(moved, [0, 0, 0.02, 0.04], atol=1e-9)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="num_envs must be >= 1"):
        ArmBatch(make_arm("stack"), 0)
    with pytest.raises(ValueError, match="action must be"):
        ArmBatch(make_arm("stack"), 2).step(np.zeros((2, 4), np.float32))
    with pytest.raises(ValueError, match="task must be one of"):
        make_arm("tower")
    with pytest.raises(ValueError, match="cubes must be 2, 4 or 6, got 3"):
        make_arm("bridge", cubes=3)
    with pytest.raises(ValueError, match="near_miss must be one of"):
        Expert(ArmBatch(make_arm("stack"), 1), near_miss="far")
    with pytest.raises(ValueError, match="friction must be"):
        ArmRandomization(friction=(1.0, 0.5))
    with pytest.raises(ValueError, match="max_steps"):
        make_arm("stack", max_steps=0)


# images and episodes


def test_images_show_both_views_and_follow_the_look():
    batch = ArmBatch(make_arm("stack"), 2, randomization=ARM_TRAINING)
    batch.reset()
    view = ArmView(batch.task, 64)
    images = view.images(batch)
    assert images.shape == (2, 2, 64, 64, 3) and images.dtype == np.uint8
    assert np.array_equal(images, view.images(batch))
    assert images.std(axis=(2, 3, 4)).min() > 5 and not np.array_equal(images[0], images[1])
    with pytest.raises(ValueError, match="cameras must be of"):
        view.draw(batch.state, 0, batch.looks[0], ("top",))
    view.close()


def test_the_lamp_of_the_cue_is_lit_in_the_first_steps_only():
    task = make_arm("stack-cue")
    batch = ArmBatch(task, 1, seed=2)
    batch.reset()
    view = ArmView(task, 96)
    lit = view.images(batch)
    batch.state.cue = 1 - batch.state.cue
    other = view.images(batch)
    batch.state.t[:] = task.config.cue_steps
    dark = view.images(batch)
    batch.state.cue = 1 - batch.state.cue
    assert not np.array_equal(lit[0, 0], other[0, 0]) and not np.array_equal(lit, dark)
    assert np.array_equal(dark, view.images(batch))
    view.close()


def test_demonstrations_are_episodes_with_their_truth():
    task = make_arm("stack-cue")
    first, second = demonstrations(task, 2, seed=4, side=48)
    for episode in (first, second):
        t = len(episode)
        assert episode.success and episode.final_stage == 9
        assert episode.images.shape == (t, 2, 48, 48, 3)
        assert episode.obs.shape == (t, task.obs_dim) and episode.action.shape == (t, 5)
        assert episode.events.shape == (t, 9) and episode.object_pose.shape == (t, 3, 7)
        assert set(np.diff(episode.stage)) <= {0, 1}
        assert np.abs(np.diff(episode.joint_target, axis=0)).max() <= 0.15 + 1e-6
    (again,) = demonstrations(task, 1, seed=4)
    assert again.images is None and np.array_equal(again.obs, first.obs)


def test_every_task_has_finite_observations_and_goals():
    for name in ARM_TASKS:
        task = make_arm(name, max_steps=3)
        batch = ArmBatch(task, 2, randomization=ARM_TRAINING)
        obs = batch.reset()
        assert obs.shape == (2, task.obs_dim) and np.isfinite(obs).all()
        step = batch.step(np.zeros((2, 5), np.float32))
        assert np.isfinite(step.obs).all() and np.isfinite(batch.state.goal).all()
        high = batch.state.goal[..., 2]
        assert (high > 0).all() and (high < 0.15).all()
