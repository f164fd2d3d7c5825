"""Goals in unseen mazes and room plans: HODAT beside H-DQN, greedy and nearest, with SPL.

The robot starts without a map and knows where the goal is relative to its start; in a second table
it does not. Every agent drives the same layouts from the same poses; gains are paired.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import track

from sim.backend import CONTROL_DT
from sim.batch import Tier
from sim.tasks import TEST_LAYOUTS, make
from sim.tasks.goal import GoalReaching
from toponav.explorers import Explorer, Nearest, Utility
from toponav.go_explore import GoExplore, GoExploreConfig
from toponav.goal import Greedy
from toponav.h_dqn import Hdqn
from toponav.hodat import TO_FIND, TO_GOAL, Hodat, HodatConfig

from ..cli import JsonFile, console, emit
from ..go_explore import ACTIONS, RandomBody, restarting
from ..goal import DrivePrimitives, FollowPath, Search, placed, search
from ..recipes.h_dqn import load_h_dqn
from ..recipes.train import machine
from ..shipped import SHIPPED
from ..stats import bootstrap_interval, iqm

SUCCESS, SPL = 0.95, 0.75
"""What is to be reached."""
COVER_S = 60.0
"""Coverage is compared after exploring for so long without a goal."""
PAPER = {"success_points": [9, 19], "time_saved": [0.15, 0.36], "coverage": [0.07, 0.20]}
"""Ranges of gains in TopoNav's abstract; over which baselines is not known to us."""
FIRST_LAYOUT = TEST_LAYOUTS + 10_000
"""Of those reported on. One among the first test layouts was looked at: it showed a robot that
turned round for ever before a gap of its own width."""
TUNE_LAYOUTS = 500
"""Tuning uses layouts from this number on; the nets are trained on those below 256."""
SMOKE_STEPS, SMOKE_AGENTS = 60, ("hodat", "hodat-find", "h-dqn")
GO_LIMIT, GO_LAYOUTS = 10_000, 12
HORIZONS = (100, 400, 1600)
"""Actions after which the control starts again; the best of them is reported."""
TABLES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "told": (["hodat", "hodat-untuned", "greedy", "nearest", "h-dqn-meta", "h-dqn"], {}),
    "untold": (["hodat-find", "utility", "nearest", "h-dqn"], {"told": False}),
    "cover": (["hodat-find", "nearest", "h-dqn"], {"no_goal": True, "limit_s": COVER_S}),
}  # fmt: skip
"""Part of the result -> who is in it, the first held against the others; options of the search."""
PARTS = (*TABLES, "go-explore")
Make = Callable[[], tuple[Explorer, Any]]


def agents(net: Callable[[], Hdqn]) -> dict[str, Make]:
    """Explorer and drive of everybody, made anew for every search."""

    def classical(explorer: Callable[[], Explorer]) -> Make:
        return lambda: (explorer(), FollowPath)

    def hierarchy() -> tuple[Explorer, Any]:
        agent = net()
        return agent, lambda robot: DrivePrimitives(agent)

    def upper() -> tuple[Explorer, Any]:
        agent = net()
        return agent, lambda robot: FollowPath(robot, told=agent)

    return {
        "hodat": classical(lambda: Hodat(TO_GOAL)),
        "hodat-find": classical(lambda: Hodat(TO_FIND)),
        "hodat-untuned": classical(lambda: Hodat(HodatConfig())),
        "greedy": classical(Greedy),
        "nearest": classical(Nearest),
        "utility": classical(Utility),
        "h-dqn": hierarchy,
        "h-dqn-meta": upper,
    }


def drive_all(
    task: GoalReaching, layouts: Sequence[int], made: Make, about: str, **options: Any
) -> list[Search]:
    """Search every layout."""
    out = []
    for layout in track(layouts, about, console=console, transient=True):
        explorer, drive = made()
        out.append(search(task, layout, explorer, drive=drive, **options))
    return out


def summary(task: GoalReaching, layouts: Sequence[int], rows: Sequence[Search]) -> dict[str, Any]:
    """Means with intervals, by kind of world too."""
    spl = np.array([row.spl for row in rows])
    success = np.array([row.success for row in rows], np.float64)
    kind = np.array([task.kinds[layout % len(task.kinds)] for layout in layouts])
    times = [s for row in rows for s in row.decision_s]
    out: dict[str, Any] = {
        "success": float(success.mean()),
        "success_interval_95": bootstrap_interval(success, np.mean),
        "spl": float(spl.mean()), "spl_interval_95": bootstrap_interval(spl, np.mean),
        "spl_iqm": float(iqm(spl)),
        "time_s": float(np.mean([row.time_s for row in rows])),
        "path_m": float(np.mean([row.path_m for row in rows])),
        "untouched": float(np.mean([not row.touched for row in rows])),
        "decision_p95_ms": 1e3 * float(np.quantile(times, 0.95)),
        "not_reached": {str(k): row.reason for k, row in zip(layouts, rows, strict=True)
                        if not row.success},
    }  # fmt: skip
    for name in task.kinds:
        of = kind == name
        if of.any():
            out[name] = {"success": float(success[of].mean()), "spl": float(spl[of].mean())}
    return out


