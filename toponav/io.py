"""The one file door of this room: the topological map as JSON or Nav2 GeoJSON, a grid as ROS map,
the scans of a localizer.

Files are written aside, synced and renamed: a reader, or a start after a power cut, finds the old
file or the new one. Errors begin with the path and name the field.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import tempfile
import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .graph import GraphConfig, TopologicalMap
from .localizer import Localizer, LocalizerConfig

SCHEMA, VERSION = "toponav.graph", 1
ID_LIMIT = 2**31 - 1
"""Ids of GeoJSON features are below: the route server marks deleted nodes with this number."""
MIN_COST = 1e-3
"""Least cost of an exported edge, m: without scorers the route server refuses a cost of 0."""
FLOAT32_MAX = float(np.finfo(np.float32).max)
TRIGGERS = ("NODE", "ON_ENTER", "ON_EXIT")
FREE_GREY, UNKNOWN_GREY, OCCUPIED_GREY = 254, 205, 0
OCCUPIED_THRESH, FREE_THRESH = 0.65, 0.196
"""Shares of black, from which on a pixel is occupied, below which it is free; grey 205 is neither
(0.1961)."""


# The topological map, complete


def save_graph(path: str | Path, graph: TopologicalMap) -> None:
    """Write the map, all but its config, as JSON.

    Raises:
        ValueError: a field that the caller set is not what it must be.
    """
    state = _checked(graph)
    content = {"schema": SCHEMA, "version": VERSION, "sha256": _digest(_dump(state))}
    _publish(Path(path), _dump(content | {"graph": state}) + b"\n")


def load_graph(path: str | Path, config: GraphConfig | None = None) -> TopologicalMap:
    """The map that :func:`save_graph` wrote, bit for bit.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, of another schema or version, or damaged.
    """
    content = _read_json(path)
    for key, want in (("schema", SCHEMA), ("version", VERSION)):
        got = content.get(key) if isinstance(content, dict) else None
        if got != want or isinstance(got, bool):
            raise ValueError(f"{path}: {key} must be {want!r}, got {got!r:.80}")
    graph = _map_of(path, content.get("graph"), config)
    if content.get("sha256") != (want := _digest(_dump(content["graph"]))):
        raise ValueError(
            f"{path}: sha256 must be {want}, got {content.get('sha256')!r:.80}: damaged"
        )
    return graph


def _checked(graph: TopologicalMap) -> dict[str, Any]:
    """The state, once it is sure that it can be loaded."""
    state = graph.state_dict()
    TopologicalMap(graph.config).load_state_dict(state)
    return state


def _dump(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False).encode()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# The scans that a localizer matches against


def save_scans(path: str | Path, localizer: Localizer) -> None:
    """Write all that a localizer keeps, as compressed NumPy arrays (.npz)."""
    buffer = BytesIO()
    np.savez_compressed(buffer, **localizer.state_dict())  # type: ignore[arg-type]
    _publish(Path(path), buffer.getvalue())


def load_scans(path: str | Path, config: LocalizerConfig | None = None) -> Localizer:
    """The localizer that :func:`save_scans` wrote; nothing is unpickled.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds something else.
    """
    localizer = Localizer(config)
    try:
        with np.load(path, allow_pickle=False) as file:
            localizer.load_state_dict({name: file[name] for name in file.files})
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: must be scans of a localizer: {error}") from None
    return localizer


# The topological map as a route graph of Nav2


def export_geojson(
    path: str | Path, graph: TopologicalMap, t_s: float, frame: str = "map",
    date_generated: str | None = None,
) -> None:  # fmt: skip
    """Write the map for the Nav2 route server (nav2_route, GeoJsonGraphFileLoader).

    A node is a Point, an edge two MultiLineStrings, one for each direction. Nodes keep their ids;
    edges get ids above them, because the route server blocks nodes and edges by one list of ids.
    ``cost`` is that of :meth:`TopologicalMap.cost` and may be overridden by scorers. Blocks and
    doubts last seconds and the file longer: they are in the metadata only.

    ``metadata`` holds ``class`` (SemanticScorer) and ``abs_time_taken`` (TimeScorer) where known,
    and under ``toponav`` all that :func:`import_geojson` needs to restore the map bit for bit.

    Args:
        path: of the file; its stem becomes the name of the graph.
        graph: with at least one edge.
        t_s: time for which costs are computed.
        frame: tf frame of the map.
        date_generated: any text, left out if None.

    Raises:
        ValueError: the route server would refuse the graph, or a field that the caller set is not
            what it must be.
    """
    state = _checked(graph)
    features = [_point(entry, frame) for entry in state.pop("nodes")]
    next_id = state["next_id"]
    for k, entry in enumerate(state.pop("edges")):
        a, b = entry.pop("a"), entry.pop("b")
        edge = graph.edge(a, b)
        assert edge is not None
        cost, took = max(graph.cost(edge, t_s), MIN_COST), entry.pop("time_s")
        ours = {"toponav": {key: v for key, v in entry.items() if v is not None}}
        tags = {} if took is None else {"abs_time_taken": took}
        ends = [graph.nodes[i].pose_w[:2].tolist() for i in (a, b)]
        for n, (start, end) in enumerate([(a, b), (b, a)]):
            properties = {
                "id": next_id + 2 * k + n,
                "startid": start,
                "endid": end,
                "cost": cost,
                "overridable": True,
                "metadata": tags | ours if n == 0 else tags,
            }
            line = {"type": "MultiLineString", "coordinates": [ends if n == 0 else ends[::-1]]}
            features.append({"type": "Feature", "properties": properties, "geometry": line})
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3857"}}
    head = {"type": "FeatureCollection", "name": Path(path).stem, "crs": crs}
    head |= {} if date_generated is None else {"date_generated": date_generated}
    head |= {"metadata": {"toponav": {"version": VERSION} | state}}
    validate_geojson(head | {"features": features})
    lines = b",\n".join(map(_dump, features))
    _publish(Path(path), _dump(head)[:-1] + b', "features": [\n' + lines + b"\n]}\n")


def import_geojson(
    path: str | Path, config: GraphConfig | None = None, frame: str = "map", one_way: bool = False
) -> TopologicalMap:
    """A map from a route graph: ours restored, one of others as a surveyed plan.

    What a feature lacks because we did not write it: nodes are landmarks with an exact position,
    edges as long as the straight line, everything seen at 0 s. x and y are those of the Point, so
    that nodes may be moved in an editor. Operations, costs and metadata of others are not kept.

    Args:
        path: of the file.
        config: of the map.
        frame: the frame that nodes must be in, if they name one.
        one_way: open lanes that lead one way only in both directions; our edges have none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: :func:`validate_geojson` refuses the file even if not strict (Nav2's own samples
            have such edges; of parallel ones the first counts), a node is in another frame, a lane
            is one way, or a field of ours is damaged.
    """
    content = _read_json(path)
    try:
        validate_geojson(content, strict=False)
        state = _import(content, frame, one_way)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None
    return _map_of(path, state, config)


def _import(content: dict[str, Any], frame: str, one_way: bool) -> dict[str, Any]:
    """State of a map from a valid route graph."""
    nodes: dict[int, dict[str, Any]] = {}
    edges: dict[tuple[int, int], dict[str, Any]] = {}
    lanes: dict[tuple[int, int], str] = {}
    for k, feature in enumerate(content["features"]):
        at, properties, geometry = f"features[{k}]", feature["properties"], feature["geometry"]
        metadata = properties.get("metadata") or {}
        ours = _ours(metadata, f"{at} properties.metadata")
        if geometry["type"] == "Point":
            name = properties.get("frame") or frame
            _want(name == frame, at, "properties.frame", repr(frame), name)
            nodes[properties["id"]] = _node_state(properties["id"], geometry, metadata, ours)
        elif (a := properties["startid"]) != (b := properties["endid"]):
            lanes[a, b] = at
            known = edges.get((min(a, b), max(a, b)), {})
            took = {"time_s": metadata["abs_time_taken"]} if "abs_time_taken" in metadata else {}
            edges[min(a, b), max(a, b)] = took | ours | known
    for (a, b), at in lanes.items():
        if not one_way and (b, a) not in lanes:
            raise ValueError(f"{at} leads from {a} to {b} only; one_way=True opens it both ways")
    for (a, b), edge in edges.items():
        line = math.dist(nodes[a]["pose_w"][:2], nodes[b]["pose_w"][:2])
        edges[a, b] = _NEW_EDGE | {"length_m": line} | edge | {"a": a, "b": b}
    state = TopologicalMap().state_dict() | {"home": min(nodes)}
    if whole := _ours(content.get("metadata"), "metadata"):
        if whole.pop("version", None) != VERSION:
            raise ValueError(f"metadata.toponav.version must be {VERSION}")
        state |= whole
    if isinstance(state["next_id"], int):  # a node may have been added in an editor
        state["next_id"] = max(state["next_id"], max(nodes) + 1)
    return state | {
        "nodes": [nodes[i] for i in sorted(nodes)],
        "edges": [edges[ends] for ends in sorted(edges)],
    }


_NEW_NODE = {"yaw": 0.0, "cov": [0.0] * 9, "descriptor": [], "landmark": True, "visits": 0,
             "seen_s": 0.0, "gain": 0.0, "failures": 0}  # fmt: skip
_NEW_EDGE = {"seen_s": 0.0, "time_s": None, "alpha": 1.0, "beta": 1.0, "roughness": 0.0,
             "blocked_until_s": None, "failures_in_a_row": 0}  # fmt: skip


def _ours(metadata: Any, name: str) -> dict[str, Any]:
    """What we have put into a metadata object, {} if nothing."""
    ours = metadata.get("toponav", {}) if isinstance(metadata, dict) else {}
    if not isinstance(ours, dict):
        raise ValueError(f"{name}.toponav must be an object, got {ours!r:.80}")
    return dict(ours)


def _point(entry: dict[str, Any], frame: str) -> dict[str, Any]:
    """The feature of a node."""
    x, y, yaw = entry.pop("pose_w")
    node_id, kind = entry.pop("id"), entry.pop("kind")
    metadata = ({"class": kind} if kind else {}) | {"toponav": {"yaw": yaw} | entry}
    return {
        "type": "Feature",
        "properties": {"id": node_id, "frame": frame, "metadata": metadata},
        "geometry": {"type": "Point", "coordinates": [x, y]},
    }


def _node_state(
    node_id: int, geometry: dict[str, Any], metadata: dict[str, Any], ours: dict[str, Any]
) -> dict[str, Any]:
    """The state of a node from its feature."""
    x, y = geometry["coordinates"][:2]
    kind = metadata.get("class", "")
    entry = _NEW_NODE | ours
    pose = [x, y, entry.pop("yaw")]
    return entry | {"id": node_id, "pose_w": pose, "kind": kind if isinstance(kind, str) else ""}


def validate_geojson(obj: Any, strict: bool = True) -> None:
    """Check that the Nav2 route server loads a graph as it was meant.

    What its loader fails on, or takes for something else without a word: no nodes or no edges,
    other geometry, ids that repeat or are not whole numbers, edges to nowhere, coordinates that
    are not finite or nested as if for another type, metadata with null or with lists of anything
    but plain values, triggers that it does not know. An edge may come without coordinates, as the
    route server itself writes them.

    Args:
        obj: the parsed file.
        strict: refuse what the loader accepts but hardly was meant: edges that share an id (to
            block one blocks all) or lead to where they start, wrong coordinates of edges (unread).

    Raises:
        ValueError: names the feature and the field.
    """
    if not isinstance(obj, dict) or obj.get("type") != "FeatureCollection":
        got = obj.get("type") if isinstance(obj, dict) else obj
        raise ValueError(f"type must be 'FeatureCollection', got {got!r:.80}")
    features = obj.get("features")
    if not isinstance(features, list):
        raise ValueError(f"features must be a list, got {features!r:.80}")
    nodes: dict[int, str] = {}
    edges: dict[int, str] = {}
    ends: list[tuple[str, str, int]] = []
    for k, feature in enumerate(features):
        at = f"features[{k}]"
        _want(isinstance(feature, dict), at, "", "an object", feature)
        _want(feature.get("type") == "Feature", at, "type", "'Feature'", feature.get("type"))
        geometry, properties = feature.get("geometry"), feature.get("properties")
        _want(isinstance(geometry, dict), at, "geometry", "an object", geometry)
        _want(isinstance(properties, dict), at, "properties", "an object", properties)
        kind = geometry.get("type")
        _want(
            kind in ("Point", "LineString", "MultiLineString"), at, "geometry.type",
            "Point, LineString or MultiLineString", kind,
        )  # fmt: skip
        if strict or kind == "Point":
            _check_coordinates(kind, geometry, at)
        own = _id(properties, "id", at)
        taken = nodes.get(own) or edges.get(own)
        if taken and (strict or own in nodes or kind == "Point"):
            raise ValueError(f"{at} properties.id must be unique, got {own} as in {taken}")
        (nodes if kind == "Point" else edges)[own] = at
        if kind == "Point":
            frame = properties.get("frame", "")
            _want(isinstance(frame, str), at, "properties.frame", "text", frame)
        else:
            start, end = (_id(properties, name, at) for name in ("startid", "endid"))
            other = start != end or not strict
            _want(other, at, "properties.endid", "another node than startid", end)
            ends += [(at, "startid", start), (at, "endid", end)]
            if "cost" in properties:
                cost = properties["cost"]
                _want(_finite(cost) and cost >= 0, at, "properties.cost", "a number >= 0", cost)
            free = properties.get("overridable", True)
            _want(isinstance(free, bool), at, "properties.overridable", "true or false", free)
        if properties.get("metadata") is not None:
            _check_metadata(properties["metadata"], at, "properties.metadata")
        if properties.get("operations") is not None:
            _check_operations(properties["operations"], at)
    for at, name, node in ends:
        _want(node in nodes, at, f"properties.{name}", "the id of a node", node)
    if not nodes or not edges:
        got = f"{len(nodes)} and {len(edges)}"
        raise ValueError(f"features must have nodes (Point) and edges, at least one, got {got}")


def _want(fine: bool, at: str, name: str, want: str, got: Any) -> None:
    if not fine:
        raise ValueError(f"{f'{at} {name}'.strip()} must be {want}, got {got!r:.80}")


def _finite(value: Any) -> bool:
    """A number that the route server's float holds."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and abs(value) <= FLOAT32_MAX


