"""The episode store: what is written comes back, in our reader and in zarr-python's."""

import json
import shutil

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from episodes import (
    DamagedEpisodeError,
    EpisodeReader,
    EpisodeTooLargeError,
    EpisodeWriter,
    RefusedEpisodeError,
    verify,
)
from episodes.format import DTYPES, ArrayMeta, array_json


def smooth(height=48, width=64, shift=0):
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([(x * 2 + shift) % 256, (y * 3) % 256, (x + y) % 256], -1).astype(np.uint8)


def record(store, steps=12, **options):
    with EpisodeWriter(store, **options) as writer:
        with writer.episode("agv", "go to the dock", {"seed": 7}, rate_hz=20) as episode:
            for i in range(steps):
                step = {
                    "obs": np.full(4, i, np.float32),
                    "action": np.array([i, -i], np.float32),
                    "reward": float(i),
                    "terms/goal": np.float32(i / 2),
                    "terminated": i == steps - 1,
                }
                frames = {"front": smooth(shift=i)}
                if i % 3 == 0:  # slower than the control rate
                    frames["depth"] = np.full((6, 5), 1000 * i, np.uint16)
                episode.append(step, frames)
            return episode.finish({"success": True})


def test_what_is_written_comes_back(tmp_path):
    id = record(tmp_path)
    reader = EpisodeReader(tmp_path)
    assert reader.ids() == [id]
    episode = reader.open(id)
    assert len(episode) == 12
    assert episode.attrs["task"] == "agv"
    assert episode.attrs["instruction"] == "go to the dock"
    assert episode.attrs["outcome"] == {"success": True}
    assert episode.attrs["attrs"] == {"seed": 7}
    assert episode.arrays["obs"].dtype == np.float32
    assert episode.arrays["obs"].tolist() == [[i] * 4 for i in range(12)]
    assert episode.arrays["terms/goal"].tolist() == [i / 2 for i in range(12)]
    assert episode.arrays["terminated"].tolist() == [False] * 11 + [True]
    episode.arrays["obs"][0] = 5  # ours to change
    assert verify(tmp_path) == []


def test_jpeg_is_close_and_png_is_exact(tmp_path):
    jpeg = record(tmp_path / "a")
    png = record(tmp_path / "b", lossless=True)
    close = EpisodeReader(tmp_path / "a").open(jpeg).frame("front", 5)
    exact = EpisodeReader(tmp_path / "b").open(png).frame("front", 5)
    assert (exact == smooth(shift=5)).all()
    assert 0 < np.abs(close.astype(int) - smooth(shift=5)).mean() < 6


def test_a_slow_camera_holds_its_last_frame(tmp_path):
    episode = EpisodeReader(tmp_path).open(record(tmp_path))
    depth = episode.frames("depth")
    assert depth.shape == (12, 6, 5) and depth.dtype == np.uint16
    assert depth[:, 0, 0].tolist() == [1000 * (i - i % 3) for i in range(12)]
    assert (episode.frames("depth", 4, 6) == depth[4:6]).all()


def test_zarr_python_reads_our_episodes(tmp_path):
    id = record(tmp_path)
    group = zarr.open_group(tmp_path / id, mode="r")
    ours = EpisodeReader(tmp_path).open(id)
    for name, values in ours.arrays.items():
        assert np.array_equal(group[name][:], values)
    assert group.attrs["task"] == "agv"
    start, end = group["frames/front/offsets"][2:4]
    assert bytes(group["frames/front/data"][start:end][:2]) == b"\xff\xd8"


@pytest.mark.parametrize("dtype", DTYPES)
def test_our_metadata_is_what_zarr_python_writes(tmp_path, dtype):
    shape = (3, 2)
    zarr.create_array(
        tmp_path / "a",
        shape=shape,
        chunks=shape,
        dtype=dtype,
        compressors=zarr.codecs.ZstdCodec(level=1, checksum=True),
    )
    theirs = json.loads((tmp_path / "a/zarr.json").read_text())
    assert json.loads(array_json(ArrayMeta(shape, dtype))) == theirs


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(1, 4).flatmap(
        lambda steps: hnp.arrays(
            st.sampled_from([np.dtype(d) for d in DTYPES]),
            st.lists(st.integers(1, 5), max_size=3).map(lambda tail: (steps, *tail)),
        )
    )
)
def test_every_array_comes_back_bit_for_bit(tmp_path, array):
    with EpisodeWriter(tmp_path) as writer, writer.episode("any") as episode:
        for row in array:
            episode.append({"x": row})
        id = episode.finish("done")
    back = EpisodeReader(tmp_path).open(id).arrays["x"]
    assert back.shape == array.shape and back.dtype == array.dtype
    assert back.tobytes() == array.tobytes()
    shutil.rmtree(tmp_path / id)


