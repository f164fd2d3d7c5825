"""``incognita score``: the command; :mod:`incognita.score` does the work."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from episodes import EpisodeReader

URL = "http://127.0.0.1:8300"


def score(
    episodes: Annotated[Path, typer.Argument(help="Folder of the episode store.")],
    server: Annotated[
        str, typer.Option(envvar="INCOGNITA_REWARD_URL", help="The reward service.")
    ] = URL,
    local: Annotated[
        str | None, typer.Option(help="No server: a model as of `serve --model`, in here.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Of the service; by default its first.")] = None,
    task: Annotated[
        str | None, typer.Option(help="Instruction, in place of each episode's own.")
    ] = None,
    view: Annotated[list[str] | None, typer.Option(help="Camera; may be repeated.")] = None,
    frames: Annotated[int, typer.Option(min=1, help="Most frames of an episode.")] = 64,
    scores: Annotated[
        Path | None, typer.Option(help="Sidecar; default EPISODES.scores.jsonl, beside it.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the result here as one JSON object.")
    ] = None,
) -> None:
    """Score every episode of a store by its instruction and camera frames; goes on where it was.

    The key comes from INCOGNITA_REWARD_KEY. Exit code 1 where a score is missing.
    """
    try:
        from .score import Asked, score_store, sidecar, who_scores
    except ImportError as error:
        raise ImportError(f"{error.name} is missing: pip install 'incognita[client]'") from None
    asked = Asked(task, tuple(view or ()), frames)
    file = scores or sidecar(episodes)
    total = len(EpisodeReader(episodes).ids())
    columns = (TextColumn("scoring"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    bar = Progress(
        *columns, TimeElapsedColumn(), console=Console(stderr=True), disable=quiet, transient=True
    )
    with who_scores(server, local, model) as (who, stamps), bar:
        job = bar.add_task("", total=total)
        result = score_store(
            episodes, who, stamps, asked, file, lambda n: bar.advance(job, n)
        )  # Ctrl-C: what was answered is in the sidecar
    result = {"store": str(episodes), "sidecar": str(file)} | asdict(asked) | result
    from .cli import emit

    emit(result, json_file)
    if result["missing"] or result["unreadable"]:
        raise typer.Exit(1)