def _id(properties: dict[str, Any], name: str, at: str) -> int:
    value = properties.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < ID_LIMIT:
        want = f"a whole number in 0..{ID_LIMIT - 1}"
        raise ValueError(f"{at} properties.{name} must be {want}, got {value!r:.80}")
    return value


def _check_coordinates(kind: str, geometry: dict[str, Any], at: str) -> None:
    value, name = geometry.get("coordinates"), "geometry.coordinates"
    if kind == "Point":
        _want(_position(value), at, name, "[x, y], finite", value)
    elif value is not None:
        lines = [value] if kind == "LineString" else value
        fine = isinstance(lines, list) and bool(lines) and all(
            isinstance(line, list) and len(line) >= 2 and all(map(_position, line))
            for line in lines
        )  # fmt: skip
        want = "[[x, y], [x, y], ...]" if kind == "LineString" else "[[[x, y], [x, y], ...], ...]"
        _want(fine, at, name, f"{want}, finite, for a {kind}", value)


def _position(value: Any) -> bool:
    return isinstance(value, list) and len(value) in (2, 3) and all(map(_finite, value))


def _check_metadata(value: Any, at: str, name: str) -> None:
    _want(isinstance(value, dict), at, name, "an object", value)
    for key, item in value.items():
        if isinstance(item, dict):
            _check_metadata(item, at, f"{name}.{key}")
            continue
        for plain in item if isinstance(item, list) else [item]:
            fine = isinstance(plain, str | bool) or _finite(plain)
            _want(
                fine, at, f"{name}.{key}", "text, true, false, finite numbers or such a list", item
            )