def test_an_episode_that_was_not_finished_leaves_nothing(tmp_path):
    with EpisodeWriter(tmp_path) as writer:
        with pytest.raises(RuntimeError, match="crash"), writer.episode("agv") as episode:
            episode.append({"x": 1.0})
            raise RuntimeError("crash")
        with pytest.raises(ValueError, match="over"):
            episode.finish("late")
    assert EpisodeReader(tmp_path).ids() == []
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]


def test_a_step_unlike_the_first_is_refused_and_not_kept(tmp_path):
    with EpisodeWriter(tmp_path) as writer, writer.episode("agv") as episode:
        episode.append({"x": np.zeros(2)}, {"front": smooth()})
        with pytest.raises(ValueError, match=r"x must be \(2,\) float64, got \(3,\)"):
            episode.append({"x": np.zeros(3)}, {"front": smooth()})
        with pytest.raises(ValueError, match=r"step must hold \['x'\], got \['y'\]"):
            episode.append({"y": np.zeros(2)})
        with pytest.raises(ValueError, match="frame of front must be"):
            episode.append({"x": np.zeros(2)}, {"front": smooth(8, 8)})
        with pytest.raises(ValueError, match="camera must be one of"):
            episode.append({"x": np.zeros(2)}, {"rear": smooth()})
        assert len(episode) == 1
        id = episode.finish("done")
    assert len(EpisodeReader(tmp_path).open(id)) == 1


@pytest.mark.parametrize(
    "step, frames, says",
    [
        ({"x": np.array([None])}, {}, "with one of"),
        ({"x": "text"}, {}, "with one of"),
        ({"x": np.zeros((0, 3))}, {}, "non-empty"),
        ({"../x": 1.0}, {}, "name must match"),
        ({"frames/x": 1.0}, {}, "name must match"),
        ({"a": 1.0, "a/b": 1.0}, {}, "cannot hold others"),
        ({}, {}, "must hold something"),
        ({"x": 1.0}, {"a/b": smooth()}, "camera must match"),
        ({"x": 1.0}, {"front": smooth().astype(np.float32)}, "image must be"),
    ],
)
def test_what_cannot_be_stored_is_refused(tmp_path, step, frames, says):
    with EpisodeWriter(tmp_path) as writer, writer.episode("agv") as episode:
        with pytest.raises(ValueError, match=says):
            episode.append(step, frames)


@pytest.mark.parametrize("attrs", [{"x": float("nan")}, {"x": object()}, {"x": "y" * (2 << 20)}])
def test_attributes_must_be_json(tmp_path, attrs):
    with EpisodeWriter(tmp_path) as writer, pytest.raises(ValueError, match="attributes must be"):
        writer.episode("agv", attrs=attrs)


def test_an_empty_episode_is_refused(tmp_path):
    with EpisodeWriter(tmp_path) as writer, writer.episode("agv") as episode:
        with pytest.raises(ValueError, match="at least one step"):
            episode.finish("done")


def test_the_writer_refuses_what_the_reader_would_not_open(tmp_path):
    with EpisodeWriter(tmp_path, byte_budget=1000) as writer, writer.episode("agv") as episode:
        episode.append({"x": np.zeros(100)})
        with pytest.raises(EpisodeTooLargeError, match="under 1000 bytes"):
            episode.append({"x": np.zeros(100)})
        id = episode.finish("done")
    assert len(EpisodeReader(tmp_path).open(id)) == 1
    with pytest.raises(RefusedEpisodeError, match="fit 100 bytes"):
        EpisodeReader(tmp_path, byte_budget=100).open(id)


