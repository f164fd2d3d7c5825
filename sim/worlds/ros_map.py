"""Worlds from ROS ``map_server`` maps: a YAML file beside a PGM or PNG image.

The meaning of every key and mode is that of ``nav2_map_server`` (map_io), see
https://docs.nav2.org/configuration/packages/map_server/configuring-map-server.html
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .merge import cover
from .world import WALL, World

MODES = ("trinary", "scale", "raw")
OCCUPIED_FROM = 65
"""Cells of at least this many percent are walls (scale and raw modes have cells in between)."""
FENCE_M = 0.1
"""Thickness of the wall put around a side of the map that is open."""
MAX_YAML_BYTES = 65_536
MAX_YAML_DEPTH = 8


@dataclass(frozen=True)
class MapYaml:
    """What a map_server YAML says."""

    image: Path
    """Absolute, or resolved against the folder of the YAML."""
    resolution: float
    """Metres per pixel."""
    origin: tuple[float, float, float]
    """Pose x, y, yaw of the image's lower left corner in the map frame, m and rad."""
    negate: bool
    occupied_thresh: float
    free_thresh: float
    mode: str = "trinary"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.resolution) and self.resolution > 0):
            raise ValueError(f"resolution must be > 0 m and finite, got {self.resolution}")
        if len(self.origin) != 3 or not all(map(math.isfinite, self.origin)):
            raise ValueError(
                f"origin must be 3 finite numbers [x, y, yaw], got {list(self.origin)}"
            )
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, got {self.mode!r}")
        if not 0 <= self.free_thresh <= self.occupied_thresh <= 1:
            raise ValueError(
                "0 <= free_thresh <= occupied_thresh <= 1 wanted, "
                f"got {self.free_thresh} and {self.occupied_thresh}"
            )
        if not self.image.is_file():
            raise FileNotFoundError(
                f"image must be a PGM or PNG file, there is none at {self.image}"
            )

    @classmethod
    def read(cls, path: str | Path) -> MapYaml:
        """Read and check a YAML; errors (ValueError, FileNotFoundError) begin with its path."""
        try:
            import yaml
        except ImportError:
            raise ImportError('maps need PyYAML: pip install "incognita[train]"') from None
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"a map YAML is wanted, there is no file {path}")
        if path.stat().st_size > MAX_YAML_BYTES:
            raise ValueError(f"{path}: a YAML mapping of at most {MAX_YAML_BYTES} bytes is wanted")
        try:
            text = path.read_bytes()
            depth = 0
            for event in yaml.parse(text, yaml.SafeLoader):
                depth += isinstance(event, yaml.CollectionStartEvent)
                depth -= isinstance(event, yaml.CollectionEndEvent)
                if depth > MAX_YAML_DEPTH or isinstance(event, yaml.AliasEvent):
                    raise ValueError("no aliases or deep nesting wanted, they grow beyond bounds")
            data = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{path}: not YAML of plain values: {reason}") from None
        if not isinstance(data, dict):
            raise ValueError(
                f"{path}: keys image, resolution, origin of a YAML mapping wanted, "
                f"got {type(data).__name__}"
            )
        needed = ("image", "resolution", "origin", "occupied_thresh", "free_thresh")
        missing = [key for key in needed if key not in data]
        if missing:
            raise ValueError(f"{path}: missing {', '.join(missing)} in the YAML mapping of a map")
        if not isinstance(data["image"], str) or not data["image"]:
            raise ValueError(f"{path}: image must be a file name, got {data['image']!r}")
        if not isinstance(data["origin"], list):
            raise ValueError(f"{path}: origin must be [x, y, yaw], got {data['origin']!r}")
        if data.get("negate", 0) not in (0, 1):
            raise ValueError(f"{path}: negate must be 0 or 1, got {data['negate']!r}")
        try:
            return cls(
                image=path.parent / data["image"],
                resolution=_number("resolution", data["resolution"]),
                origin=tuple(_number("origin", v) for v in data["origin"]),  # type: ignore[arg-type]
                negate=bool(data.get("negate", 0)),
                occupied_thresh=_number("occupied_thresh", data["occupied_thresh"]),
                free_thresh=_number("free_thresh", data["free_thresh"]),
                mode=str(data.get("mode", "trinary")),
            )
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f"{path}: {error}") from None


