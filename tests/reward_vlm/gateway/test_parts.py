"""Keys, cache keys and log lines, without a service."""

import json
import logging
import sys

import numpy as np
import pytest

from incognita.bench.reward_stand import BrightnessModel
from reward_vlm.gateway.answers import clip_key
from reward_vlm.gateway.auth import Keys, add_key
from reward_vlm.gateway.logs import JsonLines
from reward_vlm.gateway.settings import Settings
from reward_vlm.model import Clip


def test_a_key_file_holds_hashes_only_and_is_ours_alone(tmp_path):
    file = tmp_path / "deep" / "keys.json"
    first, second = add_key(file, "arm-1"), add_key(file, "arm-2")
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text()
    assert first not in text and second not in text and len(first) > 40
    keys = Keys.load(file)
    assert keys.name_of(f"Bearer {first}") == "arm-1"
    assert keys.name_of(f"bearer {second}") == "arm-2"
    for bad in (None, "", first, f"Basic {first}", f"Bearer {first}x", "Bearer", "Bearer \u2603"):
        assert keys.name_of(bad) is None
    with pytest.raises(ValueError, match="new"):
        add_key(file, "arm-1")
    with pytest.raises(ValueError, match="1 to 64"):
        add_key(file, "arm 3")


def test_a_key_file_that_others_can_read_is_refused(tmp_path):
    file = tmp_path / "keys.json"
    add_key(file, "a")
    file.chmod(0o640)
    with pytest.raises(ValueError, match="0600"):
        Keys.load(file)
    file.chmod(0o600)
    file.write_text('{"keys": [{"name": "a", "sha256": "short"}]}')
    with pytest.raises(ValueError, match="no key file"):
        Keys.load(file)


def test_clips_that_differ_in_anything_have_their_own_cache_key():
    rng = np.random.default_rng(0)
    models = [BrightnessModel().info, BrightnessModel(side=32).info]
    seen = {}
    for _ in range(1000):
        count, height, width = (int(n) for n in rng.choice([1, 2, 4, 8], 3))
        frames = np.zeros((count, height, width, 3), np.uint8)  # all the same bytes
        names = ["front", "side", "frontside"][: rng.integers(1, 4)]
        clip = Clip(
            str(rng.choice(["go", "g", "o", "go "])) + "!",
            {name: frames for name in names},
            float(rng.choice([1, 2, 10])),
            np.arange(count) * int(rng.integers(1, 3)),
        )
        info = models[int(rng.integers(2))]
        what = (clip.task, tuple(names), frames.shape, clip.fps, tuple(clip.frame_indices))
        assert seen.setdefault(clip_key(clip, info), (what, info)) == (what, info)
    assert len(seen) == len({str(what) for what in seen.values()}) > 500


def test_a_transposed_clip_is_another_clip():
    info = BrightnessModel().info
    frames = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
    turned = np.ascontiguousarray(frames.transpose(0, 2, 1, 3))
    assert clip_key(Clip("go", {"f": frames}, 1), info) != clip_key(
        Clip("go", {"f": turned}, 1), info
    )


def test_a_log_line_is_json_without_the_text_of_an_error():
    logger = logging.getLogger("lines")
    try:
        raise RuntimeError("task: open the safe")
    except RuntimeError:
        record = logger.makeRecord(
            "lines", logging.ERROR, __file__, 1, "failed", (), sys.exc_info(), extra={"id": "7"}
        )
    line = json.loads(JsonLines().format(record))
    assert line["text"] == "failed" and line["id"] == "7" and line["level"] == "error"
    assert line["error"].startswith("RuntimeError at test_parts.py:") and "safe" not in str(line)


def test_settings_are_checked(tmp_path):
    for bad in ({"queue": 0}, {"answer_s": float("nan")}, {"port": 70_000}, {"stream_frames": 1},
                {"drain_s": 2.5}):  # fmt: skip
        with pytest.raises(ValueError, match=next(iter(bad))):
            Settings(keys=tmp_path, **bad)
