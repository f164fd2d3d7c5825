"""Labelled beams, and what is made of them."""

import numpy as np
import pytest

from toponav.graph import TopologicalMap
from toponav.perception import Frame, Perception
from toponav.semantics import RayPerception, SemanticsConfig, ThingMap

NAMES = ("wall", "sink", "plant")
CLASSES = ("sink", "plant", "table")
ANGLES = np.linspace(-np.pi, np.pi, 8, endpoint=False)


def frame(labels, ranges=2.0, pose=(0.0, 0.0, 0.0)):
    spread = np.broadcast_to(np.asarray(ranges, float), (8,))
    return Frame(np.array(pose), ranges=spread, angles=ANGLES, range_max=6.0,
                 labels=np.array(labels, np.int8))  # fmt: skip


def eyes():
    return RayPerception((*NAMES, "table"), CLASSES)


def test_neighbouring_beams_of_a_class_are_one_thing_also_across_the_seam():
    tier: Perception = eyes()
    found = tier.detect(frame([2, 0, 0, 1, 1, 0, -1, 2]))
    assert found.kind == ("plant", "sink") or found.kind == ("sink", "plant")
    sink = found.of("sink")[0]
    # beams at -45 and 0 degrees, 2 m away
    assert found.pose_w[sink, :2] == pytest.approx([1 + np.sqrt(0.5), -np.sqrt(0.5)], abs=1e-6)
    plant = found.of("plant")[0]  # at 135 and 180 degrees
    assert found.pose_w[plant, :2] == pytest.approx([-1 - np.sqrt(0.5), np.sqrt(0.5)], abs=1e-6)
    assert found.scores.sum(axis=1) == pytest.approx([1, 1])


def test_a_jump_in_range_parts_two_things_and_what_is_out_of_range_is_none():
    ranges = [9, 9, 9, 2, 4, 9, 9, 9]
    found = eyes().detect(frame([1, 0, 0, 1, 1, 0, 0, 0], ranges))
    assert found.kind == ("sink", "sink")


def test_detections_are_in_the_map_frame():
    found = eyes().detect(frame([0, 0, 0, 0, 1, 0, 0, 0], pose=(1.0, 2.0, np.pi / 2)))
    assert found.pose_w[0] == pytest.approx([1.0, 4.0, np.pi / 2])


def test_two_right_labels_outweigh_a_wrong_one_by_bayes_rule():
    things, tier = ThingMap(CLASSES, SemanticsConfig(right=0.8)), eyes()
    tier.config = things.config
    for k, label in enumerate((1, 2, 1)):
        pose = (0.4 * k, 0.0, 0.0)
        found = tier.detect(frame([0, 0, 0, 0, label, 0, 0, 0], 2.0 - 0.4 * k, pose))
        things.update(found, pose[:2], float(k))
    (thing,) = things.things
    like = np.array([0.8 * 0.1 * 0.8, 0.1 * 0.8 * 0.1, 0.1 * 0.1 * 0.1])
    assert thing.p == pytest.approx(like / like.sum())
    assert thing.count == 3 and thing.xy == pytest.approx([2.0, 0.0], abs=1e-6)
    assert thing.cov[0, 0] < found.cov[0, 0, 0]


def test_looks_from_one_place_are_believed_once():
    things, tier = ThingMap(CLASSES), eyes()
    for k in range(20):
        things.update(tier.detect(frame([0, 0, 0, 0, 1, 0, 0, 0])), (0.0, 0.0), float(k))
    assert things.things[0].count == 1 and things.things[0].p[0] == pytest.approx(0.85)
    assert things.things[0].seen_s == 19.0


def test_things_apart_stay_apart_and_belong_to_the_nearest_node():
    things, tier = ThingMap(CLASSES), eyes()
    things.update(tier.detect(frame([0, 0, 1, 0, 1, 0, 0, 0])), (0.0, 0.0), 0.0)
    assert len(things.things) == 2
    graph = TopologicalMap()
    first = graph.observe((0, -3, 0), np.eye(3) * 1e-4, 0.0, [])
    second = graph.observe((3, 0, 0), np.eye(3) * 1e-4, 1.0, [])
    things.attach(graph)
    assert things.at(second)[0].xy == pytest.approx([2, 0], abs=1e-6)
    assert things.at(first)[0].xy == pytest.approx([0, -2], abs=1e-6)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="not so table"):
        RayPerception(NAMES, CLASSES)
    with pytest.raises(ValueError, match="must have ranges, angles and labels"):
        eyes().detect(Frame(np.zeros(3)))
    with pytest.raises(ValueError, match=r"labels must be in \[-1, 4\)"):
        eyes().detect(frame([9, 0, 0, 0, 0, 0, 0, 0]))
    with pytest.raises(ValueError, match=r"right must be in \(0, 1\)"):
        SemanticsConfig(right=1.0)
    with pytest.raises(ValueError, match="prior must be"):
        ThingMap(CLASSES, prior=[1.0, 0.0, 0.0])
