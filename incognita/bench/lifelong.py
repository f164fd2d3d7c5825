"""Lifelong navigation on unseen floors of rooms, with odometry that is 3 % off, and its soak test.

Three phases on each floor: explore it with all doors open; drive to goals while a fifth of the
doors is shut, others each time; be carried elsewhere without odometry noticing. What counts as
right is defined in :mod:`incognita.lifelong`.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import track

from ..cli import JsonFile, console, emit
from ..lifelong import SHUT, Life, episode, explore, found_again, kidnap, phantoms
from ..recipes.train import machine
from ..soak import MINUTES, soak
from ..stats import bootstrap_interval, iqm

FIRST_SEED = 300_000
"""Floors that nothing was tuned on."""
DRIFT = 0.03
SIZE_M, SMALL_M = (24.0, 16.0), (11.0, 8.0)
PHANTOMS = 3
"""Wrong edges put into each graph, believed in."""
GOALS = 4
"""Driven to with all doors open, to see whether dropped edges are found again."""
TARGETS = {"success": 0.9, "most_tries": 2, "most_nodes": 512, "edge_precision": 0.95,
           "relocalised": 0.9}  # fmt: skip
MIB = 2**20


def live(
    seed: int, episodes: int, kidnaps: int, size_m: tuple[float, float] = SIZE_M
) -> dict[str, Any]:
    """All phases on one floor."""
    life: Life = explore(seed, DRIFT, size_m)
    made = phantoms(life, PHANTOMS)
    driven = [episode(life) for _ in range(episodes)]
    gone, back = found_again(life, GOALS)
    return {
        "seed": seed, "explored": life.explored, "episodes": driven, "phantoms": len(made),
        "phantoms_left": sum(life.nav.graph.edge(a, b) is not None for a, b in made),
        "phantoms_tried_and_left": sum(ends in life.nav.tries for ends in made),
        "dropped_and_right": gone, "found_again": back, "nodes": len(life.nav.graph),
        "kidnaps": [kidnap(life) for _ in range(kidnaps)],
    }  # fmt: skip


def summary(floors: list[dict[str, Any]]) -> dict[str, Any]:
    """Over all floors; intervals are over floors, which are drawn whole."""
    episodes = [e for f in floors for e in f["episodes"]]
    kidnaps = [k for f in floors for k in f["kidnaps"]]
    edges = [f["explored"]["driven_edges"] + f["explored"]["linked_edges"] for f in floors]
    tries = [n for e in episodes for n in e["tries"]]
    told = {name: sum(k["outcome"] == name for k in kidnaps)
            for name in ("right", "wrong", "unknown", "unnoticed")}  # fmt: skip
    found = [[e["success"] for e in f["episodes"]] for f in floors]
    again = [[k["outcome"] == "right" for k in f["kidnaps"]] for f in floors]
    return {
        "success": _share(found),
        "spl": _share([[e["spl"] for e in f["episodes"]] for f in floors]),
        "doors_shut": float(np.mean([e["shut_share"] for e in episodes])),
        "driven_to_best_iqm": iqm([e["driven_m"] / e["best_m"] for e in episodes]),
        "edges_dropped": len(tries), "most_tries": max(tries, default=0),
        "right_edges_dropped": sum(e["right_edges_dropped"] for e in episodes),
        "phantoms": {name: sum(f[key] for f in floors) for name, key in (
            ("made", "phantoms"), ("left", "phantoms_left"),
            ("tried_and_left", "phantoms_tried_and_left"))},
        "dropped_and_open_again": sum(f["dropped_and_right"] for f in floors),
        "of_these_found": sum(f["found_again"] for f in floors),
        "most_nodes": max(f["nodes"] for f in floors),
        "edges": sum(map(len, edges)), "edge_precision": _share(edges),
        "driven_edge_precision": _share([f["explored"]["driven_edges"] for f in floors]),
        "worst_error_m": max(f["explored"]["worst_error_m"] for f in floors),
        "odometry_off_m_iqm": iqm([f["explored"]["odometry_off_m"] for f in floors]),
        "kidnaps": told, "relocalised": _share(again),
        "relocalised_s_iqm": iqm([k["time_s"] for k in kidnaps if k["outcome"] == "right"] or [0]),
    }  # fmt: skip


def _share(rows: list[list[Any]]) -> dict[str, Any]:
    """Mean of all values, and its interval where floors are drawn whole."""
    sums = np.array([(np.sum(row), len(row)) for row in rows], np.float64)

    def mean(drawn: Any, axis: int) -> Any:
        total = drawn.sum(axis=axis)
        return total[..., 0] / total[..., 1]

    return {"mean": float(mean(sums, 0)), "interval_95": bootstrap_interval(sums, mean)}


def passed(result: dict[str, Any]) -> dict[str, bool]:
    """Each target, met or not."""
    return {
        "success": result["success"]["mean"] >= TARGETS["success"],
        "most_tries": result["most_tries"] <= TARGETS["most_tries"],
        "most_nodes": result["most_nodes"] <= TARGETS["most_nodes"],
        "edge_precision": result["edge_precision"]["mean"] >= TARGETS["edge_precision"],
        "relocalised": result["relocalised"]["mean"] >= TARGETS["relocalised"],
    }


def lifelong(
    floors: Annotated[int, typer.Option(min=1, help="Unseen floors.")] = 20,
    episodes: Annotated[int, typer.Option(min=1, help="Goals on each.")] = 10,
    kidnaps: Annotated[int, typer.Option(min=1, help="Times carried away on each.")] = 10,
    first_seed: Annotated[int, typer.Option(min=0, help="Of the floors.")] = FIRST_SEED,
    smoke: Annotated[bool, typer.Option("--smoke", help="One small floor, once each.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Explore, drive while doors change, be carried away (0.4 core-hours)."""
    size_m = SIZE_M
    if smoke:
        floors, episodes, kidnaps, size_m = 1, 1, 1, SMALL_M
    seeds = range(first_seed, first_seed + floors)
    rows = track(seeds, "floors", console=console, transient=True)
    found = [live(seed, episodes, kidnaps, size_m) for seed in rows]
    result = summary(found)
    met = passed(result)
    emit(
        {"command": "bench lifelong", "machine": machine(), "seeds": list(seeds), "drift": DRIFT,
         "shut": SHUT, "tier": "kinematic", "targets": TARGETS} | result
        | {"met": met, "passed": all(met.values()), "floors": found}, json_file,
    )  # fmt: skip
    if not all(met.values()) and not smoke:
        raise typer.Exit(1)


