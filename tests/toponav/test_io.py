"""Files of the topological map: what is written is read back, and what is damaged is refused."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sim import worlds
from sim.worlds.ros_map import MapYaml, occupancy
from toponav import io
from toponav.graph import GraphConfig, TopologicalMap

COV = np.diag([0.01, 0.02, 0.03])
CONFIG = GraphConfig(max_nodes=30, drop_failures=99)


def wander(seed: int, steps: int = 60) -> TopologicalMap:
    """A random drive, so that every field has some value other than its default."""
    rng = np.random.default_rng(seed)
    graph, x = TopologicalMap(CONFIG), np.zeros(3)
    for t in range(steps):
        x = x + [*rng.normal(0, 1.5, 2), rng.normal()]
        graph.observe(
            x, COV * rng.uniform(0.1, 2), t * 1.7, lambda i, t=t: (i + t) % 2 == 0,
            rng.normal(1, 0.5, 5) if t % 3 else None, ("", "door", "shelf")[t % 3],
            bool(rng.random() < 0.1),
        )  # fmt: skip
    edges = list(graph.edges())
    for a, b, edge in edges[:3]:
        edge.roughness = rng.uniform()
        graph.fail(b, a, 200.0)
    for node in list(graph.nodes.values())[::2]:
        node.gain = rng.uniform(0, 9)
    return graph


def files(folder: Path) -> dict[str, bytes]:
    """Everything that lies in a folder, hidden or below."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def graph() -> TopologicalMap:
    return wander(0)


@pytest.fixture
def room() -> np.ndarray:
    """(20, 30) walled room: a block at the lower left, an unknown patch at the upper right."""
    data = np.zeros((20, 30), np.int8)
    data[[0, -1]] = data[:, [0, -1]] = 100
    data[2:5, 3:9] = 100
    data[14:17, 22:27] = -1
    return data


# JSON


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40))
def test_a_saved_map_is_loaded_bit_for_bit(tmp_path_factory, seed, steps):
    path = tmp_path_factory.getbasetemp() / "graph.json"
    graph = wander(seed, steps)
    io.save_graph(path, graph)
    assert io.load_graph(path, CONFIG).state_dict() == graph.state_dict()


def edited(path: Path, change: Any) -> Path:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(version=2), "version must be 1, got 2"),
        (lambda c: c.update(version=True), "version must be 1, got True"),
        (lambda c: c.update(schema="x"), "schema must be 'toponav.graph', got 'x'"),
        (lambda c: c.pop("graph"), "state must be dict, got None"),
        (lambda c: c["graph"]["nodes"][3].pop("cov"), r"nodes\[3\] must have .* missing \['cov'\]"),
        (lambda c: c["graph"]["edges"][1].update(beta="1"), r"edges\[1\]\.beta must be a number"),
        (lambda c: c["graph"]["nodes"][3].update(gain=0.123), "sha256 must be .* damaged"),
        (lambda c: c.pop("sha256"), "sha256 must be .* got None"),
    ],
)
def test_a_saved_map_that_was_changed_is_refused_by_field(tmp_path, graph, change, words):
    io.save_graph(tmp_path / "graph.json", graph)
    with pytest.raises(ValueError, match=r"graph\.json: " + words):
        io.load_graph(edited(tmp_path / "graph.json", change), CONFIG)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b'{"a": NaN}', b"[" * 9999, b"3"])
def test_what_is_no_map_is_refused(tmp_path, raw):
    (tmp_path / "graph.json").write_bytes(raw)
    for load in (io.load_graph, io.import_geojson):
        with pytest.raises(ValueError, match=r"graph\.json: (not JSON|schema must|type must)"):
            load(tmp_path / "graph.json")
    with pytest.raises(FileNotFoundError):
        io.load_graph(tmp_path / "none.json")


def test_a_map_cut_at_any_byte_is_refused(tmp_path, graph):
    io.save_graph(tmp_path / "graph.json", graph)
    raw = (tmp_path / "graph.json").read_bytes()
    for size in range(0, len(raw) - 1, 997):
        (tmp_path / "graph.json").write_bytes(raw[:size])
        with pytest.raises(ValueError, match="not JSON"):
            io.load_graph(tmp_path / "graph.json", CONFIG)


