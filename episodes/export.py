"""Episodes for others: MP4 to look at, LeRobot datasets to train on."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .reader import Episode, EpisodeReader

_CHUNK = 1000
_LEROBOT_NAMES = {
    "obs": "observation.state",
    "reward": "next.reward",
    "terminated": "next.done",
}


def encode_mp4(
    frames: Iterable[NDArray[np.uint8]],
    rate_hz: float,
    file: str | os.PathLike[str] | BinaryIO,
    *,
    crf: int = 23,
    keyframe_every: int = 50,
) -> int:
    """Encode RGB images as H.264 yuv420p, which every browser plays; returns their number.

    Args:
        frames: (H, W, 3) uint8 images of one size; an odd last row or column is dropped.
        rate_hz: images per second.
        file: path, or a binary file that can seek.
        crf: constant quality, 0 (lossless) to 51.
        keyframe_every: images between two that can be sought to.

    Raises:
        ValueError: no images, one of another size or type, or rate_hz not > 0.
        ImportError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError("MP4 export needs PyAV: pip install 'incognita[train]'") from error
    if not (np.isfinite(rate_hz) and rate_hz > 0):
        raise ValueError(f"rate_hz must be > 0, got {rate_hz}")
    count, shape = 0, None
    with av.open(file, "w", format="mp4") as out:
        stream: Any = out.add_stream("libx264", rate=Fraction(rate_hz).limit_denominator(1000))
        stream.pix_fmt = "yuv420p"
        stream.gop_size = keyframe_every
        stream.options = {"crf": str(crf), "preset": "veryfast", "threads": "1"}
        for image in frames:
            if shape is None:
                shape = image.shape
                if len(shape) != 3 or shape[2] != 3 or min(shape[:2]) < 2:
                    raise ValueError(f"frames must be (H, W, 3) of at least 2 x 2, got {shape}")
                stream.height, stream.width = shape[0] & ~1, shape[1] & ~1
            if image.shape != shape or image.dtype != np.uint8:
                raise ValueError(
                    f"frames must be {shape} uint8, got {image.shape} {image.dtype} at {count}"
                )
            even = np.ascontiguousarray(image[: stream.height, : stream.width])
            for packet in stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")):
                out.mux(packet)
            count += 1
        if count == 0:
            raise ValueError("frames must hold at least one image, got none")
        for packet in stream.encode():
            out.mux(packet)
    return count


def export_mp4(
    store: str | os.PathLike[str],
    id: str,
    path: str | os.PathLike[str],
    camera: str | None = None,
) -> int:
    """Write the RGB frames of one camera (default: the only one) as MP4; returns their number.

    Raises:
        ValueError: the episode has no such RGB camera, or several and none was named.
        EpisodeError, KeyError: as :meth:`EpisodeReader.open`.
    """
    episode = EpisodeReader(store).open(id)
    cameras = _rgb(episode)
    if camera is None and len(cameras) == 1:
        camera = cameras[0]
    if camera not in cameras:
        raise ValueError(f"camera must be one of {cameras}, got {camera!r}")
    data = io.BytesIO()
    count = encode_mp4(_images(episode, camera), episode.attrs["rate_hz"], data)
    target = Path(path)
    temp = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        temp.write_bytes(data.getvalue())
        os.replace(temp, target)
    finally:
        temp.unlink(missing_ok=True)
    return count


