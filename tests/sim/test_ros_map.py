"""Import of map_server maps: every mode and key, real maps, and clear refusals."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from sim import worlds
from sim.worlds.ros_map import FENCE_M, MapYaml, occupancy

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
KEYS = {
    "image": "map.pgm",
    "resolution": 0.1,
    "origin": [-1.0, 2.0, 0.0],
    "negate": 0,
    "occupied_thresh": 0.65,
    "free_thresh": 0.25,
}


def write(folder: Path, image: np.ndarray, name: str = "map.pgm", **changes: object) -> Path:
    """A map in ``folder``; a key changed to None is left out."""
    assert cv2.imwrite(str(folder / name), image)
    keys = KEYS | {"image": name} | changes
    lines = [
        f"{key}: {json.dumps(v) if isinstance(v, list) else v}"
        for key, v in keys.items()
        if v is not None
    ]
    (folder / "map.yaml").write_text("\n".join(lines) + "\n")
    return folder / "map.yaml"


def walled_room() -> np.ndarray:
    """(20, 30) free floor in black walls, a black block at the image's upper left, a grey patch."""
    image = np.full((20, 30), 254, np.uint8)
    image[[0, -1]] = 0
    image[:, [0, -1]] = 0
    image[2:5, 3:9] = 0
    image[12:15, 20:24] = 128
    return image


def test_cells_land_where_the_map_says(tmp_path: Path) -> None:
    world = worlds.from_ros_map(write(tmp_path, walled_room()))
    assert world.bounds == pytest.approx((-1.0, 2.0, 2.0, 4.0))
    grid = world.grid(0.1)
    assert grid.data.shape == (20, 30)
    image = walled_room()[::-1]  # rows go up in the world
    assert np.array_equal(grid.data, np.where(image == 0, 100, np.where(image == 128, -1, 0)))
    assert len(world.boxes) == 5 and len(world.unknown) == 1
    assert (world.box_labels == worlds.LABELS.index("wall")).all()
    # the block: columns 3 to 9, rows 2 to 5 from the top of a map that ends at y = 4
    block = [-1 + 0.6, 4 - 0.35, 0.3, 0.15]
    assert np.abs(world.boxes - np.float32(block)).max(axis=1).min() < 1e-5
    points = world.free_points(np.random.default_rng(0), 200, 0.1)
    assert not ((abs(points - (1.2, 2.65)) < (0.2 + 0.07, 0.15 + 0.07)).all(axis=1)).any()


def test_an_origin_with_yaw_turns_the_world_into_the_map(tmp_path: Path) -> None:
    path = write(tmp_path, walled_room(), origin=[-1.0, 2.0, np.pi / 2])
    world = worlds.from_ros_map(path)
    assert world.bounds == pytest.approx((0, 0, 3, 2))
    assert world.map_from_world == pytest.approx((-1, 2, np.pi / 2))
    # the corner that lies 3 m along the image's x axis is 3 m up in the map
    assert world.to_map([3.0, 0.0, 0.0]) == pytest.approx([-1, 5, np.pi / 2])


def test_free_edges_are_fenced(tmp_path: Path) -> None:
    image = np.full((20, 30), 254, np.uint8)
    image[:, 0] = 0  # closed on the left alone
    world = worlds.from_ros_map(write(tmp_path, image))
    assert world.bounds == pytest.approx((-1, 2 - FENCE_M, 2 + FENCE_M, 4 + FENCE_M))
    assert len(world.boxes) == 4
    data = world.grid(0.1).data
    assert (data[0] == 100).all() and (data[:, -1] == 100).all() and (data[-1] == 100).all()
    assert len(worlds.from_ros_map(tmp_path / "map.yaml", fence=False).boxes) == 1


def meta(tmp_path: Path, **changes: object) -> MapYaml:
    return MapYaml.read(write(tmp_path, walled_room(), **changes))


def test_trinary_thresholds_are_strict(tmp_path: Path) -> None:
    # shade v/255; occupied share 1 - v/255
    image = np.array([[0, 89, 90, 191, 192, 255]], np.uint8)
    out = occupancy(image, meta(tmp_path))
    assert out.tolist() == [[100, 100, -1, -1, 0, 0]]
    out = occupancy(255 - image, meta(tmp_path, negate=1))
    assert out.tolist() == [[100, 100, -1, -1, 0, 0]]
    # a share equal to a threshold is neither above nor below it
    exact = meta(tmp_path, occupied_thresh=1.0, free_thresh=0.0)
    assert occupancy(np.array([[0, 255]], np.uint8), exact).tolist() == [[-1, -1]]