def gains(mine: Sequence[Search], other: Sequence[Search]) -> dict[str, Any]:
    """Paired over layouts: success in points, time and SPL, each with its 95 % interval."""

    def pairs(value: Callable[[Search], float]) -> NDArray[np.float64]:
        return np.array([[value(a), value(b)] for a, b in zip(mine, other, strict=True)])

    def points(rows: NDArray[np.float64], axis: int) -> Any:
        return 100 * (rows[..., 0] - rows[..., 1]).mean(axis=axis)

    def saved(rows: NDArray[np.float64], axis: int) -> Any:
        means = rows.mean(axis=axis)
        return 1 - means[..., 0] / means[..., 1]

    both = np.array([a.success and b.success for a, b in zip(mine, other, strict=True)])
    time, done = pairs(lambda r: r.time_s), pairs(lambda r: float(r.success))
    out = {
        "success_points": _with(done, points),
        "spl_points": _with(pairs(lambda r: r.spl), points),
        "time_saved": _with(time, saved),
    }
    if both.any():
        where = {"layouts": int(both.sum())}
        out["time_saved_where_both_arrive"] = _with(time[both], saved) | where
    return out


def more_coverage(mine: Sequence[Search], other: Sequence[Search]) -> dict[str, Any]:
    """By how much more of the floor was seen in the same time, as a share of the other's."""
    seen = np.array([[a.coverage, b.coverage] for a, b in zip(mine, other, strict=True)])

    def more(rows: NDArray[np.float64], axis: int) -> Any:
        means = rows.mean(axis=axis)
        return means[..., 0] / means[..., 1] - 1

    return _with(seen, more)


def _with(rows: NDArray[np.float64], statistic: Callable[..., Any]) -> dict[str, Any]:
    return {"value": float(statistic(rows, 0)), "interval_95": bootstrap_interval(rows, statistic)}


def go_explore(task: GoalReaching, layouts: Sequence[int], limit: int) -> dict[str, Any]:
    """Actions until random exploration finds the goal: returning to cells against restarting."""
    repeat = GoExploreConfig().repeat
    mine, theirs = [], dict[int, list[int]]()
    for layout in track(layouts, "go-explore", console=console, transient=True):
        where = placed(task, layout)
        explorer = GoExplore(RandomBody(task, where), ACTIONS, seed=layout)
        explorer.run(limit)
        mine.append(int(explorer.used))
        for horizon in HORIZONS:
            used = restarting(RandomBody(task, where), horizon, limit, repeat, seed=layout)[1]
            theirs.setdefault(horizon, []).append(used)
    best = min(theirs, key=lambda horizon: float(np.mean(theirs[horizon])))
    rows = np.array([mine, theirs[best]], np.float64).T

    def saved(values: NDArray[np.float64], axis: int) -> Any:
        means = values.mean(axis=axis)
        return 1 - means[..., 0] / means[..., 1]

    return {
        "layouts": list(layouts), "limit": limit, "actions": mine,
        "found": sum(used < limit for used in mine), "restarting": theirs,
        "restarting_found": {h: sum(used < limit for used in row) for h, row in theirs.items()},
        "best_horizon": best, "actions_saved": _with(rows, saved),
    }  # fmt: skip


def _scored(config: HodatConfig) -> tuple[Explorer, Any]:
    return Hodat(config), FollowPath


def tune(task: GoalReaching, layouts: Sequence[int]) -> dict[str, Any]:
    """Weights of HODAT's score over a grid; the constants in ``toponav.hodat`` are its best."""
    told = [HodatConfig(novelty=0, gain=gain, goal=200, cost=1, goal_ranges=200, unknown=unknown)
            for gain in (0.0, 0.1, 0.3) for unknown in (1.0, 1.5, 2.0)]  # fmt: skip
    told += [HodatConfig(), HodatConfig(goal=1.0, goal_ranges=3.0)]
    untold = [
        HodatConfig(novelty=novelty, gain=gain, cost=cost)
        for novelty in (0.0, 0.1, 0.3)
        for gain in (0.1, 0.3)
        for cost in (0.2, 0.5, 1.0)
    ]
    out: dict[str, Any] = {}
    for name, candidates, known in (("told", told, True), ("untold", untold, False)):
        spl = []
        for candidate in candidates:
            made: Make = partial(_scored, candidate)
            rows = drive_all(task, layouts, made, f"tuning {name}", told=known)
            spl.append(float(np.mean([row.spl for row in rows])))
        order = np.argsort(spl)[::-1]
        out[name] = [{"spl": spl[k], "settings": str(candidates[k])} for k in order]
    return out


