"""Reading episodes that may be damaged, or made by somebody who means harm.

Every byte is compared with the manifest before it is used, no link is followed, the metadata must
be of the one form that we write, and sizes are added up before anything is allocated.
"""

from __future__ import annotations

import os
import stat
from bisect import bisect_left
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import images
from .errors import Damage, DamagedEpisodeError, EpisodeError, RefusedEpisodeError
from .format import (
    ID,
    MANIFEST,
    MAX_JSON,
    NAME,
    ArrayMeta,
    decode_chunk,
    parse_manifest,
    parse_node,
    sha256,
)
from .writer import BYTE_BUDGET

_MAX_FILES = 4096


@dataclass
class _Camera:
    spec: images.ImageSpec
    offsets: list[int]
    blob: bytes | None = None


@dataclass
class Episode:
    """One episode: its arrays in memory, its images decoded as they are asked for."""

    id: str
    attrs: dict[str, Any]
    """task, instruction, outcome, steps, rate_hz, started_utc, versions; the caller's attrs."""
    arrays: dict[str, NDArray[Any]]
    """Name to (T, ...) array."""
    _folder: _Folder = field(repr=False)
    _cameras: dict[str, _Camera] = field(repr=False)

    def __len__(self) -> int:
        return int(self.attrs["steps"])

    @property
    def cameras(self) -> dict[str, images.ImageSpec]:
        return {name: camera.spec for name, camera in self._cameras.items()}

    def frame(self, camera: str, i: int) -> NDArray[Any]:
        """Image at step i, or the camera's last one before it: (H, W, 3) or (H, W).

        Raises:
            KeyError: no such camera.
            IndexError: i is not in 0 .. T - 1.
            DamagedEpisodeError: the image file is missing or altered.
            RefusedEpisodeError: the image is not what the metadata says.
        """
        got = self._cameras[camera]
        if not 0 <= i < len(self):
            raise IndexError(f"i must be in 0..{len(self) - 1}, got {i}")
        end = got.offsets[i + 1]
        start = got.offsets[bisect_left(got.offsets, end) - 1]  # the last image that is not empty
        return images.decode(self._blob(camera)[start:end], got.spec, f"{camera}[{i}]")

    def frames(self, camera: str, a: int = 0, b: int | None = None) -> NDArray[Any]:
        """Images of steps a .. b - 1 (default: all), (b - a, H, W[, 3]).

        Raises as :meth:`frame`, and:
            ValueError: not 0 <= a < b <= T, or the images need more than the byte budget.
        """
        spec = self._cameras[camera].spec
        b = len(self) if b is None else b
        if not 0 <= a < b <= len(self):
            raise ValueError(f"a and b must be 0 <= a < b <= {len(self)}, got {a} and {b}")
        if (b - a) * spec.nbytes > self._folder.byte_budget:
            raise ValueError(
                f"images must fit {self._folder.byte_budget} bytes, {b - a} need "
                f"{(b - a) * spec.nbytes}: ask for fewer"
            )
        out = np.empty((b - a, *spec.shape), spec.dtype)
        for row, i in enumerate(range(a, b)):
            out[row] = self.frame(camera, i)
        return out

    def _blob(self, camera: str) -> bytes:
        got = self._cameras[camera]
        if got.blob is None:
            name = f"frames/{camera}/data"
            meta = ArrayMeta((got.offsets[-1],), "uint8")
            got.blob = self._folder.array(name, meta).tobytes()
        return got.blob


class EpisodeReader:
    """Opens episodes of a store, also while writers add to it."""

    def __init__(self, store: str | os.PathLike[str], *, byte_budget: int = BYTE_BUDGET) -> None:
        """Args:
            store: folder of the episodes.
            byte_budget: most bytes that one episode may take in memory, images still compressed.

        Raises:
            FileNotFoundError: no such folder.
        """
        self.store = Path(store).resolve()
        self.byte_budget = byte_budget
        if not self.store.is_dir():
            raise FileNotFoundError(f"store must be a folder, got {store}")

    def ids(self) -> list[str]:
        """Ids of all episodes, oldest first."""
        with os.scandir(self.store) as entries:
            return sorted(
                e.name for e in entries if ID.fullmatch(e.name) and e.is_dir(follow_symlinks=False)
            )

    def open(self, id: str) -> Episode:
        """Load the arrays and attributes of an episode.

        Raises:
            KeyError: no such episode.
            DamagedEpisodeError: files are missing or altered; ``.damage`` names each.
            RefusedEpisodeError: it is not a plain episode, or is over the byte budget.
        """
        path = self.store / id
        if not ID.fullmatch(id) or path.is_symlink() or not path.is_dir():
            raise KeyError(f"no episode {id!r:.80} in {self.store}")
        return _Folder(self.store, id, self.byte_budget).load()