def test_a_map_that_could_not_be_loaded_is_not_saved(tmp_path, graph):
    graph.nodes[max(graph.nodes)].gain = math.nan
    for save in (io.save_graph, lambda path, graph: io.export_geojson(path, graph, 0.0)):
        with pytest.raises(ValueError, match=r"gain must be a number, got None"):
            save(tmp_path / "graph.json", graph)
    assert not files(tmp_path)


# GeoJSON of the Nav2 route server


def as_the_route_server_reads(path: Path) -> tuple[dict[int, Any], list[dict[str, Any]]]:
    """Nodes and directed edges after nav2_route's GeoJsonGraphFileLoader, by its rules.

    Points are nodes, both kinds of lines are edges; ids are unsigned; metadata holds plain values,
    lists of them, and objects; an edge needs its two nodes.
    """

    def plain(value: Any) -> Any:
        assert isinstance(value, str | bool | int | float), value
        return value

    def metadata(value: dict[str, Any]) -> dict[str, Any]:
        return {
            key: metadata(v) if isinstance(v, dict)
            else [plain(e) for e in v] if isinstance(v, list) else plain(v)
            for key, v in value.items()
        }  # fmt: skip

    nodes, edges = {}, []
    features = json.loads(path.read_text(), parse_constant=pytest.fail)["features"]
    for feature in (f for f in features if f["geometry"]["type"] == "Point"):
        p, xy = feature["properties"], feature["geometry"]["coordinates"]
        nodes[np.uint32(p["id"])] = (
            *map(np.float32, xy[:2]),
            str(p["frame"]),
            metadata(p["metadata"]),
        )
    for feature in (
        f for f in features if f["geometry"]["type"] in ("LineString", "MultiLineString")
    ):
        p = feature["properties"]
        assert {p["startid"], p["endid"]} <= nodes.keys()
        edges.append(p | {"metadata": metadata(p["metadata"])})
    assert nodes and edges
    return nodes, edges


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_an_exported_map_is_one_the_route_server_takes_and_comes_back_bit_for_bit(
    tmp_path_factory, seed
):
    path = tmp_path_factory.getbasetemp() / "graph.geojson"
    graph = wander(seed)
    io.export_geojson(path, graph, 250.0, date_generated="Wed Feb 22 05:41:45 PM EST 2025")
    nodes, edges = as_the_route_server_reads(path)
    assert {i: n[:2] for i, n in nodes.items()} == {
        i: tuple(np.float32(n.pose_w[:2])) for i, n in graph.nodes.items()
    }
    lanes = {(e["startid"], e["endid"]): e for e in edges}
    assert len(lanes) == len(edges) == 2 * len(list(graph.edges()))
    for a, b, edge in graph.edges():
        for lane in (lanes[a, b], lanes[b, a]):
            assert ("toponav" in lane["metadata"]) == (lane["startid"] == a)  # once is enough
            assert lane["cost"] == pytest.approx(graph.cost(edge, 250.0)) and lane["cost"] > 0
            assert lane["metadata"].get("abs_time_taken", math.nan) == pytest.approx(
                edge.time_s, nan_ok=True
            )
    ids = [*nodes, *(e["id"] for e in edges)]
    assert len(set(ids)) == len(ids)
    assert io.import_geojson(path, CONFIG).state_dict() == graph.state_dict()


