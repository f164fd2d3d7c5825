"""What a scorer is: frames and texts in, cosine similarities out; and the oracle among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .stages import StageDictionary

Images = NDArray[np.uint8]


class ImageTextScorer(Protocol):
    """How well texts describe what cameras see."""

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the cameras, in the order that images have them."""
        ...

    def similarities(self, images: Images, texts: Sequence[str]) -> NDArray[np.float64]:
        """Compare every frame with every text.

        Args:
            images: (N, V, H, W, 3) uint8 RGB, one picture per view.
            texts: such as :attr:`.triplets.Triplets.texts`.

        Returns:
            (N, len(texts)) cosines, -1..1.

        Raises:
            ValueError: images are not of that shape and type, or their views are too few.
        """
        ...


def check_images(images: Images, views: tuple[str, ...]) -> None:
    """Refuse what is not (N, V, H, W, 3) uint8 with V as many as ``views``.

    Raises:
        ValueError: see above.
    """
    shape = np.shape(images)
    if len(shape) != 5 or shape[1] != len(views) or shape[4] != 3 or images.dtype != np.uint8:
        want = f"(N, {len(views)}, H, W, 3) uint8 of {', '.join(views)}"
        raise ValueError(f"images must be {want}, got {shape} {getattr(images, 'dtype', None)}")


class OracleScorer:
    """Similarities from the simulator's truth, for ablations: it looks at no image.

    The positive of a stage is +1 where its result holds and -1 where not; what is no positive of
    any stage is 0. So the gap of a stage is 1 where it is done and at most -1 where not.

    Args:
        dictionary: whose positives are known.
        truth: called once per :meth:`similarities`; (N, K) bool, whether each stage's result holds
            in the frames that are asked about.
        views: as for any other scorer, so that a policy's loop need not know the difference.
    """

    def __init__(
        self,
        dictionary: StageDictionary,
        truth: Callable[[], NDArray[np.bool_]],
        views: tuple[str, ...] = ("side", "wrist"),
    ) -> None:
        self._stage = {s.positive: k for k, s in enumerate(dictionary.stages)}
        self._truth, self.views = truth, views

    def similarities(self, images: Images, texts: Sequence[str]) -> NDArray[np.float64]:
        """See :class:`ImageTextScorer`; only the number of images is read."""
        holds = np.asarray(self._truth(), np.bool_)
        if holds.shape != (len(images), len(self._stage)):
            want = f"({len(images)}, {len(self._stage)})"
            raise ValueError(f"truth must give {want}, got {holds.shape}")
        out = np.zeros((len(images), len(texts)))
        for i, text in enumerate(texts):
            if text in self._stage:
                out[:, i] = np.where(holds[:, self._stage[text]], 1.0, -1.0)
        return out
