"""Faults thrown at the reward service, black box: the service is a process, the faults are real.

R1 to R13 of the reliability scorecard and the prompt injection of the acceptance table. Each prints
one JSON line per case ``{case, seed, injected, survived, lost, worst_ms}`` and one of totals, as
``incognita bench faults`` does; ``lost`` counts what must not happen.

Full sizes: R4 50 sockets, R5 60 s, R7 500 files, R9 1000 pairs, R13 3 seeds of 80 examples a route.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from . import reward_faults_within as within
from . import reward_faults_without as without
from .faults import Emit, print_line

FULL = {
    "R1": 0, "R2": 0, "R3": 0, "R4": 50, "R5": 60, "R6": 0, "R7": 500, "R8": 0, "R9": 1000,
    "R10": 0, "R11": 0, "R12": 5, "R13": 80, "injection": 0,
}  # fmt: skip


SMOKE = FULL | {"R4": 10, "R5": 6, "R7": 40, "R9": 100, "R12": 1, "R13": 3}


CHECKS: dict[str, Callable[..., dict[str, Any]]] = {
    "R1": without.keys, "R2": without.urls, "R3": without.bodies, "R4": without.slow_sockets,
    "R5": without.overload, "R6": without.hostile, "R7": without.mutated, "R8": within.garbage,
    "R9": within.cache_keys, "R10": within.engine_faults, "R11": within.out_of_memory,
    "R12": within.drained, "R13": without.described, "injection": without.injections,
}  # fmt: skip


def run(
    checks: list[str] | None = None,
    *,
    smoke: bool = False,
    seed: int = 0,
    model: str = "",
    emit: Emit = print_line,
) -> dict[str, Any]:
    """Run the checks (default: all) and return {"passed": bool, "checks": [totals]}.

    Raises:
        ValueError: no such check.
    """
    sizes = SMOKE if smoke else FULL
    wanted = list(sizes) if checks is None else checks
    if unknown := sorted(set(wanted) - sizes.keys()):
        raise ValueError(f"checks must be among {list(sizes)}, got {unknown}")
    results = []
    for name in wanted:
        check = partial(CHECKS[name], model=model) if name == "injection" else CHECKS[name]
        with tempfile.TemporaryDirectory(prefix="reward-faults-") as folder:
            results.append(check(sizes[name], seed, Path(folder), emit=emit))
    passed = all(result["passed"] for result in results if "skipped" not in result)
    skipped = [result["check"] for result in results if "skipped" in result]
    emit({"total": len(results), "passed": passed, "skipped": skipped})
    return {"passed": passed, "skipped": skipped, "seed": seed, "smoke": smoke, "checks": results}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "incognita bench reward-faults",
        description="Faults thrown at the reward service: hostile media and requests, overload, "
        "slow sockets, broken models, dead engines, SIGTERM.",
    )
    parser.add_argument("checks", nargs="*", help=f"of {', '.join(FULL)}; all by default")
    parser.add_argument("--smoke", action="store_true", help="small sizes, two minutes")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("INCOGNITA_SEED", "0")))
    parser.add_argument("--model", default="", help="of the injection check, such as small")
    parser.add_argument("--json", type=Path, help="write the totals here")
    args = parser.parse_args(argv)
    result = run(args.checks or None, smoke=args.smoke, seed=args.seed, model=args.model)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