def test_bad_requests_say_what_was_wanted(tmp_path):
    with pytest.raises(FileNotFoundError, match="store must be a folder"):
        EpisodeReader(tmp_path / "none")
    with pytest.raises(ValueError, match="jpeg_quality"):
        EpisodeWriter(tmp_path, jpeg_quality=0)
    id = record(tmp_path)
    reader = EpisodeReader(tmp_path)
    for missing in ("../etc", "nothing", id[:-1] + "9"):
        with pytest.raises(KeyError):
            reader.open(missing)
    episode = reader.open(id)
    with pytest.raises(IndexError, match=r"0\.\.11"):
        episode.frame("front", 12)
    with pytest.raises(ValueError, match="0 <= a < b"):
        episode.frames("front", 3, 3)
    with pytest.raises(KeyError):
        episode.frame("rear", 0)


def test_images_over_the_budget_are_not_decoded_together(tmp_path):
    id = record(tmp_path)
    episode = EpisodeReader(tmp_path, byte_budget=60_000).open(id)
    assert episode.frames("front", 0, 6).shape == (6, 48, 64, 3)
    with pytest.raises(ValueError, match="ask for fewer"):
        episode.frames("front")


def test_two_writers_keep_apart_and_the_dead_are_swept(tmp_path):
    first, second = EpisodeWriter(tmp_path), EpisodeWriter(tmp_path)
    alive = tmp_path / f".tmp-{first.identity}-000009"
    dead = tmp_path / ".tmp-0badf00d-000001"
    alive.mkdir()
    (dead / "obs").mkdir(parents=True)
    (tmp_path / ".writer-0badf00d.lock").touch()
    with EpisodeWriter(tmp_path):
        assert alive.exists() and not dead.exists()
        assert not (tmp_path / ".writer-0badf00d.lock").exists()
    ids = []
    for n in range(4):
        with (first, second)[n % 2].episode("agv") as episode:
            episode.append({"x": n})
            ids.append(episode.finish("done"))
    assert sorted(ids) == EpisodeReader(tmp_path).ids() and len(set(ids)) == 4
    first.close()
    second.close()
    with pytest.raises(ValueError, match="closed"):
        first.episode("agv")
    EpisodeWriter(tmp_path).close()
    assert not alive.exists()


def test_damage_is_named(tmp_path):
    id = record(tmp_path)
    chunk = tmp_path / id / "terms/goal/c/0"
    raw = bytearray(chunk.read_bytes())
    raw[len(raw) // 2] ^= 4
    chunk.write_bytes(raw)
    (tmp_path / id / "obs/c/0/0").unlink()
    with pytest.raises(DamagedEpisodeError, match="terms/goal") as caught:
        EpisodeReader(tmp_path).open(id)
    found = {(d.episode, d.array, d.file, d.problem) for d in caught.value.damage}
    assert found == {
        (id, "terms/goal", "terms/goal/c/0", "its sha256 does not match"),
        (id, "obs", "obs/c/0/0", "missing"),
    }
    assert set(verify(tmp_path)) == set(caught.value.damage)


def test_a_damaged_image_file_hurts_the_images_alone(tmp_path):
    id = record(tmp_path)
    blob = tmp_path / id / "frames/front/data/c/0"
    blob.write_bytes(blob.read_bytes()[:-1])
    episode = EpisodeReader(tmp_path).open(id)
    assert episode.frame("depth", 0).shape == (6, 5)
    with pytest.raises(DamagedEpisodeError, match="is shorter"):
        episode.frame("front", 0)
    assert [d.array for d in verify(tmp_path)] == ["frames/front/data"]


def test_a_failed_finish_may_be_tried_again(tmp_path, monkeypatch):
    with EpisodeWriter(tmp_path) as writer, writer.episode("agv") as episode:
        episode.append({"x": 1.0})
        with monkeypatch.context() as patch:
            patch.setattr("os.rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                episode.finish("done")
        assert list(tmp_path.glob(".tmp-*")) == [] and EpisodeReader(tmp_path).ids() == []
        id = episode.finish("done")
    assert EpisodeReader(tmp_path).ids() == [id]
