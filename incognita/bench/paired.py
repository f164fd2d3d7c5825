"""Paired timing: all configurations alternate in one run, in rounds of shuffled order.

A ratio is the median over rounds of the ratio within a round, so that a load that comes and goes
hits both sides. Both clocks are kept: CPU time of this process and its children, and wall time.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from ..cli import console, emit

Seeds = Annotated[int, typer.Option(min=1, help="Worlds and random numbers, each measured anew.")]
Smoke = Annotated[bool, typer.Option("--smoke", help="Tiny sizes; targets do not count.")]
Clock = Literal["cpu", "wall"]


def cpu_s() -> float:
    """CPU seconds of this process and of its worker processes, alive (on Linux) or ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + ended.ru_utime + ended.ru_stime
    for child in multiprocessing.active_children():
        if child.pid is not None and hasattr(time, "clock_gettime"):
            try:  # the kernel's clock id of another process, as clock_getcpuclockid(3) gives it
                total += time.clock_gettime((~child.pid << 3) | 2)
            except OSError:  # it has just ended
                continue
    return total


@dataclass
class Timing:
    """What one configuration took in each round."""

    cpu_us: list[float] = field(default_factory=list)
    """CPU microseconds per item."""
    wall_us: list[float] = field(default_factory=list)
    """Wall microseconds per item."""

    def of(self, clock: Clock) -> NDArray[np.float64]:
        """(rounds,) microseconds per item."""
        return np.array(self.cpu_us if clock == "cpu" else self.wall_us)


def alternate(
    works: Mapping[str, Callable[[], int]], rounds: int, seed: int, into: dict[str, Timing]
) -> None:
    """Run every work once per round in shuffled order and note its time.

    Args:
        works: name -> does a piece of work and returns its number of items. Each is run once
            before the first round, unmeasured.
        into: name -> timing; filled, and made where missing.
    """
    rng = np.random.default_rng([seed, 77])
    for work in works.values():
        work()
    for _ in range(rounds):
        for name in rng.permutation(list(works)):
            cpu, wall = cpu_s(), time.perf_counter()
            items = works[str(name)]()
            cpu, wall = cpu_s() - cpu, time.perf_counter() - wall
            timing = into.setdefault(str(name), Timing())
            timing.cpu_us.append(1e6 * cpu / items)
            timing.wall_us.append(1e6 * wall / items)


def quartiles(values: Any) -> list[float]:
    """Lower quartile, median, upper quartile, four digits."""
    return [float(f"{v:.4g}") for v in np.quantile(np.asarray(values, float), [0.25, 0.5, 0.75])]


class Report:
    """Gathers the figures of one benchmark, prints them with where they come from.

    Args:
        command: the command line that gives these figures.
        seeds: how many.
        about: what is compared, in a sentence.
    """

    def __init__(self, command: str, seeds: int, about: str) -> None:
        self.began = time.time()
        self.cpu = cpu_s()
        self.result: dict[str, Any] = {
            "command": f"incognita bench {command}",
            "about": about,
            "seeds": list(range(seeds)),
            "load_before": list(os.getloadavg()),
            "configurations": {},
            "targets": [],
        }

    def timings(self, timings: Mapping[str, Timing], item: str) -> None:
        """Note every configuration's quartiles on both clocks."""
        for name, timing in timings.items():
            self.result["configurations"][name] = {
                "item": item,
                "cpu_us": quartiles(timing.of("cpu")),
                "wall_per_s": quartiles(1e6 / timing.of("wall")),
                "rounds": len(timing.cpu_us),
            }

    def ratio(
        self,
        base: str,
        ours: str,
        timings: Mapping[str, Timing],
        target: float | None = None,
        gate: Clock = "cpu",
    ) -> None:
        """Note base / ours within rounds on both clocks; that of ``gate`` is held to target."""
        clocks: tuple[Clock, Clock] = ("cpu", "wall")
        for clock in clocks:
            values = timings[base].of(clock) / timings[ours].of(clock)
            goal = target if clock == gate else None
            self.target(f"{ours} vs {base}", values, goal, clock=clock)

    def target(
        self, what: str, values: Any, target: float | None, *, most: bool = False, clock: str = ""
    ) -> None:
        """Note a figure, the median of ``values``, and whether it meets ``target``."""
        low, middle, high = quartiles(values)
        passed = None if target is None else (middle <= target if most else middle >= target)
        self.result["targets"].append(
            {
                "what": what,
                "clock": clock,
                "median": middle,
                "quartiles": [low, high],
                "target": target,
                "sense": "at most" if most else "at least",
                "passed": passed,
            }
        )

    def finish(self, json_file: Path | None, smoke: bool) -> None:
        """Print and write the figures.

        Raises:
            typer.Exit: with code 1, a target was missed (not in smoke runs).
        """
        from ..recipes.train import machine

        result = self.result
        result["passed"] = all(row["passed"] is not False for row in result["targets"])
        result["smoke"] = smoke
        result["core_hours"] = round((cpu_s() - self.cpu) / 3600, 4)
        result["wall_s"] = round(time.time() - self.began, 1)
        result["load_after"] = list(os.getloadavg())
        result["machine"] = machine() | {"cpu": cpu_name(), "cores": str(os.cpu_count())}
        self._print()
        emit(result, json_file)
        if not result["passed"] and not smoke:
            raise typer.Exit(1)

    def _print(self) -> None:
        result = self.result
        load = f"{result['load_before'][0]:.1f} to {result['load_after'][0]:.1f}"
        who = f"{result['machine']['cpu']}, {os.cpu_count()} cores, load {load}"
        title = f"{result['command']}\n{who}, seeds {result['seeds']}"
        table = Table("configuration", "cpu us", "per s (wall)", title=title, box=None)
        for name, row in result["configurations"].items():
            table.add_row(name, f"{row['cpu_us'][1]:,.4g}", f"{row['wall_per_s'][1]:,.4g}")
        console.print(table)
        table = Table("figure", "clock", "median", "quartiles", "target", "", box=None)
        for row in result["targets"]:
            low, high = row["quartiles"]
            goal = "" if row["target"] is None else f"{row['sense']} {row['target']:g}"
            verdict = {None: "", True: "met", False: "[red]missed[/red]"}[row["passed"]]
            figures = f"{row['median']:.4g}", f"{low:.4g} to {high:.4g}"
            table.add_row(row["what"], row["clock"], *figures, goal, verdict)
        console.print(table)


def cpu_name() -> str:
    """Model of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