def export_lerobot(
    store: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    ids: Sequence[str] | None = None,
    robot_type: str = "unknown",
) -> dict[str, Any]:
    """Write episodes as a LeRobotDataset v2.1, which LeRobot's own script converts to v3.0.

    ``obs`` becomes ``observation.state``, ``reward`` ``next.reward``, ``terminated`` ``next.done``,
    RGB cameras ``observation.images.<camera>``; other names keep theirs with dots for slashes, and
    rows of more than one axis are flattened. Depth and label cameras stay behind.

    Args:
        store: the episode store.
        folder: dataset to make; must not exist.
        ids: episodes to take, in this order; all by default.
        robot_type: goes into the metadata.

    Returns:
        What was written to ``meta/info.json``.

    Raises:
        FileExistsError: folder exists.
        ValueError: no episodes, or they differ in arrays, cameras or rate.
        EpisodeError, KeyError: as :meth:`EpisodeReader.open`.
        ImportError: pyarrow or PyAV is not installed.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError("LeRobot export needs pyarrow: pip install 'incognita[train]'") from error
    target = Path(folder)
    if target.exists():
        raise FileExistsError(f"folder must not exist, got {target}")
    reader = EpisodeReader(store)
    ids = reader.ids() if ids is None else list(ids)
    if not ids:
        raise ValueError(f"ids must name at least one episode, {store} has none")
    temp = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        info = _write_lerobot(reader, temp, ids, robot_type)
        os.rename(temp, target)
    finally:
        shutil.rmtree(temp, ignore_errors=True)
    return info


def _write_lerobot(
    reader: EpisodeReader, root: Path, ids: Sequence[str], robot_type: str
) -> dict[str, Any]:
    features: dict[str, Any] = {}
    tasks: dict[str, int] = {}
    episodes: list[dict[str, Any]] = []
    stats: list[dict[str, Any]] = []
    rate = 0.0
    start = 0
    for index, id in enumerate(ids):
        episode = reader.open(id)
        columns = _columns(episode)
        length = len(episode)
        task = episode.attrs["instruction"] or episode.attrs["task"]
        columns |= {
            "timestamp": (np.arange(length) / episode.attrs["rate_hz"]).astype(np.float32),
            "frame_index": np.arange(length),
            "episode_index": np.full(length, index),
            "index": np.arange(start, start + length),
            "task_index": np.full(length, tasks.setdefault(task, len(tasks))),
        }
        found = _features(episode, columns)
        if index == 0:
            features, rate = found, episode.attrs["rate_hz"]
        elif found != features or episode.attrs["rate_hz"] != rate:
            raise ValueError(f"episodes must hold the same arrays, cameras and rate, {id} does not")
        chunk = f"chunk-{index // _CHUNK:03d}"
        name = f"episode_{index:06d}"
        _write_parquet(columns, root / "data" / chunk / f"{name}.parquet")
        entry = {key: _stats(values) for key, values in columns.items()}
        for camera in _rgb(episode):
            key = f"observation.images.{camera}"
            video = root / "videos" / chunk / key / f"{name}.mp4"
            video.parent.mkdir(parents=True, exist_ok=True)
            encode_mp4(_images(episode, camera), rate, video, keyframe_every=2)
            entry[key] = _image_stats(episode, camera)
        episodes.append({"episode_index": index, "tasks": [task], "length": length})
        stats.append({"episode_index": index, "stats": entry})
        start += length
    cameras = sum(feature["dtype"] == "video" for feature in features.values())
    info = {
        "codebase_version": "v2.1",
        "robot_type": robot_type,
        "total_episodes": len(ids),
        "total_frames": start,
        "total_tasks": len(tasks),
        "total_videos": len(ids) * cameras,
        "total_chunks": -(-len(ids) // _CHUNK),
        "chunks_size": _CHUNK,
        "fps": int(rate) if rate == int(rate) else rate,
        "splits": {"train": f"0:{len(ids)}"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
        if cameras
        else None,
        "features": features,
    }
    meta = root / "meta"
    meta.mkdir()
    (meta / "info.json").write_text(json.dumps(info, indent=4))
    lines = [{"task_index": number, "task": task} for task, number in tasks.items()]
    for file, rows in [("tasks", lines), ("episodes", episodes), ("episodes_stats", stats)]:
        (meta / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return info


def _rgb(episode: Episode) -> list[str]:
    return sorted(name for name, spec in episode.cameras.items() if len(spec.shape) == 3)


def _images(episode: Episode, camera: str) -> Iterator[NDArray[np.uint8]]:
    return (episode.frame(camera, i) for i in range(len(episode)))


def _columns(episode: Episode) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {}
    for name, values in sorted(episode.arrays.items()):
        key = _LEROBOT_NAMES.get(name, re.sub("/", ".", name))
        columns[key] = values.reshape(len(values), -1) if values.ndim > 1 else values
    return columns


def _features(episode: Episode, columns: dict[str, NDArray[Any]]) -> dict[str, Any]:
    features: dict[str, Any] = {
        key: {"dtype": values.dtype.name, "shape": [*values.shape[1:]] or [1], "names": None}
        for key, values in columns.items()
    }
    for camera in _rgb(episode):
        height, width = (n & ~1 for n in episode.cameras[camera].shape[:2])
        rate = episode.attrs["rate_hz"]
        features[f"observation.images.{camera}"] = {
            "dtype": "video",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
            "info": {
                "video.fps": rate,
                "video.height": height,
                "video.width": width,
                "video.channels": 3,
                "video.codec": "h264",
                "video.pix_fmt": "yuv420p",
                "video.is_depth_map": False,
                "has_audio": False,
            },
        }
    return features


def _write_parquet(columns: dict[str, NDArray[Any]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = {}
    for key, values in columns.items():
        flat = pa.array(np.ascontiguousarray(values).reshape(-1))
        # a width of 1 is a plain column in LeRobot, whatever the row's shape was
        wide = values.ndim > 1 and values.shape[1] > 1
        table[key] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1]) if wide else flat
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), path)


def _stats(values: NDArray[Any]) -> dict[str, list[Any]]:
    rows = values.reshape(len(values), -1).astype(np.float64)
    return {
        "min": rows.min(0).tolist(),
        "max": rows.max(0).tolist(),
        "mean": rows.mean(0).tolist(),
        "std": rows.std(0).tolist(),
        "count": [len(rows)],
    }


def _image_stats(episode: Episode, camera: str) -> dict[str, list[Any]]:
    """Per channel over at most 100 frames, in 0..1, shaped (3, 1, 1) as LeRobot has it."""
    picks = np.unique(np.linspace(0, len(episode) - 1, 100).astype(int))
    pixels = np.stack([episode.frame(camera, int(i)) for i in picks]).reshape(-1, 3) / 255.0

    def shaped(row: NDArray[np.float64]) -> list[Any]:
        return [[[value]] for value in row.tolist()]

    return {
        "min": shaped(pixels.min(0)),
        "max": shaped(pixels.max(0)),
        "mean": shaped(pixels.mean(0)),
        "std": shaped(pixels.std(0)),
        "count": [len(picks)],
    }