def test_the_collection_says_what_it_is(tmp_path, graph):
    io.export_geojson(tmp_path / "hall.geojson", graph, 0.0, frame="site", date_generated="today")
    content = json.loads((tmp_path / "hall.geojson").read_text())
    assert content["type"] == "FeatureCollection" and content["name"] == "hall"
    assert content["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::3857"
    assert content["date_generated"] == "today"
    (first, *_), last = content["features"], content["features"][-1]
    assert first["properties"]["frame"] == "site"
    ends = [
        graph.nodes[last["properties"][end]].pose_w[:2].tolist() for end in ("startid", "endid")
    ]
    assert last["geometry"] == {"type": "MultiLineString", "coordinates": [ends]}
    with pytest.raises(ValueError, match=r"features\[0\] properties.frame must be 'map', got 'si"):
        io.import_geojson(tmp_path / "hall.geojson")


def test_places_without_a_way_between_cost_the_route_server_more_than_nothing(tmp_path):
    graph = TopologicalMap()
    for _ in range(2):
        graph.observe([0, 0, 0], COV, 0, (), landmark=True)
        graph.lost()
    graph.arrive(0, 0)
    graph.arrive(1, 0)
    assert graph.edge(0, 1).length_m == 0
    io.export_geojson(tmp_path / "g.geojson", graph, 0.0)
    assert all(e["cost"] > 0 for e in as_the_route_server_reads(tmp_path / "g.geojson")[1])


def test_a_map_without_edges_is_not_exported(tmp_path):
    graph = TopologicalMap()
    graph.observe([0, 0, 0], COV, 0, ())
    with pytest.raises(ValueError, match="must have nodes .* and edges, at least one, got 1 and 0"):
        io.export_geojson(tmp_path / "g.geojson", graph, 0.0)
    assert not files(tmp_path)


def plan_of_others() -> dict[str, Any]:
    """A surveyed graph as people draw them for Nav2: three places in a row."""

    def point(node: int, x: float, **properties: Any) -> dict[str, Any]:
        geometry = {"type": "Point", "coordinates": [x, 1.0]}
        return {"type": "Feature", "properties": {"id": node} | properties, "geometry": geometry}

    def lane(edge: int, a: int, b: int, geometry: dict[str, Any], **more: Any) -> dict[str, Any]:
        properties = {"id": edge, "startid": a, "endid": b} | more
        return {"type": "Feature", "properties": properties, "geometry": geometry}

    stop = {"type": "stop", "trigger": "NODE", "metadata": {"wait_for": 5.0}}
    line = {"type": "LineString", "coordinates": [[0, 1], [3, 1]]}
    multi = {"type": "MultiLineString", "coordinates": [[[3, 1], [7, 1]]]}
    bare = {"type": "MultiLineString"}  # as the route server itself writes them
    return {
        "type": "FeatureCollection",
        "features": [
            point(4, 0, frame="map", metadata={"class": "dock", "area": {"xs": [1.0, 2]}}),
            point(2, 3, operations={"stop": stop}),
            point(9, 7, operations=[dict(stop)], metadata=None),
            lane(20, 4, 2, line, cost=3, overridable=False),
            lane(21, 2, 4, bare, metadata={"abs_time_taken": 6.5}),
            lane(22, 2, 9, multi),
            lane(23, 9, 2, multi),
        ],
    }  # fmt: skip


def write(folder: Path, content: Any) -> Path:
    (folder / "plan.geojson").write_text(json.dumps(content))
    return folder / "plan.geojson"


def test_a_plan_of_others_becomes_a_map_of_surveyed_landmarks(tmp_path):
    io.validate_geojson(plan_of_others())
    graph = io.import_geojson(write(tmp_path, plan_of_others()))
    assert {i: (n.pose_w.tolist(), n.kind) for i, n in graph.nodes.items()} == {
        2: ([3, 1, 0], ""), 4: ([0, 1, 0], "dock"), 9: ([7, 1, 0], ""),
    }  # fmt: skip
    assert all(n.landmark and not n.cov.any() for n in graph.nodes.values())
    assert [(a, b, e.length_m) for a, b, e in graph.edges()] == [(2, 4, 3.0), (2, 9, 4.0)]
    assert graph.edge(2, 4).time_s == 6.5 and math.isnan(graph.edge(2, 9).time_s)
    assert graph.plan(4, 9, 0) == [4, 2, 9] and graph.home == 2
    content = plan_of_others()
    again = content["features"][4]["properties"] | {"id": 24, "metadata": {"abs_time_taken": 99.0}}
    content["features"].append(content["features"][4] | {"properties": again})
    parallel = io.import_geojson(write(tmp_path, content))
    assert (
        parallel.state_dict() == io.import_geojson(write(tmp_path, plan_of_others())).state_dict()
    )
    assert graph.observe([1.5, 9, 0], COV, 0, ()) == 10  # ids go on above theirs


def test_a_lane_that_leads_one_way_is_opened_only_if_asked(tmp_path):
    content = plan_of_others()
    del content["features"][-1]
    path = write(tmp_path, content)
    with pytest.raises(ValueError, match=r"features\[5\] leads from 2 to 9 only; one_way=True"):
        io.import_geojson(path)
    assert io.import_geojson(path, one_way=True).plan(9, 4, 0) == [9, 2, 4]


def test_slips_that_the_route_server_overlooks_are_imported_but_not_valid(tmp_path):
    slips = {
        "id must be unique": lambda f: f[5]["properties"].update(id=20),
        "endid must be another node": lambda f: f.append(
            f[3] | {"properties": {"id": 24, "startid": 4, "endid": 4}}
        ),
        "coordinates must be": lambda f: f[3]["geometry"].update(coordinates=[[[0, 1], [3, 1]]]),
    }
    for words, slip in slips.items():
        content = plan_of_others()
        slip(content["features"])
        with pytest.raises(ValueError, match=words):
            io.validate_geojson(content)
        assert len(list(io.import_geojson(write(tmp_path, content)).edges())) == 2


def test_a_node_moved_and_one_added_in_an_editor_are_taken_over(tmp_path, graph):
    io.export_geojson(tmp_path / "plan.geojson", graph, 0.0)
    content = json.loads((tmp_path / "plan.geojson").read_text())
    first = content["features"][0]
    first["geometry"]["coordinates"] = [77, 78]
    new = max(f["properties"]["id"] for f in content["features"]) + 1
    other = {"id": new, "frame": "map"}
    content["features"].append(first | {"properties": other})
    loaded = io.import_geojson(write(tmp_path, content), CONFIG)
    assert loaded.nodes[first["properties"]["id"]].pose_w[:2].tolist() == [77, 78]
    assert loaded.nodes[new].landmark and loaded.state_dict()["next_id"] == new + 1


BAD = {
    "type must be 'FeatureCollection', got 'Feature'": lambda c: c.update(type="Feature"),
    "features must be a list, got None": lambda c: c.pop("features"),
    r"features\[1\] must be an object, got 3": lambda c: c["features"].__setitem__(1, 3),
    r"features must have nodes \(Point\) and edges, .* got 3 and 0": (
        lambda c: c["features"].__delitem__(slice(3, None))
    ),
    r"features\[1\] type must be 'Feature', got None": lambda c: c["features"][1].pop("type"),
    r"features\[1\] geometry must be an object": lambda c: c["features"][1].update(geometry=None),
    r"features\[1\] properties must be an object": lambda c: c["features"][1].pop("properties"),
    r"features\[1\] geometry.type must be Point, .* got 'Polygon'": (
        lambda c: c["features"][1]["geometry"].update(type="Polygon")
    ),
    r"features\[1\] properties.id must be unique, got 4 as in features\[0\]": (
        lambda c: c["features"][1]["properties"].update(id=4)
    ),
    r"features\[3\] properties.id must be unique, got 9 as in features\[2\]": (
        lambda c: c["features"][3]["properties"].update(id=9)
    ),
    r"features\[1\] properties.id must be a whole number in 0\.\.2147483646, got -1": (
        lambda c: c["features"][1]["properties"].update(id=-1)
    ),
    r"features\[1\] properties.id .* got 2147483647": (
        lambda c: c["features"][1]["properties"].update(id=2**31 - 1)
    ),
    r"features\[1\] properties.id .* got '2'": (
        lambda c: c["features"][1]["properties"].update(id="2")
    ),
    r"features\[3\] properties.endid must be the id of a node, got 5": (
        lambda c: c["features"][3]["properties"].update(endid=5)
    ),
    r"features\[3\] properties.startid .* got None": (
        lambda c: c["features"][3]["properties"].pop("startid")
    ),
    r"features\[1\] geometry.coordinates must be \[x, y\], finite, got \[nan": (
        lambda c: c["features"][1]["geometry"].update(coordinates=[math.nan, 0])
    ),
    r"features\[1\] geometry.coordinates must be \[x, y\], finite, got \[1e\+39": (
        lambda c: c["features"][1]["geometry"].update(coordinates=[1e39, 0])
    ),
    r"features\[1\] geometry.coordinates .* got \[\[3": (
        lambda c: c["features"][1]["geometry"].update(coordinates=[[3, 1]])
    ),
    r"features\[3\] geometry.coordinates must be .* for a LineString": (
        lambda c: c["features"][3]["geometry"].update(coordinates=[[[0, 1], [3, 1]]])
    ),
    r"features\[5\] geometry.coordinates must be .* for a MultiLineString": (
        lambda c: c["features"][5]["geometry"].update(coordinates=[[0, 1], [3, 1]])
    ),
    r"features\[3\] properties.cost must be a number >= 0, got -1": (
        lambda c: c["features"][3]["properties"].update(cost=-1)
    ),
    r"features\[3\] properties.overridable must be true or false, got 1": (
        lambda c: c["features"][3]["properties"].update(overridable=1)
    ),
    r"features\[0\] properties.frame must be text, got None": (
        lambda c: c["features"][0]["properties"].update(frame=None)
    ),
    r"features\[0\] properties.metadata.area.xs must be .* got \[1.0, None\]": (
        lambda c: c["features"][0]["properties"]["metadata"]["area"].update(xs=[1.0, None])
    ),
    r"features\[0\] properties.metadata.class must be .* got None": (
        lambda c: c["features"][0]["properties"]["metadata"].update({"class": None})
    ),
    r"features\[1\] properties.operations\['stop'\].trigger must be one of .* got 'EDGE'": (
        lambda c: c["features"][1]["properties"]["operations"]["stop"].update(trigger="EDGE")
    ),
    r"features\[2\] properties.operations\[0\].type must be text, got None": (
        lambda c: c["features"][2]["properties"]["operations"][0].pop("type")
    ),
}


@pytest.mark.parametrize("words", BAD)
def test_a_graph_that_the_route_server_would_misread_is_refused_by_feature_and_field(words):
    content = plan_of_others()
    BAD[words](content)
    with pytest.raises(ValueError, match=words):
        io.validate_geojson(content)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["metadata"]["toponav"].update(version=2), "metadata.toponav.version must be"),
        (lambda c: c["metadata"]["toponav"].update(home=10**6), "home must be one of the nodes"),
        (lambda c: c["features"][0]["properties"]["metadata"].update(toponav=3),
         r"features\[0\] properties.metadata.toponav must be an object"),
        (lambda c: c["features"][0]["properties"]["metadata"]["toponav"].update(cov=[1.0]),
         r"nodes\[0\].cov must be 9 numbers"),
    ],
)  # fmt: skip
def test_damage_to_what_is_ours_in_a_route_graph_is_refused(tmp_path, graph, change, words):
    io.export_geojson(tmp_path / "plan.geojson", graph, 0.0)
    with pytest.raises(ValueError, match=r"plan\.geojson: " + words):
        io.import_geojson(edited(tmp_path / "plan.geojson", change), CONFIG)