def _number(key: str, value: Any) -> float:
    """A YAML scalar as float; PyYAML leaves 5e-2 a string, map_server does not."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{key} must be a number, got {value!r}")
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"{key} must be a number, got {value!r}") from None


def occupancy(image: NDArray[np.generic], meta: MapYaml) -> NDArray[np.int8]:
    """Percent occupied of every pixel, as map_server publishes it.

    Args:
        image: (H, W) or (H, W, 3 or 4) uint8 or uint16, first row at the top.
        meta: thresholds, mode, negate.

    Returns:
        (H, W) int8, row 0 at the smallest y: -1 unknown, else 0 to 100.
    """
    top = float(np.iinfo(image.dtype).max)  # type: ignore[type-var]
    pixels = image.astype(np.float64)[::-1] / top
    alpha = pixels[..., 3] if pixels.ndim == 3 and pixels.shape[2] == 4 else None
    if pixels.ndim == 3 and not (meta.mode == "trinary" and alpha is not None):
        pixels = pixels[..., :3]
    # in trinary mode opacity counts as a fourth colour
    shade = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
    if meta.mode == "raw":
        percent = np.rint(shade * 255)
        return np.where(percent <= 100, percent, -1).astype(np.int8)
    full = shade if meta.negate else 1 - shade
    between = np.full(full.shape, -1.0)
    if meta.mode == "scale":
        spread = max(meta.occupied_thresh - meta.free_thresh, 1e-12)
        between = np.rint((full - meta.free_thresh) / spread * 100)
    out = np.where(full > meta.occupied_thresh, 100, np.where(full < meta.free_thresh, 0, between))
    if meta.mode == "scale" and alpha is not None:
        out = np.where(alpha < 1, -1, out)
    return out.astype(np.int8)


def from_ros_map(
    path: str | Path, max_cells: int = 16_000_000, max_boxes: int = 50_000, fence: bool = True
) -> World:
    """The world of a map_server map.

    Occupied cells become wall boxes, as few as merging finds. Unknown cells are no obstacle to a
    lidar but nothing is placed or sent there (``World.unknown``). The world frame is the map
    frame; if the origin has a yaw, the world is axis aligned, begins at (0, 0), and
    ``World.map_from_world`` turns it.

    Args:
        path: the YAML.
        max_cells: images with more pixels are refused.
        max_boxes: maps that need more boxes (noise, not walls) are refused.
        fence: put a wall around sides at which free cells touch the edge of the map.

    Raises:
        FileNotFoundError: the YAML or its image is missing.
        ValueError: a value is missing, of the wrong kind or out of range, the image cannot be
            read, has no free cell, or exceeds a limit.
    """
    meta = MapYaml.read(path)
    image = _read(meta.image, max_cells, f"{path}: ")
    percent = occupancy(image, meta)
    if not (percent == 0).any():
        raise ValueError(f"{path}: {meta.image.name} must have free cells, got none")
    x, y, yaw = meta.origin
    turned = abs(math.remainder(yaw, 2 * math.pi)) > 1e-9
    x0, y0 = (0.0, 0.0) if turned else (x, y)
    height, width = percent.shape
    parts = []
    for name, cells in (("occupied", percent >= OCCUPIED_FROM), ("unknown", percent < 0)):
        corners = cover(cells).astype(np.float64) * meta.resolution + (x0, y0, x0, y0)
        if len(corners) > max_boxes:
            raise ValueError(f"{path}: {name} cells must fit {max_boxes} boxes, got {len(corners)}")
        parts.append(corners)
    x1, y1 = x0 + width * meta.resolution, y0 + height * meta.resolution
    bounds = [x0, y0, x1, y1]
    if fence:
        open_sides = [(side >= 0) & (side < OCCUPIED_FROM) for side in
                      (percent[:, 0], percent[0], percent[:, -1], percent[-1])]  # fmt: skip
        outwards = zip(bounds, (-1, -1, 1, 1), open_sides, strict=True)
        grown = [edge + sign * FENCE_M * bool(side.any()) for edge, sign, side in outwards]
        a0, b0, a1, b1 = grown
        walls = [(a0, b0, x0, b1), (a0, b0, a1, y0), (x1, b0, a1, b1), (a0, y1, a1, b1)]
        put = [wall for wall, side in zip(walls, open_sides, strict=True) if side.any()]
        parts[0] = np.concatenate([parts[0], np.array(put).reshape(-1, 4)])
        bounds = grown
    boxes, unknown = (
        np.concatenate([(c[:, :2] + c[:, 2:]) / 2, (c[:, 2:] - c[:, :2]) / 2], axis=1).astype(
            np.float32
        )
        for c in parts
    )
    return World(
        Path(path).stem, 0, (bounds[0], bounds[1], bounds[2], bounds[3]), boxes,
        np.full(len(boxes), WALL, np.int8), unknown=unknown,
        map_from_world=(x, y, yaw) if turned else (0.0, 0.0, 0.0),
    )  # fmt: skip


def _read(path: Path, max_cells: int, where: str) -> NDArray[np.generic]:
    """The image, its PGM values stretched to the full range; errors begin with ``where``."""
    head = path.read_bytes()[:512] if path.stat().st_size < 512 else path.open("rb").read(512)
    size, top = _header(head)
    if size is not None and size[0] * size[1] > max_cells:
        raise ValueError(
            f"{where}image must have at most {max_cells} cells, got {size[0]} x {size[1]}"
        )
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"{where}image must be a readable PGM or PNG, got {path.name}")
    if image.shape[0] * image.shape[1] > max_cells:
        got = f"{image.shape[1]} x {image.shape[0]}"
        raise ValueError(f"{where}image must have at most {max_cells} cells, got {got}")
    full = 255 if image.dtype == np.uint8 else 65535
    if top is not None and top != full:
        image = np.rint(np.minimum(image, top) * (full / top)).astype(image.dtype)
    return image


def _header(head: bytes) -> tuple[tuple[int, int] | None, int | None]:
    """(width, height) and largest value (PGM), where the first bytes tell."""
    if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) >= 24:
        return (int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")), None
    if head[:2] in (b"P2", b"P5"):
        lines = (line.split(b"#")[0] for line in head[2:].split(b"\n"))
        words = [word for line in lines for word in line.split()][:3]
        if len(words) == 3 and all(word.isdigit() for word in words):
            return (int(words[0]), int(words[1])), int(words[2])
    return None, None