def test_scale_mode_spreads_what_is_between(tmp_path: Path) -> None:
    image = np.array([[0, 255, 127, 64]], np.uint8)
    out = occupancy(image, meta(tmp_path, mode="scale", occupied_thresh=0.9, free_thresh=0.1))
    # (1 - 127/255 - .1)/.8 = .50245 and (1 - 64/255 - .1)/.8 = .81127
    assert out.tolist() == [[100, 0, 50, 81]]
    clear = np.dstack([image] * 3 + [np.array([[255, 255, 254, 0]], np.uint8)])
    out = occupancy(clear, meta(tmp_path, mode="scale", occupied_thresh=0.9, free_thresh=0.1))
    assert out.tolist() == [[100, 0, -1, -1]]


def test_raw_mode_reads_percents(tmp_path: Path) -> None:
    image = np.array([[0, 50, 100, 101, 205, 255]], np.uint8)
    for negate in (0, 1):
        out = occupancy(image, meta(tmp_path, mode="raw", negate=negate))
        assert out.tolist() == [[0, 50, 100, -1, -1, -1]]


def test_opacity_counts_as_a_colour_in_trinary_mode(tmp_path: Path) -> None:
    # white and clear: shade (1 + 1 + 1 + 0)/4, share .25, not below .25: unknown; black: (0 + 1)/4
    image = np.array([[(255, 255, 255, 255), (255, 255, 255, 0), (0, 0, 0, 255)]], np.uint8)
    assert occupancy(image, meta(tmp_path)).tolist() == [[0, -1, 100]]
    colour = np.array([[(255, 255, 255), (30, 60, 0)]], np.uint8)
    assert occupancy(colour, meta(tmp_path)).tolist() == [[0, 100]]


@pytest.mark.parametrize("kind", ["png", "png16", "pgm16", "ascii", "maxval", "alpha", "colour"])
def test_image_formats_make_the_same_world(tmp_path: Path, kind: str) -> None:
    image = walled_room()
    plain = worlds.from_ros_map(write(tmp_path, image)).grid(0.1).data
    if kind in ("ascii", "maxval"):
        top = 255 if kind == "ascii" else 100
        scaled = np.rint(image * (top / 255)).astype(np.uint8)
        head = f"# made by hand\n30 20 # size\n{top}\n"
        path = write(tmp_path, image)
        if kind == "ascii":
            rows = "\n".join(" ".join(map(str, row)) for row in scaled)
            (tmp_path / "map.pgm").write_text(f"P2\n{head}{rows}\n")
        else:
            (tmp_path / "map.pgm").write_bytes(f"P5\n{head}".encode() + scaled.tobytes())
    else:
        wide = image.astype(np.uint16) * 257
        opaque = np.dstack([image] * 3 + [np.full_like(image, 255)])
        made, name = {
            "png": (image, "m.png"), "png16": (wide, "m.png"), "pgm16": (wide, "m.pgm"),
            "alpha": (opaque, "m.png"), "colour": (np.dstack([image] * 3), "m.png"),
        }[kind]  # fmt: skip
        if kind == "alpha":  # opacity brightens: 128 becomes (3 * 128 + 255)/4
            made[..., :3][image == 128] = 100
        path = write(tmp_path, made, name)
    assert np.array_equal(worlds.from_ros_map(path).grid(0.1).data, plain)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"resolution": 0}, "resolution must be > 0"),
        ({"resolution": -0.05}, "resolution must be > 0"),
        ({"resolution": ".nan"}, "resolution must be > 0 m and finite"),
        ({"resolution": ".inf"}, "resolution must be > 0 m and finite"),
        ({"resolution": "fine"}, "resolution must be a number"),
        ({"resolution": None}, "missing resolution"),
        ({"origin": None, "free_thresh": None}, "missing origin, free_thresh"),
        ({"origin": [0, 0]}, "origin must be 3"),
        ({"origin": "[0, .nan, 0]"}, "origin must be 3 finite"),
        ({"origin": 3}, "origin must be"),
        ({"mode": "ternary"}, "mode must be one of trinary, scale, raw, got 'ternary'"),
        ({"negate": 7}, "negate must be 0 or 1"),
        ({"occupied_thresh": 0.1}, "free_thresh <= occupied_thresh"),
        ({"free_thresh": -1}, "free_thresh <= occupied_thresh"),
        ({"occupied_thresh": "true"}, "occupied_thresh must be a number"),
        ({"image": 12}, "image must be a file name"),
    ],
)
def test_bad_values_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    path = write(tmp_path, walled_room(), **{k: v for k, v in changes.items() if k != "image"})
    if "image" in changes:
        path.write_text(path.read_text().replace("image: map.pgm", f"image: {changes['image']}"))
    with pytest.raises(ValueError, match=message) as error:
        worlds.from_ros_map(path)
    assert str(path) in str(error.value)


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, walled_room())
    (tmp_path / "map.pgm").unlink()
    with pytest.raises(FileNotFoundError, match=r"map\.yaml: image must be .* none at .*map\.pgm"):
        worlds.from_ros_map(path)
    with pytest.raises(FileNotFoundError, match=r"no file .*none\.yaml"):
        worlds.from_ros_map(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "image: [",
        "- 1\n- 2\n",
        "",
        "a: !!python/object/apply:os.getcwd []\n",
        "a: &a [1]\nb: *a\n",
        "a: " + "[" * 30_000,
        "a: " + "9" * 5_000,
    ],
)
def test_what_is_no_map_yaml_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "map.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"map\.yaml: (not YAML|keys image)"):
        worlds.from_ros_map(tmp_path / "map.yaml")


