"""The command line: ``incognita --help``.

Exit codes: 0 done; 1 the work failed or a target was missed; 2 bad usage or input; 130 stopped by
Ctrl-C.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(
        _name, "1"
    )  # before numpy: two BLAS threads cost more than they give here
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("LP_NUM_THREADS", "1")

try:
    import typer
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table
except ImportError as error:  # the base install is for robots, which use ros2 launch
    raise SystemExit(f"{error.name} is missing: pip install 'incognita[train]'") from None

app = typer.Typer(
    help="Train exploration policies in MuJoCo, run the same policy file on a robot over ROS 2.",
    no_args_is_help=True, add_completion=False, rich_markup_mode="markdown",
    epilog="Exit codes: 0 done, 1 failed or target missed, 2 bad usage or input, "
    "130 stopped by Ctrl-C.",
)  # fmt: skip
console = Console(stderr=True)
JsonFile = Annotated[
    Path | None, typer.Option("--json", help="Write the result here as one JSON object.")
]


def emit(result: Any, file: Path | None) -> None:
    """Print a result as JSON and write it to ``file`` if one is named."""
    text = json.dumps(result, indent=2, default=str)
    print(text)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")


@app.command(epilog="Example: `incognita train agv-simple-static seed=1 steps=3e5 ppo.lr=1e-4`")
def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe, see `incognita recipes`.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value settings of the recipe.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; default runs/RECIPE-SEED.")
    ] = None,
    variant: Annotated[str, typer.Option(help="Of the recipe, to compare with.")] = "default",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the folder's newest checkpoint.")
    ] = False,
    warm_start: Annotated[Path | None, typer.Option(help="Policy folder to start from.")] = None,
    eval_episodes: Annotated[
        int, typer.Option(help="Episodes in MuJoCo at the end; 0 for none.")
    ] = 100,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Train a recipe; Ctrl-C saves, `--resume` goes on."""
    from learning.policy_file import load_policy

    from .recipes import override, run_job, variants_of

    chosen = _recipe(recipe)
    chosen = _named(variants_of(chosen), variant, "variant")(chosen)
    chosen = override(chosen, overrides or [])
    tag = recipe if variant == "default" else f"{recipe}-{variant}"
    folder = out or Path("runs") / f"{tag}-{chosen.seed}"
    net = load_policy(warm_start) if warm_start else None
    try:
        result = run_job(
            chosen,
            folder,
            resume=resume,
            warm_start=net,
            eval_episodes=eval_episodes,
            console=console,
            quiet=quiet,
        )
    except KeyboardInterrupt as stop:
        console.print(str(stop) or "stopped")
        sys.stderr.flush()
        os._exit(130)  # what is saved is whole; tearing torch down would take seconds
    emit(result, json_file)


@app.command("eval", epilog="Example: `incognita eval agv-warehouse --episodes 100`")
def evaluate_policy(
    policy: Annotated[str, typer.Argument(help="Policy folder, or the name of a shipped policy.")],
    episodes: Annotated[int, typer.Option(min=1)] = 100,
    tier: Annotated[str, typer.Option(help="mujoco or kinematic.")] = "mujoco",
    seed: int = 1_000_000,
    json_file: JsonFile = None,
) -> None:
    """Score a policy file on its task, one line of JSON per run."""
    from learning.policy_file import OnnxPolicy, verify_policy
    from sim.tasks import ARM_TASKS
    from toponav.meta import MetaExplorer

    from .evaluate import evaluate
    from .shipped import folder_of, task_of
    from .stage_eval import evaluate_file

    folder = folder_of(policy)
    manifest = verify_policy(folder)
    if manifest["network"].get("kind") == MetaExplorer.KIND:
        raise typer.BadParameter(
            "explores, it drives nothing: score it by bench explore --policy", param_hint="policy"
        )
    if manifest["recipe"].get("settings", {}).get("task") in ARM_TASKS:
        emit(
            {"policy": str(policy), "seed": seed} | evaluate_file(folder, episodes, seed), json_file
        )
        return
    network = OnnxPolicy(folder)
    task = task_of(network.manifest)
    if tier not in ("mujoco", "kinematic"):
        raise typer.BadParameter(f"must be mujoco or kinematic, got {tier!r}", param_hint="--tier")
    outcome = evaluate(task, network, episodes, tier=tier, seed=seed)  # type: ignore[arg-type]
    emit({"policy": str(policy), "tier": tier, "seed": seed} | outcome.summary(), json_file)