# ROS maps


@settings(max_examples=25, deadline=None)
@given(
    hnp.arrays(np.int8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
               elements=st.sampled_from([-1, 0, 100])),
    st.floats(1e-6, 1e3), st.floats(-1e20, 1e20), st.floats(-1e20, 1e20),
)  # fmt: skip
def test_a_map_comes_back_as_it_was_saved(tmp_path_factory, data, resolution, x, y):
    path = io.save_map(tmp_path_factory.getbasetemp() / "map", data, resolution, (x, y))
    loaded, *rest = io.load_map(path)
    assert np.array_equal(loaded, data) and loaded.dtype == np.int8
    assert rest == [resolution, (x, y)]
    keys = yaml.safe_load(path.read_text())
    assert (keys["resolution"], keys["origin"]) == (resolution, [x, y, 0.0])


def test_the_simulator_finds_the_walls_of_a_saved_map_where_they_were(tmp_path, room):
    path = io.save_map(tmp_path / "room", room, 0.1, (-1.0, 2.0))
    world = worlds.from_ros_map(path)
    assert world.bounds == pytest.approx((-1.0, 2.0, 2.0, 4.0))
    assert np.array_equal(world.grid(0.1).data, room)
    block = [-1 + 0.6, 2 + 0.35, 0.3, 0.15]  # columns 3 to 9, rows 2 to 5 from the bottom
    assert np.abs(world.boxes - np.float32(block)).max(axis=1).min() < 1e-5


