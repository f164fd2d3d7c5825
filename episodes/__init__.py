"""The episode store: one checksummed Zarr v3 group per episode, whole or not there at all."""

from __future__ import annotations

from .errors import (
    Damage,
    DamagedEpisodeError,
    EpisodeError,
    EpisodeTooLargeError,
    RefusedEpisodeError,
    StoreFullError,
)
from .export import encode_mp4, export_lerobot, export_mp4
from .reader import Episode, EpisodeReader, verify
from .writer import EpisodeBuilder, EpisodeWriter

__all__ = [
    "Damage",
    "DamagedEpisodeError",
    "Episode",
    "EpisodeBuilder",
    "EpisodeError",
    "EpisodeReader",
    "EpisodeTooLargeError",
    "EpisodeWriter",
    "RefusedEpisodeError",
    "StoreFullError",
    "encode_mp4",
    "export_lerobot",
    "export_mp4",
    "verify",
]