@app.command(epilog="Example: `incognita export runs/agv-warehouse-0/policy my_policy`")
def export(
    source: Annotated[Path, typer.Argument(help="Policy folder of a run.")],
    target: Annotated[Path, typer.Argument(help="New folder for the robot.")],
    json_file: JsonFile = None,
) -> None:
    """Check a policy folder and copy it, complete and verified, to where a robot takes it from."""
    import shutil

    from learning.policy_file import OnnxPolicy, load_policy, verify_policy
    from toponav.meta import MetaExplorer

    if verify_policy(source)["network"].get("kind") == MetaExplorer.KIND:
        MetaExplorer(source)
    else:
        load_policy(source)
        OnnxPolicy(source)
    if target.exists():
        raise typer.BadParameter(f"must not exist yet, got {target}", param_hint="TARGET")
    shutil.copytree(source, target)
    verify_policy(target)
    emit({"policy": str(target), "files": sorted(p.name for p in target.iterdir())}, json_file)


@app.command()
def tasks() -> None:
    """List the tasks."""
    from sim.tasks import TASKS

    table = Table("task", "what it is", box=None)
    for name, factory in TASKS.items():
        kind = getattr(factory, "func", factory)
        table.add_row(name, (kind.__doc__ or "").strip().splitlines()[0])
    Console().print(table)


@app.command()
def recipes() -> None:
    """List the recipes."""
    from .recipes import JOBS

    table = Table("recipe", "steps", "about", box=None)
    for name, recipe in JOBS.items():
        table.add_row(name, f"{recipe.steps:,}", recipe.about)
    Console().print(table)


@app.command()
def policies(json_file: JsonFile = None) -> None:
    """List the shipped policies and check their files."""
    from .shipped import shipped

    emit(shipped(), json_file)


@app.command(epilog="Example: `incognita demo --map my_building.yaml`")
def demo(
    task: Annotated[
        str, typer.Option(help="drive: cross a warehouse; explore: map an unknown floor.")
    ] = "drive",
    map_yaml: Annotated[
        Path | None, typer.Option("--map", help="Your own map_server YAML.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Layout of the warehouse or floor.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("report"),
    in_process: Annotated[
        bool, typer.Option("--in-process", help="No ROS: planner and guard in one process.")
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """A MuJoCo robot crosses or explores an unknown place via ROS 2; writes a report."""
    if task == "explore":
        from .demo_explore import run_explore_demo

        if map_yaml is not None:
            raise typer.BadParameter("works with --task drive only", param_hint="--map")
        found = run_explore_demo(
            1 if seed is None else seed, out, in_process=in_process, console=console
        )
        emit(found, json_file)
        if found["reason"] != "complete" or not found["goal_reached"]:
            raise typer.Exit(1)
        return
    if task != "drive":
        raise typer.BadParameter(f"must be drive or explore, got {task!r}", param_hint="--task")
    from .demo import run_demo

    layout = 100_001 if seed is None else seed
    result = run_demo(map_yaml, layout, out, in_process=in_process, console=console)
    emit(result, json_file)
    if not result["reached"]:
        raise typer.Exit(1)


def _recipe(name: str) -> Any:
    from .recipes import JOBS

    return _named(JOBS, name, "recipe")


def _named(table: dict[str, Any], name: str, what: str) -> Any:
    if name not in table:
        raise typer.BadParameter(
            f"must be one of {', '.join(table)}, got {name!r}", param_hint=what
        )
    return table[name]


def _add_groups() -> None:
    """Sub-commands that live in their own files."""
    from .bench import app as bench_app
    from .episodes_cli import app as episodes_app
    from .score_cli import score
    from .serve import serve
    from .stages_cli import app as stages_app

    app.command(epilog="Example: `incognita score report/episodes --local small`")(score)
    app.command(epilog="Example: `incognita serve --model small --port 8300`")(serve)
    app.add_typer(bench_app, name="bench")
    app.add_typer(episodes_app, name="episodes")
    app.add_typer(stages_app, name="stages")


def main() -> None:
    """Entry point: errors in one line, a traceback only with ``--debug``."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    _add_groups()
    try:
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except KeyboardInterrupt as stop:
        console.print(str(stop) or "stopped")
        sys.exit(130)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        show = getattr(error, "show", None)
        if show is not None:  # a usage error of click
            show()
            sys.exit(2)
        line = f"{type(error).__name__}: {error}"
        console.print("[red]error:[/red]", escape(line), highlight=False, soft_wrap=True)
        bad_input = isinstance(error, (ValueError, FileNotFoundError, FileExistsError, ImportError))
        sys.exit(2 if bad_input else 1)


if __name__ == "__main__":
    main()
