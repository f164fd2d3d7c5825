"""The policies that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from learning.policy_file import verify_policy
from rnd_agv.observation import ObservationConfig
from sim.tasks import AgvTask, make

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


def fitted(manifest: dict[str, Any]) -> dict[str, Any]:
    """Task options that a policy file asks for: what it sees and how fast it may drive.

    They are the file's own and not those of today's recipe, which may have changed since.
    """
    return {
        "observation": ObservationConfig(**manifest["observation"]["config"]),
        "v_max": manifest["action"]["limits"]["v_max"],
    }


def task_of(manifest: dict[str, Any]) -> AgvTask:
    """The task that a policy was trained for, as evaluated.

    Raises:
        ValueError: the manifest does not say which.
    """
    settings = manifest["recipe"].get("settings", {})
    if "task" not in settings:
        raise ValueError(
            "policy must name its task under recipe.settings in its manifest, as those that drive "
            f"do; got {sorted(settings) or sorted(manifest['recipe'])}"
        )
    options = {**settings["task_options"], **settings["eval_options"], **fitted(manifest)}
    return make(settings["task"], **options)