def verify(store: str | os.PathLike[str], id: str | None = None) -> list[Damage]:
    """Check every byte of one episode, or of all; an empty list means that all is well.

    Raises:
        FileNotFoundError: no such store.
        KeyError: no such episode.
    """
    reader = EpisodeReader(store)
    found: list[Damage] = []
    for name in reader.ids() if id is None else [id]:
        try:
            episode = reader.open(name)
        except DamagedEpisodeError as error:
            found += error.damage
            continue
        except RefusedEpisodeError as error:
            found.append(Damage(name, "", "", f"refused: {error}"))
            continue
        for camera in episode.cameras:
            try:
                for i in range(len(episode)):
                    episode.frame(camera, i)
            except DamagedEpisodeError as error:
                found += error.damage
            except EpisodeError as error:
                array = f"frames/{camera}/data"
                found.append(Damage(name, array, array, f"refused: {error}"))
    return found


class _Folder:
    """Files of one episode, each opened without following links and compared with the manifest."""

    def __init__(self, store: Path, id: str, byte_budget: int) -> None:
        self.path = store / id
        self.id = id
        self.byte_budget = byte_budget
        self.damage: list[Damage] = []
        self.manifest: dict[str, tuple[int, str]] = {}

    def load(self) -> Episode:
        present = self._list()
        self._read_manifest()
        for path in self.manifest:
            if "\0" in path or {"", ".", ".."} & set(path.split("/")):
                raise RefusedEpisodeError(f"{self.id}: manifest lists {path!r:.120}")
        for path in sorted(self.manifest.keys() - present):
            self._hurt(path, "missing")
        extra = sorted(present - self.manifest.keys() - {MANIFEST})
        if extra:
            raise RefusedEpisodeError(f"{self.id}: not in the manifest: {extra[0]!r:.120}")
        total = sum(size for size, _ in self.manifest.values())
        if total > self.byte_budget:
            raise RefusedEpisodeError(
                f"{self.id}: files must fit {self.byte_budget} bytes, got {total}"
            )
        metas, groups = self._metadata()
        self._fail()
        need = sum(meta.nbytes for meta in metas.values())
        if need > self.byte_budget:
            raise RefusedEpisodeError(
                f"{self.id}: arrays must fit {self.byte_budget} bytes, declare {need}"
            )
        return self._episode(metas, groups)

    def _episode(self, metas: dict[str, ArrayMeta], groups: dict[str, dict[str, Any]]) -> Episode:
        attrs = groups.get("", {})
        steps = attrs.get("steps")
        if type(steps) is not int or steps < 1:
            raise RefusedEpisodeError(f"{self.id}: steps must be >= 1, got {steps!r:.40}")
        rate = attrs.get("rate_hz")
        if type(rate) is not float or not rate > 0:
            raise RefusedEpisodeError(f"{self.id}: rate_hz must be > 0, got {rate!r:.40}")
        if not all(isinstance(attrs.get(key), str) for key in ("task", "instruction")):
            raise RefusedEpisodeError(f"{self.id}: task and instruction must be text")
        arrays: dict[str, NDArray[Any]] = {}
        cameras: dict[str, _Camera] = {}
        for name, meta in metas.items():
            if name.startswith("frames/"):
                continue
            if meta.shape[0] != steps:
                raise RefusedEpisodeError(f"{self.id}: {name} must have {steps} rows, {meta}")
            array = self._try_array(name, meta)
            if array is not None:
                arrays[name] = array
        for name, attributes in groups.items():
            if not name.startswith("frames/"):
                continue
            data, offsets = metas.pop(f"{name}/data", None), metas.pop(f"{name}/offsets", None)
            camera = self._camera(name, attributes, data, offsets, steps)
            if camera is not None:
                cameras[name.removeprefix("frames/")] = camera
        stray = [name for name in metas if name.startswith("frames/")]
        if stray:
            raise RefusedEpisodeError(f"{self.id}: {stray[0]} belongs to no camera")
        self._fail()
        return Episode(self.id, attrs, arrays, self, cameras)

    def _camera(
        self,
        name: str,
        attributes: dict[str, Any],
        data: ArrayMeta | None,
        offsets_meta: ArrayMeta | None,
        steps: int,
    ) -> _Camera | None:
        try:
            spec = images.ImageSpec(
                attributes["codec"], tuple(attributes["shape"]), attributes["dtype"]
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RefusedEpisodeError(f"{self.id}: {name}: {error}") from None
        if (
            data is None
            or data.dtype != "uint8"
            or len(data.shape) != 1
            or offsets_meta != ArrayMeta((steps + 1,), "int64")
        ):
            raise RefusedEpisodeError(f"{self.id}: {name} must hold data and offsets of its images")
        offsets = self._try_array(f"{name}/offsets", offsets_meta)
        if offsets is None:
            return None
        if offsets[0] != 0 or offsets[-1] != data.shape[0] or (np.diff(offsets) < 0).any():
            raise RefusedEpisodeError(f"{self.id}: {name}/offsets must rise from 0 to {data.shape}")
        if offsets[1] == 0:
            raise RefusedEpisodeError(f"{self.id}: {name} must have an image at step 0")
        return _Camera(spec, offsets.tolist())

    def _list(self) -> set[str]:
        """Relative paths of all files; anything but folders and plain files is refused."""
        found: set[str] = set()
        pending = [""]
        while pending:
            prefix = pending.pop()
            with os.scandir(self.path / prefix) as entries:
                for entry in entries:
                    path = f"{prefix}{entry.name}"
                    if entry.is_dir(follow_symlinks=False) and path.count("/") < 16:
                        pending.append(f"{path}/")
                    elif entry.is_file(follow_symlinks=False):
                        found.add(path)
                    else:
                        raise RefusedEpisodeError(f"{self.id}: {path!r:.120} is not a plain file")
                    if len(found) + len(pending) > _MAX_FILES:
                        raise RefusedEpisodeError(f"{self.id}: more than {_MAX_FILES} files")
        return found

    def _read_manifest(self) -> None:
        try:
            raw = self._read(MANIFEST, MAX_JSON)
        except FileNotFoundError:
            self._hurt(MANIFEST, "missing")
            self._fail()
            return
        parsed = parse_manifest(raw, self.id)
        if isinstance(parsed, str):
            self._hurt(MANIFEST, parsed)
            self._fail()
        else:
            self.manifest = parsed

    def _metadata(self) -> tuple[dict[str, ArrayMeta], dict[str, dict[str, Any]]]:
        """Every array and group that the manifest lists, by name; "" is the episode's own group."""
        metas: dict[str, ArrayMeta] = {}
        groups: dict[str, dict[str, Any]] = {}
        chunks = set(self.manifest)
        for path in sorted(self.manifest):
            if path.rpartition("/")[2] != "zarr.json":
                continue
            chunks.remove(path)
            name = path.rpartition("/")[0]
            if name and not NAME.fullmatch(name):
                raise RefusedEpisodeError(f"{self.id}: bad name {name!r:.120}")
            raw = self.file(path, MAX_JSON)
            if raw is None:
                continue
            where = f"{self.id}/{path}"
            node = parse_node(raw, where)
            if isinstance(node, dict):
                groups[name] = node
                continue
            chunk = f"{name}/{node.chunk_key}"
            if chunk not in chunks:
                raise RefusedEpisodeError(f"{where}: no chunk {chunk}")
            chunks.remove(chunk)
            metas[name] = node
        if chunks and not self.damage:
            raise RefusedEpisodeError(f"{self.id}: {min(chunks)!r:.120} belongs to no array")
        return metas, groups

    def array(self, name: str, meta: ArrayMeta) -> NDArray[Any]:
        """Decode a chunk; raises DamagedEpisodeError."""
        got = self._try_array(name, meta)
        self._fail()
        assert got is not None
        return got

    def _try_array(self, name: str, meta: ArrayMeta) -> NDArray[Any] | None:
        path = f"{name}/{meta.chunk_key}"
        chunk = self.file(path, self.byte_budget)
        if chunk is None:
            return None
        try:
            return decode_chunk(chunk, meta, f"{self.id}/{name}")
        except (ValueError, RuntimeError) as error:
            raise RefusedEpisodeError(f"{self.id}/{path}: {error}") from None

    def file(self, path: str, limit: int) -> bytes | None:
        """Bytes of a listed file; None and a line in ``damage`` where they are not as written."""
        size, digest = self.manifest[path]
        if size > limit:
            raise RefusedEpisodeError(f"{self.id}/{path}: must be at most {limit} bytes, is {size}")
        try:
            raw = self._read(path, size)
        except FileNotFoundError:
            self._hurt(path, "missing")
            return None
        if len(raw) != size:
            self._hurt(
                path, f"must be {size} bytes, is {'shorter' if len(raw) < size else 'longer'}"
            )
            return None
        if sha256(raw) != digest:
            self._hurt(path, "its sha256 does not match")
            return None
        return raw

    def _read(self, path: str, limit: int) -> bytes:
        """At most limit + 1 bytes of a plain file below the folder, no link followed."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(self.path, flags | os.O_DIRECTORY)
        try:
            *folders, name = path.split("/")
            for part, extra in [*((f, os.O_DIRECTORY) for f in folders), (name, os.O_NONBLOCK)]:
                below = os.open(part, flags | extra, dir_fd=handle)
                os.close(handle)
                handle = below
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise RefusedEpisodeError(f"{self.id}: {path!r:.120} is not a plain file")
            pieces = []
            left = limit + 1
            while left > 0 and (piece := os.read(handle, min(left, 1 << 24))):
                pieces.append(piece)
                left -= len(piece)
            return b"".join(pieces)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise RefusedEpisodeError(f"{self.id}: {path!r:.120}: {error.strerror}") from None
        finally:
            os.close(handle)

    def _hurt(self, path: str, problem: str) -> None:
        if any(hurt.file == path for hurt in self.damage):
            return
        array = path.removesuffix("zarr.json").partition("/c/")[0].rstrip("/")
        self.damage.append(Damage(self.id, "" if path == MANIFEST else array, path, problem))

    def _fail(self) -> None:
        """Raise if anything is damaged, after a look at all other files, to name every one."""
        if self.damage:
            for path in sorted(self.manifest.keys() - {hurt.file for hurt in self.damage}):
                self.file(path, self.byte_budget)
            damage, self.damage = self.damage, []
            raise DamagedEpisodeError(damage)
