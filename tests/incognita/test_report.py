"""The report: one file that holds everything, and what a browser shows of it."""

import io
import re
import shutil
import subprocess

import av
import cv2
import matplotlib
import numpy as np
import pytest

from incognita import report
from incognita.report import (
    Section,
    draw_curves,
    draw_heat,
    draw_map,
    draw_scan,
    machine_table,
    picture,
    table,
    text,
    top_down,
    video,
    video_bytes,
    write_report,
)

BOXES = [[6, 0, 6, 0.1], [6, 8, 6, 0.1], [0, 4, 0.1, 4], [12, 4, 0.1, 4], [6, 3, 1, 2]]
DISCS = [[9, 5, 0.4]]
BOUNDS = (0.0, 0.0, 12.0, 8.0)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()


def drive(steps=30):
    t = np.linspace(0, 1, steps)
    return np.stack([1 + 10 * t, 6 + np.sin(6 * t), 0.6 * np.cos(6 * t)], -1)


def full_report(path):
    poses = drive()
    angles = np.linspace(-np.pi, np.pi, 90, endpoint=False)
    ranges = np.full(90, 2.0)
    ranges[::10] = np.inf
    steps = np.linspace(0, 1e6, 20)
    rows = np.clip(steps / 1e6 + np.random.default_rng(0).normal(0, 0.03, (5, 20)), 0, 1)
    heat = -np.hypot(*np.mgrid[-4:4:32j, -11:1:48j])
    world = draw_map(
        BOXES, DISCS, paths_w={"driven": poses, "A* <1>": [[1, 6], [11, 6]]},
        start_w=poses[0], goal_w=poses[-1], pose_w=poses[15], ranges=ranges, angles=angles,
        max_range_m=8.0,
    )  # fmt: skip
    movie = video_bytes(top_down(BOXES, DISCS, BOUNDS, poses, goals_w=(11, 6)), 20)
    return write_report(
        path,
        "A drive & a <report>",
        Section("The drive", [picture(world, "Map"), video(movie, "From above")]),
        Section(
            "What it learned",
            [
                picture(draw_heat(heat, BOUNDS, "value", boxes=BOXES, path_w=poses), "Value"),
                picture(draw_scan(ranges, angles, 8.0), "Scan"),
            ],
        ),
        Section(
            "Curves", [picture(draw_curves({"ours": (steps, rows)}, "success"), "C")], wide=True
        ),
        Section("Made", [text("<made>"), machine_table([0, 1], "incognita demo", git="abc")]),
        lead="It drove.",
        numbers={"goal": "reached", "path": "10.4 m"},
    )


def test_one_file_holds_everything(tmp_path):
    page = full_report(tmp_path / "out" / "report.html").read_text()
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["report.html"]
    assert "<script" not in page and "http-equiv" in page and "default-src 'none'" in page
    for link in re.findall(r"(?:src|href)=\"([^\"]*)", page):
        assert link.startswith(("data:", "#"))
    assert page.count("<svg") == 4 and page.count("<video") == 1
    assert "A drive &amp; a &lt;report&gt;" in page and "&lt;made&gt;" in page
    for word in ("reached", "It drove.", "seeds", "incognita demo", "numpy", "python", "abc"):
        assert word in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))  # clip paths of one figure must not cut another
    used = set(re.findall(r"url\(#([^)]+)\)", page)) | set(re.findall(r'href="#([^"]+)"', page))
    assert used and used <= set(ids)


def test_pictures_follow_the_theme():
    svg = picture(draw_map(BOXES, DISCS), "Map")
    assert report.OBSTACLE not in svg and f"var({report._VARIABLES[report.OBSTACLE]})" in svg


def test_drawing_leaves_matplotlib_as_it_was():
    before = dict(matplotlib.rcParams)
    picture(draw_curves({"a": ([0, 1], [[0, 1]])}, "y", target=0.5), "c")
    assert dict(matplotlib.rcParams) == before


def test_video_is_h264_for_browsers():
    frames = list(top_down(BOXES, DISCS, BOUNDS, drive(), size_px=301))
    assert frames[0].shape == (200, 300, 3)
    with av.open(io.BytesIO(video_bytes(frames, 20))) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert sum(1 for _ in file.decode(stream)) == 30


