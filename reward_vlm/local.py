"""A reward model in this process behind the client's interface: the same answers, no server."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from .decode import Decoded, Limits, MediaError, decode, scaled
from .gateway.answers import answer_of
from .model import Clip, Judgement, ModelError, ModelOutOfMemory, RewardModel
from .results import Footage, Missing, Query, RewardRequestError, Scored, packed
from .wire import NPZ, Timing


class LocalScores:
    """Scores with a model of this process, see :class:`reward_vlm.results.Scores`.

    Files are decoded in this process: hand in none that you do not trust.
    """

    def __init__(self, model: RewardModel) -> None:
        self.model = model

    def score_many(
        self, queries: Sequence[Query], *, deadline_s: float | None = None
    ) -> list[Scored | Missing]:
        """Score clips in batches of the model's size. What no batch has begun for is late.

        Raises:
            RewardRequestError, ValueError: a query is wrong.
        """
        until = None if deadline_s is None else time.monotonic() + deadline_s
        size = self.model.info.max_batch
        results: list[Scored | Missing] = []
        for begin in range(0, len(queries), size):
            batch = queries[begin : begin + size]
            if until is not None and time.monotonic() > until:
                results += [Missing("timeout", "the deadline has passed")] * len(batch)
                continue
            clips = [self._clip(query) for query in batch]
            judged = list(self._judged(clips))
            results += [
                result if isinstance(result, Missing) else self._answer(query, clip, result)
                for query, clip, result in zip(batch, clips, judged, strict=True)
            ]
        return results

    def close(self) -> None:
        """Free the model."""
        self.model.close()

    def _clip(self, query: Query) -> Clip:
        if query.model not in (None, self.model.info.name):
            raise RewardRequestError(404, "unknown_model", f"there is {self.model.info.name} only")
        seen = {name: self._view(view, query.fps) for name, view in query.views.items()}
        first = next(iter(seen.values()))
        if any(view.total != first.total for view in seen.values()):
            raise RewardRequestError(422, "views_differ", "views must have the same frames")
        frames = {name: view.frames for name, view in seen.items()}
        return Clip(query.task.strip(), frames, first.fps, first.indices)

    def _view(self, footage: Footage, fps: float | None) -> Decoded:
        sampling = self.model.info.sampling
        if isinstance(footage, np.ndarray):
            if fps is None:
                raise RewardRequestError(422, "fps_missing", "arrays need fps")
            whole = Clip("-", {"-": footage}, fps)  # checks it
            keep = sampling.indices(whole.length, fps)
            frames: NDArray[np.uint8] = np.stack([scaled(footage[i], sampling.side) for i in keep])
            return Decoded(frames, keep, whole.length, fps)
        kind, data = packed(footage)
        try:
            return decode("npz" if kind == NPZ else "mp4", data, sampling, fps, Limits())
        except MediaError as error:
            raise RewardRequestError(error.status, error.code, error.detail) from None

    def _judged(self, clips: list[Clip]) -> Iterator[Judgement | Missing]:
        """Of a whole batch; where that fails, of each clip alone."""
        try:
            yield from self.model.judge(clips)
        except ModelError as error:
            if len(clips) == 1:
                busy = isinstance(error, ModelOutOfMemory)
                yield Missing("overloaded" if busy else "bad_answer", str(error)[:200])
                return
            for clip in clips:
                yield from self._judged([clip])

    def _answer(self, query: Query, clip: Clip, judgement: Judgement) -> Scored:
        timing = Timing(decode=0, queue=0, model=0, total=0)
        answer = answer_of(
            judgement, clip, self.model.info, query.want,
            id=uuid.uuid4().hex, cached=False, timing=timing,
        )  # fmt: skip
        return Scored.model_validate(answer.model_dump())