def test_the_image_has_the_largest_y_on_top_and_the_greys_of_map_saver(tmp_path, room):
    path = io.save_map(tmp_path / "room", room, 0.1, (0, 0))
    image = cv2.imread(str(tmp_path / MapYaml.read(path).image), cv2.IMREAD_UNCHANGED)
    grey = np.where(room == 0, 254, np.where(room < 0, 205, 0))
    assert np.array_equal(image, grey[::-1])


@pytest.mark.parametrize("negate", [0, 1])
def test_every_grey_means_what_it_means_to_map_server(tmp_path, negate):
    image = np.arange(256, dtype=np.uint8).reshape(8, 32)
    (tmp_path / "m.pgm").write_bytes(b"P5 # by hand\n32 8 # wide, high\n255\n" + image.tobytes())
    (tmp_path / "m.yaml").write_text(
        "# a map\nimage: m.pgm  # beside\nresolution: 5e-2\norigin: [-10, 2.5, 0.0]\n\n"
        f"negate: {negate}\noccupied_thresh: 0.65\nfree_thresh: 0.25\n"
    )
    data, resolution, origin_w = io.load_map(tmp_path / "m.yaml")
    assert np.array_equal(data, occupancy(image, MapYaml.read(tmp_path / "m.yaml")))
    assert (resolution, origin_w) == (0.05, (-10.0, 2.5)) and set(np.unique(data)) == {-1, 0, 100}