def test_images_that_are_none_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, walled_room())
    for content in (b"", b"hello", b"P5\n30 20\n255\n"):
        (tmp_path / "map.pgm").write_bytes(content)
        with pytest.raises(ValueError, match="readable PGM or PNG|free cells"):
            worlds.from_ros_map(path)


def test_too_large_maps_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = write(tmp_path, walled_room())
    with pytest.raises(ValueError, match="at most 599 cells, got 30 x 20"):
        worlds.from_ros_map(path, max_cells=599)
    (tmp_path / "map.pgm").write_bytes(b"P5\n100000 100000\n255\n")
    with pytest.raises(ValueError, match="at most 16000000 cells, got 100000 x 100000"):
        worlds.from_ros_map(path)
    noise = np.random.default_rng(0).choice(np.array([0, 254], np.uint8), (40, 40))
    with pytest.raises(ValueError, match="must fit 100 boxes, got"):
        worlds.from_ros_map(write(tmp_path, noise), max_boxes=100)


def test_a_map_without_free_cells_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must have free cells"):
        worlds.from_ros_map(write(tmp_path, np.zeros((5, 5), np.uint8)))


@pytest.mark.parametrize(
    "name, size, cells", [("depot", (30.2, 15.35), 2.0), ("warehouse", (30.18, 50.22), 3.0)]
)
def test_nav2_maps(name: str, size: tuple[float, float], cells: float) -> None:
    path = DATA / "maps" / f"{name}.yaml"
    if not path.is_file():
        pytest.skip(f"no maps at {path.parent}")
    world = worlds.from_ros_map(path, fence=False)
    xmin, ymin, xmax, ymax = world.bounds
    assert (xmax - xmin, ymax - ymin) == pytest.approx(size)
    meta = MapYaml.read(path)
    image = cv2.imread(str(meta.image), cv2.IMREAD_UNCHANGED)
    percent = occupancy(image, meta)
    # at the map's own resolution the boxes give back exactly the map
    assert np.array_equal(world.grid(meta.resolution).data, percent)
    assert len(world.boxes) * cells < (percent == 100).sum()
    points = worlds.from_ros_map(path).free_points(np.random.default_rng(0), 30, 0.6)
    assert world.connects(points)
    cell = ((points - (xmin, ymin)) / meta.resolution).astype(int)
    assert (percent[cell[:, 1], cell[:, 0]] == 0).all()


def test_barn_images_agree_with_their_cylinders() -> None:
    index = DATA / "barn" / "index.json"
    if not index.is_file():
        pytest.skip(f"no BARN data at {index.parent}")
    entries = json.loads(index.read_text())
    for name in sorted(entries)[::7]:
        world = worlds.from_ros_map(index.parent / f"{name}.yaml", fence=False)
        field = worlds.barn(entries[name])
        low = world.boxes[:, :2] - world.boxes[:, 2:]
        high = world.boxes[:, :2] + world.boxes[:, 2:]
        # each cylinder lies on walls, each wall within a cell (.05 m, .071 across) of one
        assert world.clearance(field.discs[:, :2]).max() < 0.05
        corners = np.concatenate([low, high, np.stack([low[:, 0], high[:, 1]], axis=1)])
        assert field.clearance(corners).max() < 0.0708
