"""Stages of a long task: what each one does, and how it is told in words (arXiv 2511.16166).

A task is a tuple of :class:`Step`. Stages count from 0; the number of the stage that is believed
or true is ``stage`` in 0..K, where K, the number of stages, means that all are done.
"""

from __future__ import annotations

from dataclasses import dataclass

PRIMITIVES = ("above", "reach", "close", "settle", "lift", "over", "lower", "open", "retreat")
"""What a stage can do, in the order of one pick and place."""

_HOLDS_OVER = ("over", "lower", "open")
"""Primitives that say where the held object is, relative to another one."""


@dataclass(frozen=True)
class Step:
    """What one stage does, to which object."""

    primitive: str
    """One of :data:`PRIMITIVES`."""
    target: str
    """The object that is approached, held or left, as it is named in texts: "blue cube"."""
    reference: str = ""
    """The object that the target is brought to; needed by "over", "lower" and "open"."""

    def __post_init__(self) -> None:
        if self.primitive not in PRIMITIVES:
            want = ", ".join(PRIMITIVES)
            raise ValueError(f"primitive must be one of {want}, got {self.primitive!r}")
        if not self.target.strip():
            raise ValueError(f"target must name an object, got {self.target!r}")
        if self.primitive in _HOLDS_OVER and not self.reference.strip():
            raise ValueError(f"reference must name an object for {self.primitive!r}, got none")
        if self.target == self.reference:
            raise ValueError(f"reference must differ from target, both are {self.target!r}")
