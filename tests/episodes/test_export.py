"""Episodes as MP4 and as a LeRobot dataset, read back with other libraries."""

import io
import json

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from episodes import EpisodeWriter, encode_mp4, export_lerobot, export_mp4


def disc(i, size=64):
    y, x = np.mgrid[0:size, 0:size]
    inside = (x - 10 - 2 * i) ** 2 + (y - 32) ** 2 < 64
    return np.where(inside[..., None], [230, 60, 40], [30, 90, 200]).astype(np.uint8)


@pytest.fixture
def store(tmp_path):
    with EpisodeWriter(tmp_path / "store") as writer:
        for n, length in enumerate((10, 6)):
            with writer.episode("agv", f"task {n}", rate_hz=10) as episode:
                for i in range(length):
                    step = {
                        "obs": np.full(3, i, np.float32),
                        "action": np.zeros((2, 2), np.float32),
                        "reward": np.float32(i),
                        "terms/goal": np.float32(2 * i),
                        "terminated": i == length - 1,
                    }
                    episode.append(step, {"front": disc(i), "depth": np.ones((4, 4), np.uint16)})
                episode.finish({"success": True})
    return tmp_path / "store"


def decoded(file):
    with av.open(file) as video:
        stream = video.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(stream)]
        return stream.codec_context.name, stream.codec_context.pix_fmt, stream.average_rate, frames


def test_mp4_shows_what_was_recorded(store, tmp_path):
    from episodes import EpisodeReader

    id = EpisodeReader(store).ids()[0]
    assert export_mp4(store, id, tmp_path / "a.mp4") == 10
    codec, pixels, rate, frames = decoded(str(tmp_path / "a.mp4"))
    assert (codec, pixels, rate) == ("h264", "yuv420p", 10)
    assert len(frames) == 10
    for i, frame in enumerate(frames):
        assert np.abs(frame.astype(int) - disc(i)).mean() < 12
    assert [p.name for p in tmp_path.iterdir() if "tmp-" in p.name] == []
    with pytest.raises(ValueError, match=r"camera must be one of \['front'\], got 'depth'"):
        export_mp4(store, id, tmp_path / "b.mp4", "depth")


def test_odd_images_lose_one_row():
    file = io.BytesIO()
    assert encode_mp4([np.zeros((33, 47, 3), np.uint8)] * 3, 12.5, file) == 3
    _, _, rate, frames = decoded(io.BytesIO(file.getvalue()))
    assert float(rate) == 12.5 and frames[0].shape == (32, 46, 3)


@pytest.mark.parametrize(
    "frames, rate, says",
    [
        ([], 10, "at least one image"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)], 10, "got .*at 1"),
        ([np.zeros((8, 8), np.uint8)], 10, r"\(H, W, 3\)"),
        ([np.zeros((8, 8, 3), np.uint8)], float("nan"), "rate_hz"),
    ],
)
def test_bad_frames_are_named(frames, rate, says):
    with pytest.raises(ValueError, match=says):
        encode_mp4(frames, rate, io.BytesIO())


def test_lerobot_layout(store, tmp_path):
    root = tmp_path / "dataset"
    info = export_lerobot(store, root, robot_type="agv")
    assert info == json.loads((root / "meta/info.json").read_text())
    files = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    assert files == [
        "data/chunk-000/episode_000000.parquet",
        "data/chunk-000/episode_000001.parquet",
        "meta/episodes.jsonl",
        "meta/episodes_stats.jsonl",
        "meta/info.json",
        "meta/tasks.jsonl",
        "videos/chunk-000/observation.images.front/episode_000000.mp4",
        "videos/chunk-000/observation.images.front/episode_000001.mp4",
    ]
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (2, 16, 2)
    assert info["fps"] == 10 and info["codebase_version"] == "v2.1"
    # the paths of info.json lead to the files
    where = {"episode_chunk": 0, "episode_index": 1, "video_key": "observation.images.front"}
    assert (root / info["data_path"].format(**where)).is_file()
    assert (root / info["video_path"].format(**where)).is_file()

    table = pq.read_table(root / files[1])
    assert table.num_rows == 6
    columns = {name for name, f in info["features"].items() if f["dtype"] != "video"}
    assert set(table.column_names) == columns
    assert table["index"].to_pylist() == list(range(10, 16))
    assert table["episode_index"].to_pylist() == [1] * 6
    assert table["task_index"].to_pylist() == [1] * 6
    assert np.allclose(table["timestamp"].to_numpy(), np.arange(6) / 10)
    assert table["observation.state"].to_pylist()[4] == [4.0, 4.0, 4.0]
    assert len(table["action"].to_pylist()[0]) == 4 == info["features"]["action"]["shape"][0]
    assert table["terms.goal"].to_pylist() == [2.0 * i for i in range(6)]
    assert table["next.done"].to_pylist() == [False] * 5 + [True]

    def rows(name):
        return [json.loads(line) for line in (root / f"meta/{name}.jsonl").open()]

    assert rows("tasks")[1] == {"task_index": 1, "task": "task 1"}
    assert rows("episodes")[0] == {"episode_index": 0, "tasks": ["task 0"], "length": 10}
    stats = rows("episodes_stats")[0]["stats"]
    assert stats["observation.state"]["mean"] == [4.5] * 3
    assert stats["observation.state"]["max"] == [9.0] * 3
    assert stats["next.reward"]["count"] == [10]
    assert np.shape(stats["observation.images.front"]["mean"]) == (3, 1, 1)
    assert 0 < stats["observation.images.front"]["mean"][2][0][0] < 1


def test_lerobot_refuses_a_mixture_and_leaves_nothing(store, tmp_path):
    with EpisodeWriter(store) as writer, writer.episode("agv", rate_hz=10) as episode:
        episode.append({"obs": np.zeros(5, np.float32)})
        episode.finish("done")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match="same arrays, cameras and rate"):
        export_lerobot(store, tmp_path / "dataset")
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(FileExistsError):
        export_lerobot(store, tmp_path)