def _check_operations(value: Any, at: str) -> None:
    name = "properties.operations"
    _want(isinstance(value, list | dict), at, name, "a list or an object", value)
    for key, operation in value.items() if isinstance(value, dict) else enumerate(value):
        where = f"{name}[{key!r}]"
        _want(isinstance(operation, dict), at, where, "an object", operation)
        kind, trigger = operation.get("type"), operation.get("trigger")
        _want(isinstance(kind, str), at, f"{where}.type", "text", kind)
        _want(trigger in TRIGGERS, at, f"{where}.trigger", f"one of {TRIGGERS}", trigger)
        if "metadata" in operation:
            _check_metadata(operation["metadata"], at, f"{where}.metadata")


# Occupancy grids


def save_map(
    stem: str | Path, data: NDArray[np.int8], resolution: float, origin_w: ArrayLike
) -> Path:
    """Write a grid as a ``map_server`` map: ``stem``.yaml beside ``stem``-<hash>.pgm.

    The image is named by its content and the YAML, which names it, is renamed last: the two always
    belong together, also if the power goes while an older map is replaced, whose image goes last.

    Args:
        stem: folder and name, without suffix.
        data: (H, W) int8: -1 unknown, 0 free, 100 occupied; row 0 at the smallest y.
        resolution: side of a cell, m.
        origin_w: (2,) x and y of the corner of cell (0, 0) in the map frame, m.

    Returns:
        Path of the YAML.

    Raises:
        ValueError: an argument has another shape, type or value.
    """
    if data.ndim != 2 or data.dtype != np.int8 or not data.size:
        raise ValueError(f"data must be (H, W) int8, got {data.shape} {data.dtype}")
    if not np.isin(data, (-1, 0, 100)).all():
        values = sorted(set(np.unique(data).tolist()) - {-1, 0, 100})
        raise ValueError(f"data must be -1, 0 or 100, got {values[:10]}")
    if not 0 < resolution < math.inf:
        raise ValueError(f"resolution must be > 0 m and finite, got {resolution}")
    origin = np.asarray(origin_w, np.float64)
    if origin.shape != (2,) or not np.isfinite(origin).all():
        raise ValueError(f"origin_w must be 2 finite numbers, got {origin.tolist()}")
    grey = np.full(data.shape, UNKNOWN_GREY, np.uint8)
    grey[data == 0], grey[data == 100] = FREE_GREY, OCCUPIED_GREY
    height, width = data.shape
    pgm = b"P5\n%d %d\n255\n" % (width, height) + grey[::-1].tobytes()
    path = Path(stem)
    if not path.name or not path.name.isprintable():
        raise ValueError(f"stem must end in a printable name, got {str(stem)!r}")
    image = path.with_name(f"{path.name}-{_digest(pgm)[:12]}.pgm")
    yaml = (
        f"image: {json.dumps(image.name, ensure_ascii=False)}\n"
        "mode: trinary\n"
        f"resolution: {_decimal(resolution)}\n"
        f"origin: [{', '.join(map(_decimal, (*origin.tolist(), 0.0)))}]\n"
        "negate: 0\n"
        f"occupied_thresh: {OCCUPIED_THRESH}\n"
        f"free_thresh: {FREE_THRESH}\n"
    )
    _publish(image, pgm)
    _publish(path.with_name(f"{path.name}.yaml"), yaml.encode())
    for old in image.parent.iterdir():
        ours = re.fullmatch(re.escape(path.name) + r"-([0-9a-f]{12})\.pgm", old.name)
        if ours and old != image and old.is_file() and ours[1] == _digest(old.read_bytes())[:12]:
            old.unlink(missing_ok=True)
    return path.with_name(f"{path.name}.yaml")


