"""Exploration bonuses behind one contract, :class:`IntrinsicReward`, made by :func:`make`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from .base import Horizon, IntrinsicReward, Transition
from .combine import Normalized, Product, Sum
from .count import VisitCount, VisitCountConfig
from .e3b import E3B, E3BConfig
from .icm import ICM, ICMConfig
from .normalization import DiscountedReturnStd, RunningMeanStd
from .rnd import RND, RNDConfig

__all__ = [
    "E3B",
    "ICM",
    "NAMES",
    "RND",
    "DiscountedReturnStd",
    "E3BConfig",
    "Horizon",
    "ICMConfig",
    "IntrinsicReward",
    "Normalized",
    "Product",
    "RNDConfig",
    "RunningMeanStd",
    "Sum",
    "Transition",
    "VisitCount",
    "VisitCountConfig",
    "make",
]

Sizes = dict[str, int]
Options = dict[str, Any]


def make(
    name: str, obs_dim: int, action_dim: int, num_envs: int = 1, seed: int = 0, **options: Any
) -> IntrinsicReward:
    """Build a bonus by name.

    States of six columns are taken for ``x_w, y_w, yaw_w, goal_x_w, goal_y_w, layout``: then
    counts keep layouts apart, and networks do not see the layout number. Any default can be
    overridden.

    Args:
        name: one of :data:`NAMES`.
        obs_dim: length of one state.
        action_dim: length of one action.
        num_envs: rows of a transition.
        seed: of weights and sampling.
        options: fields of the config of that bonus, such as ``scale`` or ``cell_m``; for
            "count-rnd" of either of its two.

    Raises:
        ValueError: unknown name or option, or a bad value.
    """
    if name not in _REGISTRY:
        raise ValueError(f"name must be one of {', '.join(NAMES)}, got {name!r}")
    sizes = {"obs_dim": obs_dim, "action_dim": action_dim, "num_envs": num_envs, "seed": seed}
    return _REGISTRY[name](sizes, options)


def _config(kind: type[Any], sizes: Sizes, options: Options, **defaults: Any) -> Any:
    """A config from the sizes it knows and the options, which it must know."""
    known = {f.name for f in fields(kind)}
    unknown = sorted(set(options) - (known - set(sizes)))
    if unknown:
        want = ", ".join(sorted(known - set(sizes)))
        raise ValueError(f"options must be among {want}, got {', '.join(unknown)}")
    mine = {key: value for key, value in sizes.items() if key in known}
    return kind(**mine, **{**defaults, **options})


def _state_columns(sizes: Sizes) -> tuple[int, ...] | None:
    return (0, 1, 2, 3, 4) if sizes["obs_dim"] == 6 else None


def _rnd(sizes: Sizes, options: Options) -> RND:
    """Burda 2018, whitened; with ``fourier_length_m`` on the position alone, with a larger lr."""
    fourier = options.get("fourier_length_m") is not None
    columns = (0, 1) if fourier else _state_columns(sizes)
    lr = 3e-4 if fourier else RNDConfig.lr
    return RND(_config(RNDConfig, sizes, options, columns=columns, lr=lr))


def _rnd_paper(sizes: Sizes, options: Options) -> RND:
    """As Unity ML-Agents has it: equal networks, raw input, every sample, no normalization."""
    defaults = {
        "columns": _state_columns(sizes),
        "whiten": False,
        "normalize": False,
        "hidden": (128, 128),
        "predictor_extra": 0,
        "embed_dim": 128,
        "activation": "swish",
        "lr": 3e-4,
        "sample_fraction": 1.0,
        "epochs": 3,
        "minibatch": 1024,
    }
    return RND(_config(RNDConfig, sizes, options, **defaults))


def _count(sizes: Sizes, options: Options, **defaults: Any) -> VisitCount:
    ids = (5,) if sizes["obs_dim"] == 6 else ()
    return VisitCount(_config(VisitCountConfig, sizes, options, id_columns=ids, **defaults))


def _count_episodic(sizes: Sizes, options: Options) -> VisitCount:
    return _count(sizes, options, scope="episodic")


def _icm(sizes: Sizes, options: Options) -> ICM:
    return ICM(_config(ICMConfig, sizes, options, columns=_state_columns(sizes)))


def _e3b(sizes: Sizes, options: Options) -> E3B:
    return E3B(_config(E3BConfig, sizes, options, columns=_state_columns(sizes)))


def _count_rnd(sizes: Sizes, options: Options) -> Product:
    """Visit count times RND of Fourier features of the position, scaled to unit spread."""
    options = dict(options)
    scale = options.pop("scale", 1.0)
    of_count = {f.name for f in fields(VisitCountConfig)} - {"columns"}
    for_count = {key: value for key, value in options.items() if key in of_count}
    for_rnd = {key: value for key, value in options.items() if key not in of_count}
    if "columns" in for_rnd:
        for_count["columns"] = for_rnd["columns"]
    for_rnd.setdefault("fourier_length_m", 2.0)
    return Product([_count(sizes, for_count), Normalized(_rnd(sizes, for_rnd))], scale=scale)


_REGISTRY: dict[str, Callable[[Sizes, Options], IntrinsicReward]] = {
    "count": _count,
    "count-episodic": _count_episodic,
    "count-rnd": _count_rnd,
    "e3b": _e3b,
    "icm": _icm,
    "rnd": _rnd,
    "rnd-paper": _rnd_paper,
}
NAMES = tuple(_REGISTRY)
"""Names that :func:`make` knows."""