@pytest.mark.parametrize("name", ["a b", "#1: hall", "Küche", "it's", 'say "x"', "a.b", "-", "🤖"])
def test_any_printable_name_works(tmp_path, room, name):
    path = io.save_map(tmp_path / name, room, 0.1, (0, 0))
    assert path == tmp_path / f"{name}.yaml" and np.array_equal(io.load_map(path)[0], room)
    assert MapYaml.read(path).image.is_file()


def test_replacing_a_map_leaves_no_old_image_and_touches_no_other_file(tmp_path, room):
    io.save_map(tmp_path / "room", room, 0.1, (0, 0))
    others = ("room-202403011230.pgm", "room2-0123456789ab.pgm", "room.txt")
    for name in others:
        (tmp_path / name).write_text("mine")
    (tmp_path / "room-aaaaaaaaaaaa.pgm").mkdir()
    path = io.save_map(tmp_path / "room", room[:, ::-1], 0.1, (0, 0))
    assert len(files(tmp_path)) == 2 + len(others) and set(others) < files(tmp_path).keys()
    assert np.array_equal(io.load_map(path)[0], room[:, ::-1])


@pytest.mark.parametrize(
    ("line", "new", "words"),
    [
        ("resolution", "resolution: 0", "resolution must be > 0 m and finite, got '0'"),
        ("resolution", "resolution: a", "resolution must be a finite number, got 'a'"),
        ("resolution", "", "missing resolution"),
        (
            "resolution",
            "resolution: 1\nresolution: 1",
            "line 4 must be 'key: value' with a new key",
        ),
        ("negate", "negate: 2", "negate must be 0 or 1, got '2'"),
        ("mode", "mode: scale", "mode must be trinary, got 'scale'"),
        ("mode", "colour: red", "line 2 must be 'key: value' with a new key of free_thresh, image"),
        ("mode", "mode", "line 2 must be"),
        ("mode", " mode: trinary", "line 2 must be"),
        ("image", 'image: "\\q"', "line 1 must be quoted as in JSON"),
        ("image", "image: 'room.pgm'", "line 1 must be"),
        ("image", "image:   ", "line 1 must be"),
        ("origin", "origin: [0, 0]", r"origin must be \[x, y, yaw\], got '\[0, 0\]'"),
        ("origin", "origin: 0, 0, 0", r"origin must be \[x, y, yaw\]"),
        ("origin", "origin: [0, inf, 0]", "origin must be a finite number, got ' inf'"),
        ("origin", "origin: [0, 0, 0.1]", r"origin must be \[x, y, 0\], a map that is not turned"),
        ("free", "free_thresh: 0.7", r"free_thresh must be in \[0, occupied_thresh <= 1\]"),
    ],
)
def test_a_map_yaml_that_is_not_as_it_must_be_is_refused_by_key(tmp_path, room, line, new, words):
    path = io.save_map(tmp_path / "room", room, 0.1, (0, 0))
    lines = path.read_text().splitlines()
    path.write_text("\n".join(new if one.startswith(line) else one for one in lines))
    with pytest.raises(ValueError, match=r"room\.yaml: " + words):
        io.load_map(path)


