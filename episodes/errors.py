"""What can go wrong with an episode, by name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Damage:
    """One thing wrong with one episode."""

    episode: str
    """Episode id."""
    array: str
    """Name of the array hit, "" where the fault is not in one array."""
    file: str
    """Path inside the episode folder, "" for the folder itself."""
    problem: str
    """What was found."""

    def __str__(self) -> str:
        where = self.file or "folder"
        name = f", array {self.array!r}" if self.array else ""
        return f"{self.episode}: {where}{name}: {self.problem}"


class EpisodeError(Exception):
    """Anything the episode store refuses or fails to do."""


class StoreFullError(EpisodeError, OSError):
    """Disk, quota or file-size limit ran out: nothing was stored, finish() may be tried again."""


class EpisodeTooLargeError(EpisodeError):
    """The episode is over the byte budget."""


class RefusedEpisodeError(EpisodeError):
    """The files are not an episode that we would have written, and were not decoded."""


class DamagedEpisodeError(EpisodeError):
    """Files are missing or are not the bytes that were written."""

    def __init__(self, damage: list[Damage]) -> None:
        super().__init__("; ".join(map(str, damage)))
        self.damage = damage
