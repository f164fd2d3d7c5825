"""``incognita episodes``: look at, check and export the episode store.

Exit codes: 0 well, 1 damage found, 2 bad usage or input.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from episodes import EpisodeError, EpisodeReader, export_lerobot, export_mp4
from episodes import verify as verify_store

app = typer.Typer(help="List, show, verify and export episodes.", no_args_is_help=True)

Store = Annotated[Path, typer.Argument(help="Folder of the episode store.")]
JsonFile = Annotated[
    Path | None, typer.Option("--json", help="Write the result here as one JSON object.")
]


@app.command("ls", epilog="Example: `incognita episodes ls report/episodes`")
def list_episodes(store: Store, json_file: JsonFile = None) -> None:
    """List the episodes, oldest first."""
    reader = EpisodeReader(store)
    rows: list[dict[str, Any]] = []
    for id in reader.ids():
        try:
            episode = reader.open(id)
        except EpisodeError as error:
            rows.append({"id": id, "problem": str(error)})
            continue
        keys = ("task", "instruction", "steps", "rate_hz", "outcome")
        rows.append({"id": id} | {key: episode.attrs.get(key) for key in keys})
    table = Table("id", "task", "steps", "seconds", "outcome", box=None)
    for row in rows:
        if "problem" in row:
            table.add_row(row["id"], "[red]unreadable[/red], see `verify`")
            continue
        outcome = row["outcome"]
        text = outcome if isinstance(outcome, str) else json.dumps(outcome)
        seconds = f"{row['steps'] / row['rate_hz']:.1f}"
        table.add_row(row["id"], row["task"], str(row["steps"]), seconds, text[:60])
    Console().print(table)
    _write({"store": str(store), "episodes": rows}, json_file)


@app.command(epilog="Example: `incognita episodes show report/episodes 20260101T120000Z-…`")
def show(
    store: Store,
    episode: Annotated[str, typer.Argument(help="Episode id, or `last`.")] = "last",
    json_file: JsonFile = None,
) -> None:
    """Show what one episode holds."""
    reader = EpisodeReader(store)
    opened = reader.open(_one(reader, episode))
    result = {
        "id": opened.id,
        "attrs": opened.attrs,
        "arrays": {k: {"shape": v.shape, "dtype": v.dtype.name} for k, v in opened.arrays.items()},
        "cameras": {k: vars(spec) for k, spec in opened.cameras.items()},
    }
    print(json.dumps(result, indent=2))
    _write(result, json_file)


@app.command(epilog="Example: `incognita episodes verify report/episodes`")
def verify(
    store: Store,
    episode: Annotated[str | None, typer.Argument(help="Episode id; all by default.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Check every byte; name what is damaged and exit with 1 if anything is."""
    reader = EpisodeReader(store)
    ids = reader.ids() if episode is None else [_one(reader, episode)]
    found = [damage for id in ids for damage in verify_store(store, id)]
    for damage in found:
        print(damage)
    hurt = len({damage.episode for damage in found})
    print(f"{len(ids) - hurt} of {len(ids)} episodes are whole")
    result = {"checked": len(ids), "damaged": hurt, "damage": [vars(damage) for damage in found]}
    _write(result, json_file)
    if found:
        raise typer.Exit(1)


@app.command(epilog="Example: `incognita episodes export report/episodes last drive.mp4`")
def export(
    store: Store,
    episode: Annotated[str, typer.Argument(help="Episode id, `last`, or `all` (LeRobot only).")],
    target: Annotated[Path, typer.Argument(help="FILE.mp4, or a new folder for LeRobot.")],
    camera: Annotated[str | None, typer.Option(help="Camera of the MP4, if several.")] = None,
    robot: Annotated[str, typer.Option(help="Robot type in the LeRobot metadata.")] = "unknown",
    json_file: JsonFile = None,
) -> None:
    """Export to MP4 (a target that ends in .mp4) or to the LeRobot dataset layout (v2.1)."""
    reader = EpisodeReader(store)
    if target.suffix == ".mp4":
        id = _one(reader, episode)
        result = {"id": id, "frames": export_mp4(store, id, target, camera)}
    else:
        ids = reader.ids() if episode == "all" else [_one(reader, episode)]
        result = export_lerobot(store, target, ids, robot)
        result = {key: result[key] for key in ("total_episodes", "total_frames", "fps")}
    result["file"] = str(target)
    print(json.dumps(result))
    _write(result, json_file)


def _one(reader: EpisodeReader, episode: str) -> str:
    ids = reader.ids()
    if episode == "last" and ids:
        return ids[-1]
    if episode not in ids:
        raise typer.BadParameter(f"no episode {episode!r} in {reader.store}", param_hint="EPISODE")
    return episode


def _write(result: dict[str, Any], file: Path | None) -> None:
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(result, indent=2) + "\n")