def test_a_damaged_or_missing_image_is_refused(tmp_path, room):
    path = io.save_map(tmp_path / "room", room, 0.1, (0, 0))
    (image,) = tmp_path.glob("*.pgm")
    raw = image.read_bytes()
    for bad in (raw[:-1], raw + b"0", raw[:5], b"P2" + raw[2:], raw.replace(b"255", b"15", 1),
                b"P5\n0 0\n255\n"):  # fmt: skip
        image.write_bytes(bad)
        with pytest.raises(ValueError, match=r"room\.yaml: image must"):
            io.load_map(path)
    image.unlink()
    with pytest.raises(FileNotFoundError, match=image.name):
        io.load_map(path)
    (tmp_path / "x.yaml").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"x\.yaml: not UTF-8"):
        io.load_map(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": np.zeros((2, 2))}, r"data must be \(H, W\) int8, got \(2, 2\) float64"),
        ({"data": np.zeros((0, 2), np.int8)}, "data must be"),
        ({"data": np.full((2, 2), 37, np.int8)}, r"data must be -1, 0 or 100, got \[37\]"),
        ({"resolution": 0}, "resolution must be > 0 m"),
        ({"resolution": math.nan}, "resolution must be > 0 m"),
        ({"origin_w": (0, 0, 0)}, "origin_w must be 2 finite numbers"),
        ({"origin_w": (0, math.inf)}, "origin_w must be 2 finite numbers"),
        ({"stem": "a\nb"}, "stem must end in a printable name"),
    ],
)
def test_a_map_that_cannot_be_is_not_saved(tmp_path, room, changes, words):
    good = {"stem": "m", "data": room, "resolution": 0.1, "origin_w": (0, 0)} | changes
    with pytest.raises(ValueError, match=words):
        io.save_map(**good | {"stem": tmp_path / good["stem"]})
    assert not files(tmp_path)


# Crashes


class Crash(BaseException):
    """Neither an error that is handled nor one that is expected."""


def crash_at(monkeypatch: pytest.MonkeyPatch, rename: int) -> None:
    """Let the process end at its ``rename``-th rename, before it is done."""
    replace, calls = os.replace, []

    def crash(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == rename:
            raise Crash
        replace(source, target)

    monkeypatch.setattr(io.os, "replace", crash)


@pytest.mark.parametrize(
    "save",
    [
        lambda folder, seed: io.save_graph(folder / "g", wander(seed)),
        lambda folder, seed: io.export_geojson(folder / "g", wander(seed), 0.0),
        lambda folder, seed: io.save_map(folder / "g", np.full((2, 2), -seed, np.int8), 1, (0, 0)),
    ],
)
def test_a_crash_between_write_and_rename_leaves_what_was_there(tmp_path, monkeypatch, save):
    save(tmp_path, 0)
    before = files(tmp_path)
    crash_at(monkeypatch, 1)
    with pytest.raises(Crash):
        save(tmp_path, 1)
    assert files(tmp_path) == before
    monkeypatch.undo()
    save(tmp_path, 1)
    assert files(tmp_path) != before and len(files(tmp_path)) == len(before)


def test_a_crash_between_image_and_yaml_leaves_the_old_map(tmp_path, monkeypatch, room):
    path = io.save_map(tmp_path / "m", room, 0.1, (0, 0))
    crash_at(monkeypatch, 2)
    with pytest.raises(Crash):
        io.save_map(tmp_path / "m", room[:, ::-1], 0.2, (5, 5))
    loaded, *rest = io.load_map(path)
    assert np.array_equal(loaded, room) and rest == [0.1, (0, 0)]
    monkeypatch.undo()
    io.save_map(tmp_path / "m", room, 0.1, (0, 0))
    assert len(files(tmp_path)) == 2  # the image that nothing names is gone


def test_a_file_is_on_the_disk_before_it_is_renamed_and_the_name_before_we_go_on(
    tmp_path, monkeypatch, graph
):
    events = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            io.os, name, lambda *a, real=real, name=name: (events.append(name), real(*a))[1]
        )
    io.save_graph(tmp_path / "g.json", graph)
    assert events == ["fsync", "replace", "fsync"]


def test_a_process_killed_before_the_rename_leaves_the_old_file(tmp_path, graph):
    path = tmp_path / "g.json"
    io.save_graph(path, graph)
    before = path.read_bytes()
    script = (
        "import os, sys; from toponav import io\n"
        "os.replace = lambda *names: os._exit(9)\n"
        "graph = io.load_graph(sys.argv[1]); graph.lost(); io.save_graph(sys.argv[1], graph)"
    )
    root = Path(io.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script, str(path)], cwd=root, timeout=60)
    assert done.returncode == 9 and path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == ["g.json"]


def test_files_get_the_ordinary_permissions_and_folders_are_made(tmp_path, graph):
    io.save_graph(tmp_path / "new" / "deep" / "g.json", graph)
    (tmp_path / "plain").write_text("")
    made = (tmp_path / "new" / "deep" / "g.json").stat().st_mode
    assert made == (tmp_path / "plain").stat().st_mode
