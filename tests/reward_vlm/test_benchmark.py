import json

import numpy as np
import pytest

from episodes import encode_mp4
from reward_vlm.benchmark import read_split
from reward_vlm.model import Sampling


@pytest.fixture
def published(tmp_path):
    root = tmp_path / "test"
    (root / "bridge").mkdir(parents=True)
    frames = np.zeros((20, 64, 80, 3), np.uint8)
    frames[10:] = 200
    encode_mp4(frames, 10, root / "bridge" / "0.mp4")
    encode_mp4(frames[:5], 10, root / "1.mp4")
    rows = [
        {"video": "bridge/0.mp4", "task": "open the drawer", "reward": 3},
        {"file_name": "1.mp4", "task": "close it", "reward": 5.0, "subset": "robo_arena"},
    ]
    (root / "metadata.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path


def test_the_published_layout_is_read_as_it_is(published):
    first, second = read_split(published)
    assert (first.task, first.label, first.subset) == ("open the drawer", 3, "bridge")
    assert (second.label, second.subset) == (5, "robo_arena")
    clip = first.clip(Sampling(count=4))
    assert clip.fps == pytest.approx(10) and clip.frame_indices.tolist() == [0, 6, 13, 19]
    seen = clip.views["video"]
    assert seen.shape == (4, 64, 80, 3) and seen[0].mean() < 20 and seen[-1].mean() > 180


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("{}", "video, task and reward"),
        ("no json", "video, task and reward"),
        ('{"video": "1.mp4", "task": "x", "reward": 7}', "1..5"),
        ('{"video": "1.mp4", "task": " ", "reward": 1}', "1..5"),
        ('{"video": "../../x.mp4", "task": "x", "reward": 1}', "outside"),
    ],
)
def test_a_line_that_is_no_item_is_named(published, line, wanted):
    (published / "test" / "metadata.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=wanted) as caught:
        list(read_split(published))
    assert "metadata.jsonl:1" in str(caught.value)


def test_a_video_that_is_missing_is_named(published):
    line = json.dumps({"video": "gone.mp4", "task": "x", "reward": 1})
    (published / "test" / "metadata.jsonl").write_text(line)
    with pytest.raises(FileNotFoundError, match="gone.mp4"):
        list(read_split(published))
