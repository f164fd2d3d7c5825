"""``incognita serve``: the reward service on this machine."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_KEYS = Path(os.environ.get("XDG_CONFIG_HOME", "~/.config")) / "incognita/reward-keys.json"


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="small, small:FOLDER, qwen:FOLDER, qwen:HUB_ID@REVISION or openai:URL#MODEL; "
            "may be given several times, the first is the default.  [default: small]",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Beyond loopback, put TLS in front.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8300,
    keys: Annotated[Path, typer.Option(help="File of hashed keys.")] = DEFAULT_KEYS,
    new_key: Annotated[
        str | None, typer.Option(help="Make a key of this name, print it once, and exit.")
    ] = None,
    queue: Annotated[int, typer.Option(min=1, help="Clips that may wait, per model.")] = 64,
    decoders: Annotated[int, typer.Option(min=1, help="Processes that decode media.")] = 2,
    body_mb: Annotated[int, typer.Option(min=1, help="Largest request, MiB.")] = 32,
    drain_s: Annotated[
        float, typer.Option(min=3.0, help="Seconds from SIGTERM to the end, whatever hangs.")
    ] = 10.0,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
) -> None:
    """Serve rewards for episodes over HTTP; SIGTERM or Ctrl-C lets accepted requests finish."""
    try:
        from reward_vlm.gateway import logs, server
        from reward_vlm.gateway.auth import add_key
        from reward_vlm.gateway.settings import Settings
    except ImportError as error:
        raise ImportError(f"{error.name} is missing: pip install 'incognita[serve]'") from None
    keys = keys.expanduser()
    if new_key is not None:
        print(add_key(keys, new_key))
        return
    settings = Settings(
        keys=keys, host=host, port=port, queue=queue, decoders=decoders,
        body_bytes=body_mb << 20, drain_s=drain_s,
    )  # fmt: skip
    from reward_vlm.backends import open_model

    logs.to_stderr(log_level)
    models = [open_model(spec) for spec in model or ["small"]]
    if not keys.exists():
        made = add_key(keys, "default")
        print(f"key (shown this once, its hash is in {keys}): {made}", flush=True)
    if server.serve(models, settings) == signal.SIGINT:
        raise typer.Exit(130)