def load_map(path: str | Path) -> tuple[NDArray[np.int8], float, tuple[float, float]]:
    """A grid from a ``map_server`` YAML and its 8-bit PGM, as :func:`save_map` or ROS wrote them.

    Returns:
        data (H, W) int8 -1, 0 or 100, row 0 at the smallest y; resolution, m; origin_w, m.

    Raises:
        FileNotFoundError: the YAML or its image is missing.
        ValueError: a key is missing, unknown or not what it must be (mode trinary, no yaw), or the
            image is not a whole 8-bit PGM.
    """
    path = Path(path)
    keys = _read_yaml(path)
    try:
        resolution = _real(keys, "resolution")
        _require(0 < resolution < math.inf, "resolution", "> 0 m and finite", keys)
        occupied, free = _real(keys, "occupied_thresh"), _real(keys, "free_thresh")
        _require(0 <= free <= occupied <= 1, "free_thresh", "in [0, occupied_thresh <= 1]", keys)
        _require(keys["negate"] in ("0", "1"), "negate", "0 or 1", keys)
        _require(keys["mode"] == "trinary", "mode", "trinary", keys)
        parts = keys["origin"].removeprefix("[").removesuffix("]").split(",")
        _require(f"[{','.join(parts)}]" == keys["origin"], "origin", "[x, y, yaw]", keys)
        _require(len(parts) == 3, "origin", "[x, y, yaw]", keys)
        x, y, yaw = (_real({"origin": part}, "origin") for part in parts)
        _require(yaw == 0, "origin", "[x, y, 0], a map that is not turned", keys)
        grey = _read_pgm(path.parent / keys["image"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    black = grey / 255 if keys["negate"] == "1" else 1 - grey / 255
    data = np.where(black > occupied, 100, np.where(black < free, 0, -1)).astype(np.int8)
    return np.ascontiguousarray(data[::-1]), resolution, (x, y)


_YAML_DEFAULTS = {"mode": "trinary", "negate": "0"}
_YAML_KEYS = {"image", "resolution", "origin", "occupied_thresh", "free_thresh"} | set(
    _YAML_DEFAULTS
)
_BLANK = rb"\s(?:\s|#[^\n]*\n)*"
_PGM = re.compile(rb"P5" + 2 * (_BLANK + rb"(\d{1,9})") + _BLANK + rb"255\s")


def _read_yaml(path: Path) -> dict[str, str]:
    """The values of a map YAML as text: one "key: value" a line, no other keys."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text: {error}") from None
    keys: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.split("#")[0].strip():
            continue
        found = re.fullmatch(r'(\w+):\s+("(?:[^"\\]|\\.)*"|[^\s"\'].*?)\s*(?:\s#.*)?', line)
        key = found[1] if found else ""
        if found is None or key not in _YAML_KEYS or key in keys:
            want = f"'key: value' with a new key of {', '.join(sorted(_YAML_KEYS))}"
            raise ValueError(f"{path}: line {number} must be {want}, got {line!r:.80}")
        keys[key] = _unquoted(found[2], path, number)
    if missing := sorted(_YAML_KEYS - _YAML_DEFAULTS.keys() - keys.keys()):
        raise ValueError(f"{path}: missing {', '.join(missing)}")
    return _YAML_DEFAULTS | keys


def _unquoted(value: str, path: Path, number: int) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value))
    except json.JSONDecodeError:
        raise ValueError(f"{path}: line {number} must be quoted as in JSON, got {value}") from None


def _require(fine: bool, key: str, want: str, keys: dict[str, str]) -> None:
    if not fine:
        raise ValueError(f"{key} must be {want}, got {keys[key]!r:.80}")


def _real(keys: dict[str, str], key: str) -> float:
    try:
        value = float(keys[key])
    except ValueError:
        value = math.nan
    _require(math.isfinite(value), key, "a finite number", keys)
    return value


def _decimal(value: float) -> str:
    """The shortest text that reads back equal, with the point that YAML 1.1 wants in a float."""
    text = repr(float(value))
    return text if "." in text else text.replace("e", ".0e")


def _read_pgm(path: Path) -> NDArray[np.uint8]:
    """(H, W), first row at the top."""
    raw = path.read_bytes()
    head = _PGM.match(raw)
    if head is None:
        raise ValueError(f"image must be a binary 8-bit PGM (P5, 255), got {path.name}")
    width, height = (int(size) for size in head.groups())
    pixels = np.frombuffer(raw, np.uint8, offset=head.end())
    if not len(pixels) or len(pixels) != width * height:
        want = f"{width} x {height} pixels, at least one"
        raise ValueError(f"image must hold {want}, got {len(pixels)} in {path.name}")
    return pixels.reshape(height, width)


# Files


def _map_of(path: str | Path, state: Any, config: GraphConfig | None) -> TopologicalMap:
    graph = TopologicalMap(config or GraphConfig())
    try:
        graph.load_state_dict(state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return graph


def _read_json(path: str | Path) -> Any:
    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no JSON number")

    try:
        return json.loads(Path(path).read_bytes(), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from None


def _publish(path: Path, data: bytes) -> None:
    """Write aside, sync, rename, sync: the file is the old one or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".toponav-", dir=path.parent) as aside:
        temp = Path(aside) / "new"
        with open(temp, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temp, path)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
