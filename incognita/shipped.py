"""The policies that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from learning.policy_file import verify_policy

SHIPPED = Path(__file__).resolve().parent / "policies"


def names() -> list[str]:
    """Names of the shipped policies."""
    return sorted(p.parent.name for p in SHIPPED.glob("*/manifest.json"))


def folder_of(policy: str | Path) -> Path:
    """The folder of a shipped policy's name, or the folder itself.

    Raises:
        FileNotFoundError: it is neither.
    """
    for folder in (SHIPPED / str(policy), Path(policy)):
        if (folder / "manifest.json").is_file():
            return folder
    raise FileNotFoundError(
        f"policy must be a policy folder or one of {names()}, got {str(policy)!r}; "
        "a policy folder holds safetensors, ONNX and JSON, never pickle"
    )


def shipped() -> dict[str, Any]:
    """What each shipped policy is, its files checked."""
    out: dict[str, Any] = {}
    for name in names():
        manifest = verify_policy(SHIPPED / name)
        size = sum(f.stat().st_size for f in (SHIPPED / name).iterdir())
        out[name] = {
            "bytes": size,
            "recipe": manifest["recipe"]["name"],
            "git": manifest["recipe"]["git"],
            "evaluation": manifest["evaluation"],
        }
    return out
