"""Checkpoints that survive a kill: written aside, synced, renamed, checked by sha256 when read.

One checkpoint is a folder ``checkpoint-000012`` with ``state.safetensors`` (every array) and
``manifest.json`` (everything else, and the digest of the arrays). Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

log = logging.getLogger(__name__)

SCHEMA = 1
_NAME = re.compile(r"checkpoint-(\d{6,})")
_MANIFEST, _STATE = "manifest.json", "state.safetensors"
_UNREADABLE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError
)  # fmt: skip
"""What reading a file that is not ours may raise."""


class CheckpointError(RuntimeError):
    """No valid checkpoint could be read."""


def save(folder: str | os.PathLike[str], state: Any, keep: int = 3) -> Path:
    """Write ``state`` as the newest checkpoint in ``folder``; older ones than ``keep`` go.

    Args:
        folder: made if missing. One writer at a time.
        state: dicts, lists, tuples, tensors, arrays, numbers, strings, bytes and None, nested.
        keep: how many checkpoints stay, >= 1.

    Returns:
        The new checkpoint's folder. Once returned, it outlives a kill and a power cut.

    Raises:
        TypeError: a leaf of ``state`` cannot be stored without pickle.
        OSError: the disk is full or not writable; older checkpoints are untouched.
    """
    if keep < 1:
        raise ValueError(f"keep must be >= 1, got {keep}")
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    for stale in root.glob(".tmp-*"):  # left by a killed writer
        shutil.rmtree(stale, ignore_errors=True)
    tensors: dict[str, torch.Tensor] = {}
    tree = _encode(state, tensors, "state")
    payload = save_tensors(tensors)
    digest = hashlib.sha256(payload).hexdigest()
    body = json.dumps({"schema_version": SCHEMA, "sha256": {_STATE: digest}, "tree": tree})
    manifest = json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest(), "body": body})
    number = max((n for n, _ in _numbered(root)), default=0) + 1
    final = root / f"checkpoint-{number:06d}"
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=root))
    try:
        _write_synced(temporary / _STATE, payload)
        _write_synced(temporary / _MANIFEST, manifest.encode())
        _sync_folder(temporary)
        os.replace(temporary, final)
        _sync_folder(root)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for _, old in _numbered(root)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def load(folder: str | os.PathLike[str]) -> Any:
    """Read the newest valid checkpoint in ``folder``; a damaged one is logged and passed over.

    ``folder`` may also be one checkpoint, which is then read or refused.

    Raises:
        CheckpointError: nothing valid is there.
    """
    root = Path(folder)
    if _NAME.fullmatch(root.name) and (root / _MANIFEST).exists():
        return _read(root)
    for _, path in reversed(_numbered(root)):
        try:
            return _read(path)
        except CheckpointError as error:
            log.warning("skipping damaged checkpoint: %s", error)
    raise CheckpointError(f"{root}: no valid checkpoint (safetensors and JSON) of ours")


def _read(path: Path) -> Any:
    try:
        outer = json.loads((path / _MANIFEST).read_text())
        if hashlib.sha256(outer["body"].encode()).hexdigest() != outer["sha256"]:
            raise CheckpointError(f"{path.name}/{_MANIFEST}: sha256 differs")
        body = json.loads(outer["body"])
        if body["schema_version"] != SCHEMA:
            got = body["schema_version"]
            raise CheckpointError(f"{path.name}: schema_version must be {SCHEMA}, got {got!r}")
        payload = (path / _STATE).read_bytes()
        if hashlib.sha256(payload).hexdigest() != body["sha256"][_STATE]:
            raise CheckpointError(f"{path.name}/{_STATE}: sha256 differs")
        tensors = {name: tensor.clone() for name, tensor in load_tensors(payload).items()}
        return _decode(body["tree"], tensors)
    except _UNREADABLE as error:
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(
            f"{path.name}: safetensors and JSON of ours wanted, never pickle; {reason}"
        ) from error


def _numbered(root: Path) -> list[tuple[int, Path]]:
    """Checkpoints in ``root``, oldest first."""
    if not root.is_dir():
        return []
    found = ((_NAME.fullmatch(p.name), p) for p in root.iterdir() if p.is_dir())
    return sorted((int(m.group(1)), p) for m, p in found if m)


def _write_synced(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _encode(value: Any, tensors: dict[str, torch.Tensor], where: str) -> Any:
    """JSON for ``value``: plain values bare, others as ["kind", ...]; arrays go to ``tensors``."""
    plain = isinstance(value, (bool, int, float, str)) and not isinstance(value, np.generic)
    if value is None or plain:
        return value
    if isinstance(value, torch.Tensor):
        copy = value.detach().clone(memory_format=torch.contiguous_format)
        tensors[key := str(len(tensors))] = copy
        return ["torch", key]
    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.kind not in "biufc":
            raise TypeError(f"{where}: arrays of numbers wanted, got dtype {value.dtype}")
        kind = "numpy" if isinstance(value, np.ndarray) else "scalar"
        native = np.array(value, dtype=value.dtype.newbyteorder("="), order="C")
        tensors[key := str(len(tensors))] = torch.from_numpy(native)
        return [kind, key]
    if isinstance(value, bytes):
        return ["bytes", value.hex()]
    if isinstance(value, dict):
        pairs = value.items()
        return ["dict", [[k, _encode(v, tensors, f"{where}.{k}")] for k, v in pairs if _key(k)]]
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return [kind, [_encode(v, tensors, f"{where}[{i}]") for i, v in enumerate(value)]]
    raise TypeError(f"{where}: cannot store {type(value).__name__} without pickle")


def _key(key: Any) -> bool:
    if type(key) not in (str, int):
        raise TypeError(f"keys must be str or int, got {key!r}")
    return True


def _decode(tree: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if not isinstance(tree, list):
        return tree
    kind, content = tree
    if kind == "torch":
        return tensors[content]
    if kind == "numpy":
        return tensors[content].numpy()
    if kind == "scalar":
        return tensors[content].numpy()[()]
    if kind == "bytes":
        return bytes.fromhex(content)
    if kind == "dict":
        return {key: _decode(v, tensors) for key, v in content}
    items = [_decode(v, tensors) for v in content]
    if kind in ("list", "tuple"):
        return tuple(items) if kind == "tuple" else items
    raise ValueError(f"unknown kind {kind!r}")