def goal(
    worlds: Annotated[int, typer.Option(min=2, help="Layouts, half mazes, half rooms.")] = 100,
    weights: Annotated[Path | None, typer.Option(help="Folder of a trained H-DQN.")] = None,
    tier: Annotated[str, typer.Option(help="kinematic or mujoco.")] = "kinematic",
    parts: Annotated[
        list[str] | None, typer.Option("--part", help=f"Only these of {', '.join(PARTS)}.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--agent", help="Only these; no gains without two of them.")
    ] = None,
    tune_only: Annotated[bool, typer.Option("--tune", help="Tune HODAT, report nothing.")] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="2 layouts, few agents.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Goals in 100 unseen mazes and room plans: success, SPL, gains over H-DQN (0.3 core-hours)."""
    if tier not in ("kinematic", "mujoco"):
        raise typer.BadParameter(f"must be kinematic or mujoco, got {tier!r}", param_hint="--tier")
    _known("--part", parts, PARTS)
    _known("--agent", only, sorted({name for names, _ in TABLES.values() for name in names}))
    task = make("goal", **({"max_steps": SMOKE_STEPS} if smoke else {}))
    assert isinstance(task, GoalReaching)
    if tune_only:
        held = range(TUNE_LAYOUTS, TUNE_LAYOUTS + (2 if smoke else 40))
        emit({"command": "bench goal --tune", "machine": machine(), "layouts": [held[0], held[-1]],
              "tuned": tune(task, held)}, json_file)  # fmt: skip
        return
    wanted = only or (SMOKE_AGENTS if smoke else None)
    result = measure(
        task, 2 if smoke else worlds, weights or SHIPPED / "h-dqn-goal", tier,  # type: ignore[arg-type]
        parts or PARTS, wanted, smoke,
    )  # fmt: skip
    emit(result, json_file)
    if not result.get("passed", True) and not smoke:
        raise typer.Exit(1)


def _known(option: str, given: Sequence[str] | None, names: Sequence[str]) -> None:
    if unknown := sorted(set(given or ()) - set(names)):
        raise typer.BadParameter(
            f"must be of {', '.join(names)}, got {', '.join(unknown)}", param_hint=option
        )


def measure(
    task: GoalReaching, worlds: int, folder: Path, tier: Tier, parts: Sequence[str],
    only: Sequence[str] | None = None, smoke: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Everything that the command reports."""
    layouts = range(FIRST_LAYOUT, FIRST_LAYOUT + worlds)
    everybody = agents(lambda: load_h_dqn(folder))
    nets = only is None or any(name.startswith("h-dqn") for name in only)
    trained = json.loads((folder / "result.json").read_text()) if nets else {}
    result: dict[str, Any] = {
        "command": "bench goal", "machine": machine(), "tier": tier, "smoke": smoke,
        "layouts": {"first": layouts[0], "count": worlds, "kinds": list(task.kinds)},
        "limit_s": task.config.max_steps * CONTROL_DT, "paper_gains": PAPER,
        "h_dqn_training": trained,
        "environment_steps_trained": {"h-dqn": trained.get("steps"), "hodat": 0},
    }  # fmt: skip
    for part, (names, options) in TABLES.items():
        if part not in parts:
            continue
        wanted = [name for name in names if only is None or name in only]
        if not wanted:
            continue
        rows = {name: drive_all(task, layouts, everybody[name], f"{part}: {name}", tier=tier,
                                **options) for name in wanted}  # fmt: skip
        result[part] = table(task, layouts, part, rows)
    if "go-explore" in parts:
        mazes = range(FIRST_LAYOUT, FIRST_LAYOUT + (2 if smoke else 2 * GO_LAYOUTS), 2)
        result["go_explore"] = go_explore(task, mazes, 300 if smoke else GO_LIMIT)
    result["targets"] = {"success": SUCCESS, "spl": SPL}
    best = result.get("told", {}).get("hodat")
    if best is not None:
        result["passed"] = best["success"] >= SUCCESS and best["spl"] >= SPL
    return result


def table(
    task: GoalReaching, layouts: Sequence[int], part: str, rows: dict[str, list[Search]]
) -> dict[str, Any]:
    """One part of the result; the first of ``rows`` is held against the others."""
    first, *others = rows
    mine = rows[first]
    if part == "cover":
        seen = {name: float(np.mean([r.coverage for r in of])) for name, of in rows.items()}
        more = {name: more_coverage(mine, rows[name]) for name in others}
        return {"time_s": COVER_S, "coverage": seen, "more_than": more}
    out: dict[str, Any] = {name: summary(task, layouts, of) for name, of in rows.items()}
    return out | {"gains_over": {name: gains(mine, rows[name]) for name in others}}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("goal")(goal)
