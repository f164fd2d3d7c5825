"""The learned meta-controller: a residual on a classical score, and that score where it is unsure.

The paper's meta-controller picks the next sub-goal by a Q-network (Hossain et al. 2024, arXiv
2402.04061); what it sees, learns from and is built on is ours. It runs by onnxruntime; training is
``incognita train explorer``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from learning.policy_file import PolicyFileError, open_session

from .explorers import CLASSICAL, Explorer, Utility
from .meta_features import NAMES, PATCH, PATCH_RANGES, Features, features
from .snapshot import Snapshot

OBSERVATION = {"dim": len(NAMES), "numbers": list(NAMES), "patch": PATCH, "ranges": PATCH_RANGES}
"""What a policy file must have been trained on."""


@dataclass(frozen=True)
class MetaConfig:
    """When the network is believed."""

    margin: float = 0.0
    """Ranges of the sensor that another candidate must save over the classical choice."""
    doubt: float = 0.0
    """Standard deviations of the heads on that saving that it must be worth besides."""

    def __post_init__(self) -> None:
        if min(self.margin, self.doubt) < 0:
            raise ValueError(f"margin and doubt must be >= 0, got {self}")


class MetaExplorer:
    """Chooses by a policy file; an :class:`~toponav.explorers.Explorer`.

    Args:
        folder: of a policy file.
        config: when the network is believed; None: as the file says.

    Raises:
        PolicyFileError: the folder is no intact policy file of an explorer.
    """

    KIND = "meta-controller"
    """What such a policy file says it is."""

    def __init__(self, folder: str | os.PathLike[str], config: MetaConfig | None = None) -> None:
        self.manifest, self._session = open_session(folder, OBSERVATION)
        try:
            base, trust = (self.manifest["action"][part] for part in ("base", "trust"))
            self.base = Utility(float(base["scale"]), float(base["power"]))
            self.config = config or MetaConfig(float(trust["margin"]), float(trust["doubt"]))
        except (KeyError, TypeError, ValueError) as error:
            raise PolicyFileError(f"{folder}: the manifest is no explorer's: {error!r}") from error
        self.overruled = 0
        """Decisions that were not the classical explorer's."""

    def costs(self, view: Snapshot) -> NDArray[np.float32]:
        """(K, members) what each head expects to be driven if a candidate is first, ranges."""
        return self._ask(features(view, self.base.scores(view)))

    def _ask(self, told: Features) -> NDArray[np.float32]:
        cost: NDArray[np.float32] = self._session.run(
            None, {"numbers": told.numbers, "pictures": told.pictures}
        )[0]
        return cost

    def choose(self, view: Snapshot) -> int:
        """See :class:`~toponav.explorers.Explorer`."""
        score = self.base.scores(view)
        first = int(score.argmax())
        if len(score) == 1:
            return first
        other = trusted(self._ask(features(view, score)), first, self.config)
        self.overruled += other != first
        return other


def trusted(cost: NDArray[np.float32], first: int, config: MetaConfig) -> int:
    """The candidate of least cost, or the classical one where too little or too unsure is saved.

    Args:
        cost: (K, members) of each candidate by each head.
        first: the classical choice.
    """
    best = int(cost.mean(axis=1).argmin())
    saved = cost[first] - cost[best]
    sure = saved.mean() > config.margin + config.doubt * saved.std() and np.isfinite(cost).all()
    return best if sure else first


def explorer_of(text: str) -> Explorer:
    """An explorer by its name, or the learned one of a policy folder.

    Raises:
        ValueError: it is neither; a policy file that is not intact is one too.
    """
    if text in CLASSICAL:
        return CLASSICAL[text]
    if not os.path.isdir(text):
        known = ", ".join(CLASSICAL)
        raise ValueError(f"explorer must be a policy folder or one of {known}, got {text!r}")
    return MetaExplorer(text)
