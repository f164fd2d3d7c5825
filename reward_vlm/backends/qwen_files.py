"""A Qwen3-VL checkpoint on disk: where it is, which one it is, and whether we can run it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..rubric import ANSWER, LEVELS

COMMIT = re.compile(r"[0-9a-f]{40}")
TYPES = ("qwen3_vl", "qwen3_vl_moe")
FILES = ("*.safetensors", "*.json", "*.jinja", "merges.txt", "vocab.txt")
"""Of a hub repository; nothing else of it is fetched, so no code and no pickle."""


def checkpoint(source: str) -> tuple[Path, str | None]:
    """The folder of a checkpoint, and its commit if it came from a hub.

    Args:
        source: a folder, or ``HUB_ID@COMMIT``. A branch or tag is refused: it can move.

    Raises:
        ValueError: neither of them.
    """
    if Path(source).is_dir():
        folder, commit = Path(source), None
    else:
        name, _, commit = source.partition("@")
        if not COMMIT.fullmatch(commit) or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
            raise ValueError(
                f"qwen wants a folder, or HUB_ID@REVISION with a commit of 40 hex digits, "
                f"got {source!r}"
            )
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(name, revision=commit, allow_patterns=list(FILES)))
    if not (folder / "config.json").is_file():
        raise ValueError(f"a checkpoint has a config.json, {source!r} has none")
    return folder, commit


def weights(folder: Path) -> list[Path]:
    """The weights of a checkpoint that we know how to run.

    Raises:
        ValueError: another kind of network, or weights that are no safetensors.
    """
    kind = json.loads((folder / "config.json").read_text("utf-8")).get("model_type")
    if kind not in TYPES:
        raise ValueError(f"model_type must be one of {TYPES}, got {kind!r}")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder.name} must hold safetensors weights, got none")
    return files


def weights_digest(files: Sequence[Path]) -> str:
    """Of one file its sha256; of several that of the lines that sha256sum prints for them."""
    lines = []
    for path in files:
        with path.open("rb") as stream:
            lines.append((hashlib.file_digest(stream, "sha256").hexdigest(), path.name))
    if len(lines) == 1:
        return lines[0][0]
    return hashlib.sha256("".join(f"{d}  {n}\n" for d, n in lines).encode()).hexdigest()


def chat_template(words: Any, folder: Path) -> str:
    """The tokenizer's, or that of ``chat_template.json`` as 4.57 kept it."""
    if isinstance(words.chat_template, str):
        return words.chat_template
    path = folder / "chat_template.json"
    if path.is_file():
        return str(json.loads(path.read_text("utf-8"))["chat_template"])
    raise ValueError(f"the checkpoint needs a chat template, got none in {folder.name}")


def digit_ids(words: Any) -> list[int]:
    """(5,) the tokens of the digits 1..5 as they follow :data:`ANSWER`.

    Raises:
        ValueError: a digit is no token of its own there, so that one pass would not do.
    """
    start = words(ANSWER, add_special_tokens=False)["input_ids"]
    found = []
    for digit in "12345"[:LEVELS]:
        whole = words(ANSWER + digit, add_special_tokens=False)["input_ids"]
        if whole[:-1] != start or words.decode(whole[-1:]) != digit:
            raise ValueError(f"{digit} must be one token after {ANSWER!r}, got tokens {whole}")
        found.append(int(whole[-1]))
    return found
