"""Episodes with camera frames: our store against one Zarr array in chunks of 16 frames."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import mujoco
import numpy as np
import typer
import zarr
from numpy.typing import NDArray

from episodes import EpisodeReader, EpisodeWriter
from rnd_agv.robot import AGV
from sim.render import Canvas, lean
from sim.robots import world_spec

from ..cli import JsonFile
from .maze import maze, walks
from .paired import Report, Seeds, Smoke, Timing, alternate

STEPS, PIXELS = 200, 128
ZARR, OURS, LOSSLESS = "zarr, chunk 16, default zstd", "ours, JPEG q90", "ours, lossless PNG"


def drive(seed: int, steps: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """(T, 128, 128, 3) frames of a camera moving through a maze, (T, 72) numbers beside them."""
    spec = lean(world_spec(maze(seed), AGV), PIXELS, PIXELS)
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    x, y, goal_x, goal_y = walks(seed, (1.0, 5.0))[0]
    camera = mujoco.MjvCamera()
    camera.distance, camera.elevation = 2.0, -20
    frames = np.empty((steps, PIXELS, PIXELS, 3), np.uint8)
    with Canvas(model, PIXELS, PIXELS) as canvas:
        for t in range(steps):
            part = t / steps
            camera.lookat[:] = x + part * (goal_x - x), y + part * (goal_y - y), 0.3
            camera.azimuth = 360 * part
            canvas.update(data, camera)
            frames[t] = canvas.draw()
    numbers = np.random.default_rng(seed).normal(size=(steps, 72)).astype(np.float32)
    return frames, numbers


class Store:
    """The same episodes written to and read from both stores.

    Args:
        folder: emptied and used.
        steps: steps of an episode.
        reads: random frames a round.
    """

    def __init__(self, folder: Path, seed: int, steps: int, reads: int) -> None:
        self.folder, self.steps, self.reads = folder, steps, reads
        self.frames, self.numbers = drive(seed, steps)
        self.rng = np.random.default_rng(seed)
        self.written = 0
        self.writers = {
            OURS: EpisodeWriter(folder / "jpeg"),
            LOSSLESS: EpisodeWriter(folder / "png", lossless=True),
        }

    def close(self) -> None:
        """Release the writers' locks."""
        for writer in self.writers.values():
            writer.close()

    def write_zarr(self) -> int:
        """One episode as a Zarr group with chunks of 16 steps and Zarr's default compressor."""
        self.written += 1
        group = zarr.create_group(store=str(self.folder / "zarr" / f"{self.written}"))
        arrays: dict[str, Any] = {"front": self.frames}
        arrays |= {"obs": self.numbers[:, :70], "action": self.numbers[:, 70:]}
        for name, values in arrays.items():
            chunks = (16, *values.shape[1:])
            array = group.create_array(name, shape=values.shape, chunks=chunks, dtype=values.dtype)
            array[:] = values
        return self.steps

    def write_ours(self, kind: str) -> Callable[[], int]:
        """Work: one episode through EpisodeWriter, flushed to disk and acknowledged."""

        def work() -> int:
            with self.writers[kind].episode(task="bench-store") as episode:
                for frame, row in zip(self.frames, self.numbers, strict=True):
                    episode.append({"obs": row[:70], "action": row[70:]}, {"front": frame})
                episode.finish("success")
            return self.steps

        return work

    def read_zarr(self) -> int:
        """Random frames of the newest episode, one at a time."""
        group: Any = zarr.open_group(str(self.folder / "zarr" / f"{self.written}"), mode="r")
        array = group["front"]
        for i in self.rng.integers(self.steps, size=self.reads):
            array[int(i)]
        return self.reads

    def read_ours(self, kind: str) -> Callable[[], int]:
        """Work: as :meth:`read_zarr`, checksums of all files verified at the opening."""
        reader = EpisodeReader(self.writers[kind].store)

        def work() -> int:
            episode = reader.open(reader.ids()[-1])
            reads = 20 * self.reads  # a frame takes so little that the opening would drown it
            for i in self.rng.integers(self.steps, size=reads):
                episode.frame("front", int(i))
            return reads

        return work

    def bytes_per_frame(self) -> dict[str, float]:
        """Disk space of one episode over its frames."""
        roots = {ZARR: self.folder / "zarr", OURS: self.folder / "jpeg"}
        roots[LOSSLESS] = self.folder / "png"
        sizes = {}
        for kind, root in roots.items():
            newest = max(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
            files = [p for p in newest.rglob("*") if p.is_file()]
            sizes[kind] = sum(p.stat().st_size for p in files) / self.steps
        return sizes


def store(
    seeds: Seeds = 3,
    smoke: Smoke = False,
    folder: Annotated[Path | None, typer.Option(help="Where the stores are made.")] = None,
    json_file: JsonFile = None,
) -> None:
    """200-step episodes of 128 x 128 frames, against chunked Zarr (about 0.05 core-hours)."""
    steps, reads, rounds = (24, 8, 2) if smoke else (STEPS, 50, 7)
    about = (
        f"{steps}-step episodes, {PIXELS} x {PIXELS} RGB and 72 float32 a step, warm page cache. "
        "Ours flushes to disk and checks every byte at opening; the baseline does neither. JPEG "
        "loses detail, the baseline does not: the lossless kind is given beside it."
    )
    report = Report(f"store --seeds {seeds}", seeds, about)
    writes: dict[str, Timing] = {}
    frames: dict[str, Timing] = {}
    for seed in range(seeds):
        with tempfile.TemporaryDirectory(dir=folder, prefix="store-") as temp:
            job = Store(Path(temp), seed, steps, reads)
            works = {ZARR: job.write_zarr, OURS: job.write_ours(OURS)}
            works[LOSSLESS] = job.write_ours(LOSSLESS)
            alternate(works, rounds, seed, writes)
            works = {ZARR: job.read_zarr, OURS: job.read_ours(OURS)}
            works[LOSSLESS] = job.read_ours(LOSSLESS)
            alternate(works, rounds, seed, frames)
            report.result["bytes_per_frame"] = job.bytes_per_frame()
            job.close()
            shutil.rmtree(Path(temp) / "zarr")
    kinds: tuple[tuple[str, dict[str, Timing], float], ...]
    kinds = (("write", writes, 3.0), ("random frame", frames, 20.0))
    for what, timings, target in kinds:
        named = {f"{what}: {name}": timing for name, timing in timings.items()}
        report.timings(named, what)
        report.ratio(f"{what}: {ZARR}", f"{what}: {OURS}", named, target, "cpu")
        report.ratio(f"{what}: {ZARR}", f"{what}: {LOSSLESS}", named)
    report.finish(json_file, smoke)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("store")(store)