def test_top_down_puts_things_where_they_are():
    """10 px a metre, y up: the point (x, y) is pixel row 10 (8 - y), column 10 x."""
    poses = [[3.0, 6.0, 0.0]]
    movers = [[[10.0, 2.0, 0.5], [2.0, 2.0, 0.0]]]
    (image,) = top_down(BOXES, DISCS, BOUNDS, poses, goals_w=(11, 6), movers=movers, size_px=120)

    def at(x, y):
        return "#{:02x}{:02x}{:02x}".format(*image[int(10 * (8 - y)), int(10 * x)])

    assert at(6, 3) == report.OBSTACLE and at(9, 5) == report.OBSTACLE
    assert at(11, 6) == report.GOAL and at(10, 2) == report.MOVER
    assert at(2.7, 6) == report.PATH  # the robot's tail: 0.9 m long
    assert at(2, 2) == report.FLOOR and at(4, 6) == report.FLOOR


def test_map_is_drawn_at_scale():
    figure = draw_map(BOXES, DISCS, paths_w={"driven": drive()})
    axes = figure.axes[0]
    assert axes.get_xlim() == (-0.1, 12.1) and axes.get_ylim() == (-0.1, 8.1)
    assert axes.get_aspect() == 1
    assert np.allclose(axes.lines[0].get_xydata(), drive()[:, :2])


def test_scan_hits_land_on_the_wall():
    figure = draw_map(
        BOXES, pose_w=(2, 4, np.pi / 2), max_range_m=8.0,
        ranges=[2.0, np.inf, 9.0, 1.0], angles=[0, 1, 2, -np.pi / 2],
    )  # fmt: skip
    hits = next(line for line in figure.axes[0].lines if line.get_label() == "lidar")
    assert np.allclose(hits.get_xydata(), [[2, 6], [3, 4]])


def test_curves_show_iqm_and_band():
    values = np.array([[0.0, 100], [1, 2], [2, 4], [99, 0]])  # IQM 1.5 and 3
    figure = draw_curves({"a": ([0, 10], values)}, "success")
    axes = figure.axes[0]
    assert np.allclose(axes.lines[0].get_ydata(), [1.5, 3.0])
    assert len(axes.collections) == 1
    assert figure.legends[0].get_texts()[0].get_text() == "a, 4 seeds"


def test_heat_leaves_unknown_cells_blank_and_upright():
    figure = draw_heat([[0.0, np.nan], [2, 3]], (0, 0, 2, 2), "v")
    image = figure.axes[0].images[0]
    assert image.origin == "lower" and list(image.get_extent()) == [0, 2, 0, 2]
    assert image.get_array().mask.tolist() == [[False, True], [False, False]]


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: draw_heat([1, 2], BOUNDS, "v"), r"values must be \(H, W\)"),
        (lambda: draw_curves({"a": ([0, 1, 2], [[0, 1]])}, "y"), r"a: values must be \(S, 3\)"),
        (lambda: draw_map([]), "boxes or discs"),
        (lambda: draw_scan([1, 2], [0], 8.0), "must match"),
    ],
)
def test_bad_arrays_are_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize(
    "part",
    ["<script>alert(1)</script>", '<img src="http://a.example/x.png">', '<a href="file:///etc">'],
)
def test_nothing_from_outside_gets_in(tmp_path, part):
    with pytest.raises(ValueError, match="no scripts and no links"):
        write_report(tmp_path / "r.html", "t", Section("s", [part]))
    assert list(tmp_path.iterdir()) == []


def test_table_escapes_and_formats():
    page = table(("a", "b"), [("<x>", 12345), ("y", 0.123456)])
    assert "&lt;x&gt;" in page and "12,345" in page and "0.1235" in page


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_shows_it(tmp_path):
    page = full_report(tmp_path / "report.html")

    def shot(name, width, *flags):
        file = tmp_path / f"{name}.png"
        command = [CHROMIUM, *FLAGS, *flags, f"--user-data-dir={tmp_path / name}"]
        command += [f"--window-size={width},1400", f"--screenshot={file}", page.as_uri()]
        subprocess.run(command, capture_output=True, timeout=90, check=True)
        return cv2.imread(str(file))[..., ::-1].astype(int)

    def share(image, colour):
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        return (np.abs(image - wanted).max(-1) < 10).mean()

    light = shot("light", 1280)
    assert light.shape[1] == 1280
    assert share(light, "#ffffff") > 0.3
    assert share(light, report.OBSTACLE) > 0.005  # the map and the video
    assert share(light, report.PATH) > 0.0003
    assert share(light, report.SCAN) > 0.00005
    dark = shot("dark", 1280, "--blink-settings=preferredColorScheme=0")
    assert dark.mean() < 0.5 * light.mean()
    assert share(dark, report._DARK[report.OBSTACLE]) > 0.002
    narrow = shot("narrow", 520)
    right = narrow[:, -8:]  # nothing sticks out of a small screen: the margin stays empty
    assert (right == right[0, 0]).mean() > 0.98
