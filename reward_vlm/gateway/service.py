"""A request's way: slot, decoder, cache, batcher, answer. No HTTP in here."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import cast

from ..decode import Decoded, Kind
from ..model import Clip, Judgement, RewardModel, preference
from ..wire import (
    ModelCard,
    ModelList,
    PreferenceAnswer,
    PreferenceRequest,
    RewardAnswer,
    RewardRequest,
    Timing,
)
from .admission import Batcher, Judged
from .answers import answer_of, clip_key
from .decoder import DecoderPool
from .limits import Call
from .logs import place
from .metrics import Metrics
from .once import Once
from .problems import Refused, refusal
from .readiness import Readiness
from .requests import File, kind_of, off_loop
from .settings import Settings

log = logging.getLogger(__name__)


class Service:
    """Models behind queues, a decoder pool, a cache. Lives in one event loop."""

    def __init__(self, models: Sequence[RewardModel], settings: Settings) -> None:
        """The first model is the default.

        Raises:
            ValueError: no models, or two of one name.
        """
        names = [model.info.name for model in models]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"models must be at least one, names different, got {names}")
        self.models = list(models)
        self.settings = settings
        self.metrics = Metrics()
        self.pool = DecoderPool(settings.decoders, settings.limits)
        self.once = Once(settings.idempotent, settings.idempotent_s)
        self.batchers: dict[str, Batcher] = {}
        self.readiness: dict[str, Readiness] = {}
        self.draining = False
        self._cache: OrderedDict[bytes, Judgement] = OrderedDict()

    async def start(self) -> None:
        """Start decoders and worker threads, and warm the models up.

        A model that cannot judge yet does not stop the start: ``/readyz`` says so.
        """
        await self.pool.start()
        s = self.settings
        for model in self.models:
            batcher = Batcher(model, s.queue, s.queue_s, self.metrics)
            self.batchers[model.info.name] = batcher
            self.readiness[model.info.name] = Readiness(batcher, s.ready_s, s.ready_cache_s)
        await self.ready()

    def close(self) -> None:
        """End children and models; twice is once."""
        self.pool.close()
        for batcher in self.batchers.values():
            batcher.close()
        self.batchers.clear()

    async def ready(self) -> dict[str, str]:
        """Model -> ``ok`` or why it is not ready."""
        names = list(self.readiness)
        found = await asyncio.gather(*(self.readiness[name].why_not() for name in names))
        return {name: why or "ok" for name, why in zip(names, found, strict=True)}

    def cards(self) -> ModelList:
        """What ``GET /v1/models`` answers."""
        cards = [
            ModelCard(
                name=info.name, backend=info.backend, revision=info.revision,
                preprocess_sha=info.preprocess_sha, prompt_version=info.prompt_version,
                domain=info.domain, heads=list(info.heads), frames=info.sampling.count,
                default=n == 0,
            )
            for n, info in enumerate(model.info for model in self.models)
        ]  # fmt: skip
        return ModelList(models=cards)

    def batcher(self, name: str | None) -> Batcher:
        """Of the model of that name, or of the default.

        Raises:
            Refused: 404.
        """
        wanted = self.models[0].info.name if name is None else name
        if wanted not in self.batchers:
            raise Refused(404, "unknown_model", "no such model; GET /v1/models lists them")
        return self.batchers[wanted]

    async def reward(
        self, request: RewardRequest, files: Mapping[str, File], call: Call
    ) -> RewardAnswer:
        """Judge one clip.

        Raises:
            Refused: for whatever reason.
        """
        answer, _ = await self._judge(request, files, call)
        return answer

    async def prefer(
        self,
        request: PreferenceRequest,
        first: Mapping[str, File],
        second: Mapping[str, File],
        call: Call,
    ) -> PreferenceAnswer:
        """Judge two clips and compare.

        Raises:
            Refused: for whatever reason, of either.
        """
        one = RewardRequest(task=request.task, model=request.model, fps=request.fps)
        pair = [self._judge(one, first, call), self._judge(one, second, call)]
        (a, judged_a), (b, judged_b) = await asyncio.gather(*pair)
        p_first = min(max(preference(judged_a, judged_b), 0.0), 1.0)
        return PreferenceAnswer(id=call.id, p_first=p_first, first=a, second=b)

    async def _judge(
        self, request: RewardRequest, files: Mapping[str, File], call: Call
    ) -> tuple[RewardAnswer, Judgement]:
        try:
            begun = time.monotonic()
            batcher = self.batcher(request.model)
            with batcher.slot(call.deadline):
                clip = await self._clip(request, files, batcher, call)
                decode_s = time.monotonic() - begun
                judged, cached = await self.judge_clip(clip, batcher, call.deadline)
            timing = Timing(
                decode=decode_s * 1e3,
                queue=judged.queue_s * 1e3,
                model=judged.model_s * 1e3,
                total=(time.monotonic() - call.begun) * 1e3,
            )
            answer = answer_of(
                judged.judgement, clip, batcher.model.info, request.want,
                id=call.id, cached=cached, timing=timing,
            )  # fmt: skip
        except Exception as error:
            refused = refusal(error)
            self.metrics.rejects.labels(refused.code).inc()
            if refused.status == 500:
                log.error("internal error", extra={"id": call.id, "error": place(error)})
            raise refused from None
        self._observe(answer, decode_s, judged)
        return answer, judged.judgement

    async def judge_clip(
        self, clip: Clip, batcher: Batcher, deadline: float
    ) -> tuple[Judged, bool]:
        """Judge a clip that has a slot, or find that it was judged before."""
        frames = sum(view.nbytes for view in clip.views.values())
        key = await off_loop(frames, clip_key, clip, batcher.model.info)
        known = self._cache.get(key)
        self.metrics.cache.labels("miss" if known is None else "hit").inc()
        if known is not None:
            self._cache.move_to_end(key)
            return Judged(known, 0.0, 0.0), True
        judged = await batcher.judge(clip, deadline)
        self._cache[key] = judged.judgement
        while len(self._cache) > self.settings.cache:
            self._cache.popitem(last=False)
        return judged, False

    async def _clip(
        self, request: RewardRequest, files: Mapping[str, File], batcher: Batcher, call: Call
    ) -> Clip:
        """Decode all views; they must fit together."""
        sampling = batcher.model.info.sampling
        seen: dict[str, Decoded] = {}
        for name, file in files.items():
            left = call.deadline - time.monotonic()
            try:
                async with asyncio.timeout(left):
                    kind = cast(Kind, kind_of(file))
                    seen[name] = await self.pool.decode(kind, file.data, sampling, request.fps)
            except TimeoutError:
                raise Refused(504, "deadline", "the deadline has passed") from None
            finally:
                self.metrics.decoders.set(self.pool.replaced)
            call.hold(seen[name].frames.nbytes)
        first, *others = seen.values()
        for other in others:
            if other.total != first.total or abs(other.fps - first.fps) > 0.01 * first.fps:
                raise Refused(422, "views_differ", "views must have the same frames and rate")
        views = {name: view.frames for name, view in seen.items()}
        return Clip(request.task, views, first.fps, first.indices)

    def _observe(self, answer: RewardAnswer, decode_s: float, judged: Judged) -> None:
        stage, metrics = self.metrics.stage, self.metrics
        stage.labels("decode").observe(decode_s)
        stage.labels("queue").observe(judged.queue_s)
        stage.labels("model").observe(judged.model_s)
        stage.labels("total").observe(answer.timing_ms.total / 1e3)
        metrics.score.labels(answer.model).observe(answer.score)
        if answer.abstain is not None:
            metrics.abstained.labels(answer.model, answer.abstain).inc()
