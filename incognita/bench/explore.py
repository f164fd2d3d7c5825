"""Exploration of grid maps: classical explorers, tuned on one half, and the learned one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import track

from sim.dungeon import DungeonMap, DungeonRun, draw, load
from toponav.explorers import Explorer, Nearest, NextBestView, Random, Tour, Utility
from toponav.meta import MetaExplorer

from ..cli import JsonFile, console, emit
from ..explore import LIMIT_PX, GridWalk, drive_to, explore, omniscient, snapshot
from ..recipes.explorer import EXPLORER, given
from ..recipes.explorer_data import try_first
from ..recipes.train import machine
from ..shipped import folder_of
from ..stats import bootstrap_interval

SCALES, POWERS = (0.5, 0.75, 1.0, 1.5), (1.0, 1.25, 1.5, 2.0)
"""What the utility explorer and the next best view are tuned over."""
MARGINS = (0.0, 0.05, 0.1, 0.2)
"""What the tour is tuned over."""
DRAWN = 75
"""Maps a half where none are given."""


def halves(data: Path | None, limit: int | None) -> tuple[list[DungeonMap], list[DungeonMap]]:
    """Maps to tune on and maps to report, alternating by file name; drawn ones without ``data``.

    Raises:
        ValueError: the folder holds too few maps.
    """
    if data is None:
        tune, report = ([draw(first + k) for k in range(DRAWN)] for first in (0, 100_000))
    else:
        tune, report = ([load(file) for file in files] for files in given(data))
    return tune[:limit], report[:limit]


def drive(maps: Sequence[DungeonMap], explorer: Explorer, about: str) -> list[GridWalk]:
    """Explore every map, each afresh."""
    rows = track(maps, about, console=console, transient=True)
    return [explore(DungeonRun(one), explorer) for one in rows]


def mean_px(runs: Sequence[GridWalk]) -> float:
    """Mean distance; a map left unfinished counts with what was driven on it."""
    return float(np.mean([run.driven_px for run in runs]))


def tuned(maps: Sequence[DungeonMap]) -> tuple[dict[str, Explorer], str]:
    """The opponents, each with the settings that drive least on ``maps``, and who drives least."""
    families: dict[str, list[Explorer]] = {
        "utility": [Utility(s, p) for s in SCALES for p in POWERS],
        "next-best-view": [NextBestView(s, p) for s in SCALES for p in POWERS],
        "tour": [Tour(margin) for margin in MARGINS],
    }
    best: dict[str, Explorer] = {"nearest": Nearest()}
    least = {"nearest": mean_px(drive(maps, Nearest(), "nearest"))}
    for name, candidates in families.items():
        scored = [mean_px(drive(maps, e, f"tuning {name}")) for e in candidates]
        best[name], least[name] = candidates[int(np.argmin(scored))], min(scored)
        console.print(f"{name}: {best[name]} of {len(candidates)} settings, {min(scored):.0f} px")
    return best | {"random": Random()}, min(least, key=lambda name: least[name])


def compare(mine: NDArray[np.float64], other: NDArray[np.float64]) -> dict[str, Any]:
    """By how much less is driven than by another on the same maps, as a share of the other's."""
    pairs = np.stack([mine, other], axis=1)

    def saving(rows: NDArray[np.float64], axis: int) -> Any:
        means = rows.mean(axis=axis)
        return 1 - means[..., 0] / means[..., 1]

    return {
        "saved": float(saving(pairs, 0)), "interval_95": bootstrap_interval(pairs, saving),
    }  # fmt: skip


def explore_maps(
    data: Annotated[
        Path | None, typer.Option(help="Folder of DungeonMaps images; drawn maps if not given.")
    ] = None,
    policy: Annotated[
        str, typer.Option(help="Policy folder of an explorer, or a shipped one; none for none.")
    ] = "explorer",
    limit: Annotated[int | None, typer.Option(min=1, help="Maps of each half at most.")] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="3 maps a half.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Distance to see a map: tuned on half of them, reported on the other (5 core-minutes)."""
    tune, report = halves(data, 3 if smoke else limit)
    explorers, best = tuned(tune)
    if policy != "none":
        explorers["learned"] = MetaExplorer(folder_of(policy))
    result: dict[str, Any] = {
        "command": "bench explore", "machine": machine(),
        "maps": {"tuned_on": len(tune), "reported": len(report), "given": data is not None},
        "best_classical_when_tuned": best, "explorers": {},
    }  # fmt: skip
    driven: dict[str, NDArray[np.float64]] = {}
    for name, explorer in explorers.items():
        runs = drive(report, explorer, name)
        driven[name] = np.array([run.driven_px for run in runs])
        result["explorers"][name] = summary(explorer, runs)
    for name, know_all in (("omniscient_tour", omniscient), ("clairvoyant", clairvoyant)):
        rows = track(report, name, console=console, transient=True)
        result[f"{name}_px"] = float(np.mean([know_all(one) for one in rows]))
    for name, mine in driven.items():
        against = {"nearest", best} if name == "learned" else {"nearest"} - {name}
        for other in sorted(against):
            result["explorers"][name][f"against_{other}"] = compare(mine, driven[other])
    emit(result, json_file)


def summary(explorer: Explorer, runs: Sequence[GridWalk]) -> dict[str, Any]:
    """What an explorer did on all maps."""
    times = [s for run in runs for s in run.decision_s]
    out = {
        "settings": getattr(explorer, "manifest", {}).get("recipe", str(explorer)),
        "finished": float(np.mean([run.finished for run in runs])),
        "mean_px": mean_px(runs),
        "interval_95": bootstrap_interval(np.array([run.driven_px for run in runs]), np.mean),
        "decision_p95_ms": 1e3 * float(np.quantile(times, 0.95)),
        "coverage": curve(runs),
    }
    if isinstance(explorer, MetaExplorer):
        out["overruled"] = explorer.overruled / len(times)
    return out


def clairvoyant(world: DungeonMap) -> float:
    """Distance if each candidate is tried on the true map to the end, by utility, and the best
    driven to, px: what one who knows it all gets out of the same decisions."""
    run, view = DungeonRun(world), None
    while not run.finished and run.driven_px < LIMIT_PX:
        view = snapshot(run, view)
        cost = [try_first(run, EXPLORER.base, cell) for cell in view.frontiers.cell]
        drive_to(run, view, int(np.argmin(cost)))
    return run.driven_px


def curve(runs: Sequence[GridWalk]) -> dict[str, list[float]]:
    """Of what the first look does not show, the mean share seen after each distance."""
    px = np.arange(0.0, 2401.0, 200.0)
    seen = []
    for run in runs:
        far, unseen = np.array(run.curve, float).T
        seen.append(1 - np.interp(px, far, unseen) / unseen[0])
    return {"px": px.tolist(), "seen": np.mean(seen, axis=0).round(4).tolist()}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("explore")(explore_maps)