def soak_bench(
    minutes: Annotated[int, typer.Option(min=1, help="Simulated; memory counts from 10 on.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="Of the floor.")] = FIRST_SEED,
    smoke: Annotated[bool, typer.Option("--smoke", help="A minute on a small floor.")] = False,
    json_file: JsonFile = None,
) -> None:
    """One simulated hour of exploring and patrolling while doors change (0.2 core-hours)."""
    told = soak(seed, 1, SMALL_M) if smoke else soak(seed, minutes, console=console)
    settle = min(MINUTES, len(told.memory) - 1)
    growth = max(told.memory[settle:]) / told.memory[settle] - 1
    result = {
        "command": "bench soak", "machine": machine(), "seed": seed, "tier": "kinematic",
        "minutes": len(told.memory) - 1, "memory_mib": [round(m / MIB, 2) for m in told.memory],
        "growth_after_10_min": growth, "most_nodes": max(told.nodes), "most_edges": max(told.edges),
        "scans": max(told.scans), "driven_m": told.driven_m, "goals_reached": told.reached,
        "goals_missed": told.missed, "doors_changed": told.changed, "lost": told.lost,
        "passed": bool(growth < 0.01 and max(told.nodes) <= 512 and max(told.edges) <= 4 * 512),
    }  # fmt: skip
    emit(result, json_file)
    if not result["passed"] and not smoke:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("lifelong")(lifelong)
    app.command("soak")(soak_bench)
