"""GridWalk of grid maps: classical explorers, tuned on one half, held against each other."""

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

from ..cli import JsonFile, console, emit
from ..explore import GridWalk, explore, omniscient
from ..recipes.train import machine
from ..stats import bootstrap_interval

SCALES, POWERS = (0.5, 0.75, 1.0, 1.5), (1.0, 1.5, 2.0)
"""What the utility explorer and the next best view are tuned over."""
MARGINS = (0.0, 0.05, 0.1, 0.2)
"""What the tour is tuned over."""
DRAWN = 75
"""Maps a half where none are given."""


def halves(data: Path | None, limit: int | None) -> tuple[list[DungeonMap], list[DungeonMap]]:
    """Maps to tune on and maps to report, alternating by file name; drawn ones without ``data``.

    Raises:
        typer.BadParameter: the folder holds no maps.
    """
    if data is None:
        tune, report = ([draw(first + k) for k in range(DRAWN)] for first in (0, 100_000))
    else:
        files = sorted(data.glob("*.png"))
        if len(files) < 2:
            raise typer.BadParameter(f"must hold at least 2 images, got {data}", param_hint="data")
        tune, report = ([load(file) for file in files[k::2]] for k in (0, 1))
    return tune[:limit], report[:limit]


def drive(maps: Sequence[DungeonMap], explorer: Explorer, about: str) -> list[GridWalk]:
    """Explore every map, each afresh."""
    rows = track(maps, about, console=console, transient=True)
    return [explore(DungeonRun(one), explorer) for one in rows]


def mean_px(runs: Sequence[GridWalk]) -> float:
    """Mean distance; a map left unfinished counts with what was driven on it."""
    return float(np.mean([run.driven_px for run in runs]))


def tuned(maps: Sequence[DungeonMap]) -> dict[str, Explorer]:
    """The opponents, each with the settings that drive least on ``maps``."""
    families: dict[str, list[Explorer]] = {
        "utility": [Utility(s, p) for s in SCALES for p in POWERS],
        "next-best-view": [NextBestView(s, p) for s in SCALES for p in POWERS],
        "tour": [Tour(margin) for margin in MARGINS],
    }
    best: dict[str, Explorer] = {"nearest": Nearest()}
    for name, candidates in families.items():
        scored = [mean_px(drive(maps, e, f"tuning {name}")) for e in candidates]
        best[name] = candidates[int(np.argmin(scored))]
        console.print(f"{name}: {best[name]} of {len(candidates)} settings, {min(scored):.0f} px")
    return best | {"random": Random()}


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
    limit: Annotated[int | None, typer.Option(min=1, help="Maps of each half at most.")] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="3 maps a half.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Distance to see a map: explorers tuned on half of them (about 0.3 core-hours)."""
    tune, report = halves(data, 3 if smoke else limit)
    result: dict[str, Any] = {
        "command": "bench explore", "machine": machine(),
        "maps": {"tuned_on": len(tune), "reported": len(report)}, "explorers": {},
    }  # fmt: skip
    driven: dict[str, NDArray[np.float64]] = {}
    for name, explorer in tuned(tune).items():
        runs = drive(report, explorer, name)
        times = [s for run in runs for s in run.decision_s]
        driven[name] = np.array([run.driven_px for run in runs])
        result["explorers"][name] = {
            "settings": str(explorer),
            "finished": float(np.mean([run.finished for run in runs])),
            "mean_px": mean_px(runs),
            "interval_95": bootstrap_interval(driven[name], np.mean),
            "decision_p95_ms": 1e3 * float(np.quantile(times, 0.95)),
        }
    rows = track(report, "omniscient", console=console, transient=True)
    result["omniscient_px"] = float(np.mean([omniscient(one) for one in rows]))
    for name, mine in driven.items():
        if name != "nearest":
            result["explorers"][name]["against_nearest"] = compare(mine, driven["nearest"])
    emit(result, json_file)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("explore")(explore_maps)
