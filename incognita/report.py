"""The report: one HTML file with everything in it, for a browser without network or JavaScript.

Pictures are drawn with matplotlib as inline SVG whose colours follow the page's light or dark
theme; videos are H.264 in the file itself. Drawing functions take plain arrays (boxes
``[cx, cy, hx, hy]``, discs ``[x, y, r]``, metres in the world frame) and return a Figure.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import importlib.metadata
import io
import os
import platform
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from episodes import encode_mp4

from .stats import bootstrap_interval, iqm

P = ParamSpec("P")
Figure = Any
"""A matplotlib Figure; matplotlib is imported where something is drawn."""

INK, MUTED, LINE, FLOOR, OBSTACLE = "#1b2431", "#5d6b7e", "#d8dee7", "#f5f7fa", "#8592a6"
PATH, GOAL, START, SCAN, MOVER = "#2563ea", "#12a15f", "#b45ddc", "#e8590d", "#d6336d"
SERIES = ("#2563ea", "#e8590d", "#12a15f", "#b45ddc", "#b8860c", "#0b8fa3", "#d6336d")
PATHS = (PATH, "#b8860c", "#0b8fa3", MOVER)
_DARK = {
    INK: "#e6ebf2", MUTED: "#9aa7b8", LINE: "#313c4b", FLOOR: "#1a222d", OBSTACLE: "#64738a",
    PATH: "#6aa0ff", GOAL: "#3ddc91", START: "#d18cf5", SCAN: "#ff9a57", MOVER: "#ff7aa8",
    "#b8860c": "#e3b341", "#0b8fa3": "#3cc7dc",
}  # fmt: skip
_VARIABLES = {colour: f"--c{n}" for n, colour in enumerate(_DARK)}


@dataclass(frozen=True)
class Section:
    """A titled part of the report."""

    title: str
    """Heading, plain text."""
    parts: Sequence[str]
    """HTML from the functions below, in order."""
    wide: bool = False
    """One column; else parts stand side by side where there is room."""


def write_report(
    path: str | os.PathLike[str],
    title: str,
    *sections: Section,
    lead: str = "",
    numbers: Mapping[str, str] | None = None,
) -> Path:
    """Write the report, whole or not at all.

    Args:
        path: the .html file.
        title: heading, plain text.
        sections: parts in order.
        lead: a sentence or two below the heading, plain text.
        numbers: label to value, shown large at the top.

    Raises:
        ValueError: a part would load something from outside, or run a script.
    """
    tiles = "".join(
        f"<div><dt>{html.escape(label)}</dt><dd>{html.escape(value)}</dd></div>"
        for label, value in (numbers or {}).items()
    )
    body = "".join(
        f'<section class="{"wide" if section.wide else "grid"}">'
        f"<h2>{html.escape(section.title)}</h2>{''.join(section.parts)}</section>"
        for section in sections
    )
    for outside in re.finditer(r"<script|(?:src|href)=[\"'](?!data:|#)|@import", body, re.I):
        near = body[outside.start() : outside.start() + 80]
        raise ValueError(f"sections must hold no scripts and no links to load, got {near!r}")
    page = _PAGE.format(
        title=html.escape(title),
        lead=f'<p class="lead">{html.escape(lead)}</p>' if lead else "",
        tiles=f"<dl>{tiles}</dl>" if tiles else "",
        body=body,
        light=_variables({colour: colour for colour in _DARK}),
        dark=_variables(_DARK),
    )
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temp = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        temp.write_text(page, encoding="utf-8")
        os.replace(temp, target)
    finally:
        temp.unlink(missing_ok=True)
    return target


# Parts of a section.


def text(words: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{html.escape(words)}</p>"


def picture(image: Figure | bytes | NDArray[np.uint8], caption: str) -> str:
    """A Figure, PNG bytes or (H, W, 3) uint8 RGB image; the caption also describes it."""
    alt = html.escape(caption, quote=True)
    if isinstance(image, np.ndarray):
        done, png = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        if not done:
            raise ValueError(f"image must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
        image = png.tobytes()
    if isinstance(image, bytes):
        inner = f'<img alt="{alt}" src="{_data("image/png", image)}">'
    else:
        inner = _svg(image, alt)
    return f"<figure>{inner}<figcaption>{html.escape(caption)}</figcaption></figure>"


def video(mp4: bytes, caption: str) -> str:
    """MP4 bytes, see :func:`video_bytes`, playing without sound in a loop."""
    return (
        f'<figure><video controls autoplay muted loop playsinline preload="auto" '
        f'src="{_data("video/mp4", mp4)}"></video>'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of plain text; numbers are set to the right."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    lines = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def machine_table(seeds: Sequence[int], command: str, **more: object) -> str:
    """Machine, seeds, command and versions of this process."""
    rows = {
        **machine(),
        "seeds": ", ".join(map(str, seeds)),
        "command": command,
        **{key.replace("_", " "): value for key, value in more.items()},
    }
    return table(("what", "value"), [(key, str(value)) for key, value in rows.items()])


def machine() -> dict[str, str]:
    """Processor, cores, system and versions of the packages that results depend on."""
    packages = ("incognita", "numpy", "mujoco", "torch", "onnxruntime", "opencv-python", "numba")
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = re.search(r"model name\s*:\s*(.+)", info.read_text())
        processor = names[1].strip() if names else processor
    return {
        "processor": processor,
        "cores": str(os.cpu_count()),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": ", ".join(f"{name} {version}" for name, version in found.items()),
        "written": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }


def video_bytes(frames: Iterable[NDArray[np.uint8]], rate_hz: float) -> bytes:
    """Encode (H, W, 3) uint8 RGB images as H.264 yuv420p MP4, see :func:`episodes.encode_mp4`."""
    file = io.BytesIO()
    encode_mp4(frames, rate_hz, file)
    return file.getvalue()


# Drawing.


def _styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run a drawing function in our style and nobody else's, nor leave ours behind."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        try:
            import matplotlib
        except ImportError as error:
            raise ImportError("reports need matplotlib: pip install 'incognita[train]'") from error
        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return drawn


@_styled
def draw_map(
    boxes: ArrayLike,
    discs: ArrayLike = (),
    *,
    paths_w: Mapping[str, ArrayLike] | None = None,
    start_w: ArrayLike | None = None,
    goal_w: ArrayLike | None = None,
    goal_radius_m: float = 0.5,
    pose_w: ArrayLike | None = None,
    ranges: ArrayLike | None = None,
    angles: ArrayLike | None = None,
    footprint_m: tuple[float, float] = (0.9, 0.6),
    max_range_m: float = np.inf,
) -> Figure:
    """A world from above, with paths, robot, lidar beams and goal where given.

    Args:
        boxes: (K, 4) centre and half sizes, m.
        discs: (D, 3) centre and radius, m.
        paths_w: label to (L, 2) or more columns, the first two of which are x and y.
        start_w: (2,) or longer.
        goal_w: (2,) or longer.
        goal_radius_m: drawn around the goal.
        pose_w: (3,) x, y, yaw of the robot.
        ranges: (B,) lidar ranges at pose_w, m; not finite or beyond max_range_m: no hit.
        angles: (B,) beam directions from the robot's x axis, rad.
        footprint_m: length and width of the robot.
    """
    figure, axes = _axes(boxes, discs)
    if pose_w is not None and ranges is not None and angles is not None:
        _draw_scan(axes, _row(pose_w, 3), _flat(ranges), _flat(angles), max_range_m)
    for (label, path), colour in zip((paths_w or {}).items(), _cycle(PATHS), strict=False):
        points = np.asarray(path, float)[:, :2]
        axes.plot(*points.T, color=colour, lw=1.8, label=label, solid_capstyle="round", zorder=4)
    if start_w is not None:
        axes.plot(*_row(start_w, 2), "o", ms=6, color=START, label="start", zorder=5)
    if goal_w is not None:
        from matplotlib.patches import Circle

        x, y = _row(goal_w, 2).tolist()
        axes.add_patch(Circle((x, y), goal_radius_m, fc=GOAL, ec=GOAL, alpha=0.25, zorder=3))
        axes.plot(x, y, "*", ms=11, color=GOAL, label="goal", zorder=5)
    if pose_w is not None:
        from matplotlib.patches import Polygon

        corners = _footprint(_row(pose_w, 3), footprint_m)
        axes.add_patch(Polygon(corners, fc=PATH, ec=INK, lw=0.8, zorder=6))
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=5)
    return figure


@_styled
def draw_heat(
    values: ArrayLike,
    bounds: tuple[float, float, float, float],
    label: str,
    *,
    boxes: ArrayLike = (),
    discs: ArrayLike = (),
    path_w: ArrayLike | None = None,
    goal_w: ArrayLike | None = None,
    colours: str = "viridis",
) -> Figure:
    """A quantity over the map: learned value, intrinsic reward, visits.

    Args:
        values: (H, W), row 0 at the lowest y; not finite: left blank.
        bounds: xmin, ymin, xmax, ymax of the outer cell edges, m.
        label: quantity and unit, beside the colour bar.
        boxes, discs: obstacles, as in :func:`draw_map`.

    Raises:
        ValueError: values are not a grid.
    """
    grid = np.asarray(values, float)
    if grid.ndim != 2 or grid.size == 0:
        raise ValueError(f"values must be (H, W), got {grid.shape}")
    xmin, ymin, xmax, ymax = bounds
    figure, axes = _axes(boxes, discs, bounds)
    image = axes.imshow(
        np.ma.masked_invalid(grid), origin="lower", extent=(xmin, xmax, ymin, ymax),
        cmap=colours, interpolation="nearest", zorder=1,
    )  # fmt: skip
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.02)
    bar.set_label(label)
    bar.outline.set_visible(False)
    if path_w is not None:
        axes.plot(*np.asarray(path_w, float)[:, :2].T, color="white", lw=3, alpha=0.7, zorder=4)
        axes.plot(*np.asarray(path_w, float)[:, :2].T, color=PATH, lw=1.4, zorder=5)
    if goal_w is not None:
        axes.plot(*_row(goal_w, 2), "*", ms=12, color=GOAL, mec="white", zorder=5)
    return figure


@_styled
def draw_scan(ranges: ArrayLike, angles: ArrayLike, max_range_m: float) -> Figure:
    """One lidar scan as the robot sees it, x ahead (up), y to the left."""
    figure, axes = _figure(4.2, 4.2)
    axes.set_aspect("equal")
    _draw_scan(axes, np.array([0, 0, np.pi / 2]), _flat(ranges), _flat(angles), max_range_m)
    axes.plot(0, 0, "^", color=PATH, ms=9, zorder=6)
    reach = np.nanmax(np.where(np.isfinite(_flat(ranges)), _flat(ranges), 0), initial=0.5)
    reach = min(float(reach), max_range_m) * 1.06
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), xlabel="m to the right", ylabel="m ahead")
    return figure


@_styled
def draw_curves(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    ylabel: str,
    *,
    xlabel: str = "environment steps",
    target: float | None = None,
) -> Figure:
    """Learning curves: IQM over the seeds with the 95 % bootstrap interval as a band.

    Args:
        curves: method to (steps (T,), values (S, T) with a row per seed, or (T,)).
        target: drawn as a dashed line.

    Raises:
        ValueError: steps and values do not fit.
    """
    figure, axes = _figure(9.6, 3.9)
    for (label, (steps, values)), colour in zip(curves.items(), _cycle(SERIES), strict=False):
        x, rows = np.asarray(steps, float), np.atleast_2d(np.asarray(values, float))
        if rows.ndim != 2 or x.shape != rows.shape[1:]:
            raise ValueError(f"{label}: values must be (S, {len(x)}), got {rows.shape}")
        seeds = f", {len(rows)} seeds" if len(rows) > 1 else ""
        axes.plot(x, iqm(rows), color=colour, lw=2, label=f"{label}{seeds}", zorder=3)
        if len(rows) > 1:
            low, high = bootstrap_interval(rows)
            axes.fill_between(x, low, high, color=colour, alpha=0.18, lw=0, zorder=2)
    if target is not None:
        axes.axhline(target, color=MUTED, lw=1, ls=(0, (4, 3)), zorder=1)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(True, color=LINE, lw=0.8)
    axes.xaxis.set_major_formatter(_thousands())
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def top_down(
    boxes: ArrayLike,
    discs: ArrayLike,
    bounds: tuple[float, float, float, float],
    poses_w: ArrayLike,
    *,
    goals_w: ArrayLike | None = None,
    movers: ArrayLike | None = None,
    hits_w: Sequence[ArrayLike] | None = None,
    footprint_m: tuple[float, float] = (0.9, 0.6),
    size_px: int = 640,
) -> Iterator[NDArray[np.uint8]]:
    """Images of a drive from above, one per pose, for :func:`video_bytes`.

    Args:
        boxes, discs: obstacles, as in :func:`draw_map`.
        bounds: xmin, ymin, xmax, ymax, m.
        poses_w: (T, 3) x, y, yaw of the robot.
        goals_w: (2,) or (T, 2).
        movers: (T, M, 3) x, y, radius of what moves; radius 0 is not drawn.
        hits_w: T arrays (B, 2) of lidar hits.
        size_px: longer side of the images.

    Yields:
        (H, W, 3) uint8 RGB, H and W even.
    """
    xmin, ymin, xmax, ymax = bounds
    scale = size_px / max(xmax - xmin, ymax - ymin)
    width, height = (int(round(n * scale)) // 2 * 2 for n in (xmax - xmin, ymax - ymin))
    sub = 8  # cv2 draws at 1/8 pixel, so that slow things move smoothly

    def pixel(points: ArrayLike) -> NDArray[np.int32]:
        xy = np.asarray(points, float)[..., :2]
        uv = np.stack([(xy[..., 0] - xmin) * scale, (ymax - xy[..., 1]) * scale], -1)
        return np.round(uv * sub).astype(np.int32)

    def disc(image: NDArray[np.uint8], xy: ArrayLike, radius_m: float, colour: str) -> None:
        u, v = pixel(xy).tolist()
        radius = max(int(radius_m * scale * sub), 2 * sub)
        cv2.circle(image, (u, v), radius, _rgb(colour), -1, cv2.LINE_AA, 3)

    ground = np.full((height, width, 3), _rgb(FLOOR), np.uint8)
    for cx, cy, hx, hy in np.asarray(boxes, float).reshape(-1, 4):
        corners = [[cx - hx, cy - hy], [cx + hx, cy - hy], [cx + hx, cy + hy], [cx - hx, cy + hy]]
        cv2.fillConvexPoly(ground, pixel(corners), _rgb(OBSTACLE), cv2.LINE_AA, 3)
    for x, y, r in np.asarray(discs, float).reshape(-1, 3):
        disc(ground, (x, y), r, OBSTACLE)
    poses = np.asarray(poses_w, float).reshape(-1, 3)
    goals = None if goals_w is None else np.broadcast_to(goals_w, (len(poses), 2))
    for t, pose in enumerate(poses):
        image = ground.copy()
        if goals is not None:
            disc(image, goals[t], 0.35, GOAL)
        trail = pixel(poses[: t + 1])
        cv2.polylines(image, [trail], False, _rgb(PATH), 2, cv2.LINE_AA, 3)
        for x, y, r in () if movers is None else np.asarray(movers, float)[t]:
            if r > 0:
                disc(image, (x, y), r, MOVER)
        if hits_w is not None:
            hits = pixel(hits_w[t]) // sub
            inside = (hits >= 0).all(-1) & (hits < [width - 1, height - 1]).all(-1)
            u, v = hits[inside].T
            for du, dv in ((0, 0), (1, 0), (0, 1), (1, 1)):
                image[v + dv, u + du] = _rgb(SCAN)
        cv2.fillConvexPoly(image, pixel(_footprint(pose, footprint_m)), _rgb(PATH), cv2.LINE_AA, 3)
        ahead = np.array([np.cos(pose[2]), np.sin(pose[2])])
        disc(image, pose[:2] + 0.28 * footprint_m[0] * ahead, 0.12 * footprint_m[1], "#ffffff")
        yield image


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure as MplFigure

    figure = MplFigure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _axes(
    boxes: ArrayLike, discs: ArrayLike, bounds: tuple[float, float, float, float] | None = None
) -> tuple[Figure, Any]:
    """Equal axes with the obstacles of a world."""
    rectangles = np.asarray(boxes, float).reshape(-1, 4)
    circles = np.asarray(discs, float).reshape(-1, 3)
    if bounds is None:
        middle = np.concatenate([rectangles[:, :2], circles[:, :2]])
        half = np.concatenate([rectangles[:, 2:], circles[:, [2, 2]]])
        low, high = middle - half, middle + half
        if not len(low):
            raise ValueError("boxes or discs must hold something, got none")
        bounds = (*low.min(0), *high.max(0))
    xmin, ymin, xmax, ymax = bounds
    width = 6.0
    height = min(max(width * (ymax - ymin) / (xmax - xmin) * 0.9 + 0.6, 2.4), 9.0)
    figure, axes = _figure(width, height)
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Circle, Rectangle

    patches: list[Any] = [
        Rectangle((cx - hx, cy - hy), 2 * hx, 2 * hy) for cx, cy, hx, hy in rectangles
    ]
    patches += [Circle((x, y), r) for x, y, r in circles]
    axes.set_facecolor(FLOOR)
    axes.add_collection(PatchCollection(patches, fc=OBSTACLE, ec=OBSTACLE, lw=0.3, zorder=2))
    axes.set(xlim=(xmin, xmax), ylim=(ymin, ymax), xlabel="x, m", ylabel="y, m")
    axes.set_aspect("equal")
    return figure, axes


def _draw_scan(
    axes: Any,
    pose: NDArray[np.float64],
    ranges: NDArray[np.float64],
    angles: NDArray[np.float64],
    max_range_m: float,
) -> None:
    if ranges.shape != angles.shape:
        raise ValueError(f"ranges and angles must match, got {ranges.shape} and {angles.shape}")
    hit = np.isfinite(ranges) & (ranges < max_range_m)
    reach = np.where(np.isfinite(ranges), ranges, min(max_range_m, 1e3))
    directions = np.stack([np.cos(pose[2] + angles), np.sin(pose[2] + angles)], -1)
    ends = pose[:2] + np.minimum(reach, max_range_m)[:, None] * directions
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Polygon

    step = max(1, len(ends) // 180)
    beams = [(pose[:2], end) for end in ends[::step]]
    axes.add_patch(Polygon(np.vstack([pose[:2], ends]), fc=SCAN, ec="none", alpha=0.12, zorder=1.5))
    axes.add_collection(LineCollection(beams, colors=SCAN, lw=0.3, alpha=0.45, zorder=1.6))
    axes.plot(*ends[hit].T, ".", color=SCAN, ms=2.6, zorder=3, label="lidar")


def _footprint(pose: NDArray[np.float64], size_m: tuple[float, float]) -> NDArray[np.float64]:
    length, width = size_m
    signs = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    corners = 0.5 * signs * [length, width]
    c, s = np.cos(pose[2]), np.sin(pose[2])
    turned: NDArray[np.float64] = corners @ np.array([[c, s], [-s, c]])
    return turned + pose[:2]


def _svg(figure: Figure, alt: str) -> str:
    """Inline SVG in the colours of the page; ids are made unique, since figures share the page."""
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": alt}):
        figure.savefig(file, format="svg", transparent=False, metadata={"Date": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    tag = "f" + hashlib.sha256(alt.encode() + svg.encode()).hexdigest()[:8]
    svg = re.sub(r'\bid="', f'id="{tag}-', svg)
    svg = re.sub(r"url\(#", f"url(#{tag}-", svg)
    svg = re.sub(r'href="#', f'href="#{tag}-', svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    head = (
        f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" role="img" aria-label="{alt}" {box[0]}>'
    )
    return head + svg[svg.index(">") + 1 :]


def _data(kind: str, raw: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(raw).decode()}"


def _cell(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return f"<td>{html.escape(str(value))}</td>"
    shown = f"{value:,.4g}" if isinstance(value, float | np.floating) else f"{value:,}"
    return f'<td class="n">{shown}</td>'


def _variables(colours: Mapping[str, str]) -> str:
    return ";".join(f"{_VARIABLES[key]}:{value}" for key, value in colours.items())


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _cycle(colours: Sequence[str]) -> Iterator[str]:
    while True:
        yield from colours


def _row(values: ArrayLike, size: int) -> NDArray[np.float64]:
    return np.asarray(values, float).reshape(-1)[:size]


def _flat(values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(values, float).reshape(-1)


def _thousands() -> Any:
    from matplotlib.ticker import FuncFormatter

    def shown(x: float, _: int) -> str:
        if abs(x) >= 1e6:
            return f"{x / 1e6:g}M"
        return f"{x / 1e3:g}k" if abs(x) >= 1e3 else f"{x:g}"

    return FuncFormatter(shown)


_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.labelcolor": INK,
}

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root{{{light};--page:#fff;--card:#fff}}
@media (prefers-color-scheme:dark){{:root{{{dark};--page:#0f151d;--card:#151d27}}}}
*{{box-sizing:border-box}}
body{{margin:0;background:var(--page);color:var(--c0);
 font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}}
main{{max-width:1180px;margin:0 auto;padding:clamp(1rem,4vw,3rem)}}
h1{{font-size:clamp(1.7rem,4vw,2.6rem);line-height:1.15;margin:0 0 .4rem;letter-spacing:-.02em}}
h2{{font-size:1.2rem;margin:0 0 .2rem;grid-column:1/-1}}
.lead{{color:var(--c1);font-size:1.1rem;max-width:46em;margin:0 0 1.6rem}}
dl{{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.8rem;margin:0}}
dl div{{background:var(--c3);border-radius:12px;padding:.9rem 1.1rem}}
dt{{color:var(--c1);font-size:.85rem}}
dd{{margin:0;font-size:1.6rem;font-weight:650;letter-spacing:-.02em;
 font-variant-numeric:tabular-nums}}
section{{margin-top:2.6rem;border-top:1px solid var(--c2);padding-top:1.3rem}}
.grid{{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1.2rem;
 align-items:start}}
figure{{margin:0;background:var(--card);border:1px solid var(--c2);border-radius:12px;
 padding:.9rem;min-width:0}}
figure svg,figure img,figure video{{display:block;width:100%;height:auto;border-radius:6px}}
figure svg text{{font-family:inherit!important}}
figcaption{{color:var(--c1);font-size:.88rem;margin-top:.6rem}}
p{{max-width:46em}}
.scroll{{overflow-x:auto;grid-column:1/-1}}
table{{border-collapse:collapse;width:100%;font-size:.93rem}}
th{{text-align:left;color:var(--c1);font-weight:600}}
th,td{{padding:.45rem 1rem .45rem 0;border-bottom:1px solid var(--c2);vertical-align:top;
 overflow-wrap:break-word}}
td:first-child{{white-space:nowrap;color:var(--c1)}}
td.n{{font-variant-numeric:tabular-nums;white-space:nowrap}}
@media print{{figure,section{{break-inside:avoid}}}}
</style></head>
<body><main><h1>{title}</h1>{lead}{tiles}{body}</main></body></html>
"""
