"""``WS /v1/streams``: frames as they come, a judgement every so many."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..model import Clip
from ..wire import RewardAnswer, StreamAnswer, StreamOpen, StreamOpened, Timing
from .admission import Batcher
from .answers import answer_of
from .limits import Call
from .problems import Refused, invalid, refusal
from .service import Service
from .settings import Settings

OPEN_BYTES = 16 << 10
"""Of a text message."""
CLOSE_CODE = {401: 1008, 429: 1013, 503: 1013, 500: 1011, 502: 1011, 504: 1013}


class History:
    """Frames of one stream: evenly thinned, the newest always among them."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.total = 0
        """Frames that came."""
        self._stride = 1
        self._frames: dict[int, NDArray[np.uint8]] = {}

    def add(self, frame: NDArray[np.uint8]) -> int:
        """Take the newest frame; returns how many bytes more are kept.

        Raises:
            Refused: it is not as large as those before.
        """
        before = sum(kept.nbytes for kept in self._frames.values())
        if self._frames:
            last = self.total - 1
            if self._frames[last].shape != frame.shape:
                raise Refused(422, "size_changes", "all frames must be of one size")
            if last % self._stride:
                del self._frames[last]
        self._frames[self.total] = frame
        self.total += 1
        if len(self._frames) > self.most:
            self._stride *= 2
            newest = self.total - 1
            self._frames = {
                n: f for n, f in self._frames.items() if n % self._stride == 0 or n == newest
            }
        return sum(kept.nbytes for kept in self._frames.values()) - before

    def clip(self, opened: StreamOpen, batcher: Batcher) -> Clip:
        """What the model would look at in all frames so far."""
        have = np.array(sorted(self._frames))
        sampling = batcher.model.info.sampling
        picked = have[sampling.indices(len(have), opened.fps / self._stride)]
        frames = np.stack([self._frames[int(n)] for n in picked])
        return Clip(opened.task, {opened.view: frames}, opened.fps, picked)


class Streams:
    """All open streams of a service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.open = 0

    async def run(self, socket: WebSocket, call: Call) -> None:
        """Serve one stream to its end."""
        if self.open >= self.service.settings.streams:
            self.service.metrics.rejects.labels("too_many_streams").inc()
            refused = Refused(429, "too_many_streams", "too many streams are open", 5)
            return await socket.send_denial_response(refused.response(call.id))
        self.open += 1
        self.service.metrics.streams.set(self.open)
        try:
            await socket.accept()
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                try:
                    await _Stream(self.service, socket, call).run()
                    await socket.close(1000)
                except Refused as refused:
                    self.service.metrics.rejects.labels(refused.code).inc()
                    await socket.send_text(refused.problem(call.id).model_dump_json())
                    await socket.close(CLOSE_CODE.get(refused.status, 1008))
        finally:
            self.open -= 1
            self.service.metrics.streams.set(self.open)


class _Stream:
    """One stream: frames are taken as fast as they are decoded, judgements one at a time."""

    def __init__(self, service: Service, socket: WebSocket, call: Call) -> None:
        self.service, self.socket, self.call = service, socket, call
        self.settings: Settings = service.settings
        self.judging: asyncio.Task[None] | None = None

    async def run(self) -> None:
        opened = await self._opened()
        batcher = self.service.batcher(opened.model)
        await self._send(StreamOpened(id=self.call.id, model=batcher.model.info.name))
        history = History(self.settings.stream_frames)
        try:
            while (image := await self._image()) is not None:
                await self._add(image, history, batcher)
                if history.total % opened.every == 0 and self._idle():
                    work = self._judge(opened, history, batcher, final=False)
                    self.judging = asyncio.get_running_loop().create_task(work)
            if self.judging is not None:
                await asyncio.wait([self.judging])
            await self._judge(opened, history, batcher, final=True)
        finally:
            if self.judging is not None:
                self.judging.cancel()

    def _idle(self) -> bool:
        """Is no judgement under way? If one is, this turn is skipped: nothing piles up."""
        return self.judging is None or self.judging.done()

    async def _receive(self) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self.settings.stream_idle_s):
                message = await self.socket.receive()
        except TimeoutError:
            raise Refused(408, "stream_idle", "no message for too long") from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1006))
        if len(message.get("text") or "") > OPEN_BYTES:
            raise Refused(413, "message_too_large", f"a text has at most {OPEN_BYTES} bytes")
        return dict(message)

    async def _opened(self) -> StreamOpen:
        text = (await self._receive()).get("text")
        if text is None:
            raise Refused(422, "stream_open", "the first message must be text")
        try:
            return StreamOpen.model_validate_json(text)
        except ValidationError as error:
            raise invalid(error.errors(include_input=False, include_url=False)) from None

    async def _image(self) -> bytes | None:
        """The next frame; None at the end that the client declares."""
        message = await self._receive()
        data = message.get("bytes")
        if data is not None:
            if len(data) > self.settings.image_bytes:
                most = self.settings.image_bytes
                raise Refused(413, "message_too_large", f"an image has at most {most} bytes")
            return bytes(data)
        try:
            end = json.loads(message.get("text") or "")
        except (ValueError, RecursionError):
            end = None
        if not isinstance(end, dict) or end.keys() != {"end"} or end["end"] is not True:
            raise Refused(422, "stream_message", 'wanted an image or {"end": true}')
        return None

    async def _add(self, image: bytes, history: History, batcher: Batcher) -> None:
        if history.total >= self.settings.stream_total:
            most = self.settings.stream_total
            raise Refused(413, "too_many_frames", f"a stream has at most {most} frames")
        sampling = batcher.model.info.sampling
        try:
            found = await self.service.pool.decode("image", image, sampling, None)
        except Exception as error:
            raise refusal(error) from None
        self.call.hold(history.add(found.frames[0]))

    async def _judge(
        self, opened: StreamOpen, history: History, batcher: Batcher, *, final: bool
    ) -> None:
        """Judge all frames so far and send it; not the final one is skipped if there is no room."""
        loop, frames = asyncio.get_running_loop(), history.total
        deadline = loop.time() + self.settings.answer_s
        if frames == 0:
            raise Refused(422, "no_frames", "the stream has no frames")
        begun = loop.time()
        while True:
            try:
                with batcher.slot(deadline):
                    clip = history.clip(opened, batcher)
                    answer = await self._answer(clip, batcher, deadline, begun)
                break
            except Exception as error:
                refused = refusal(error)
                if not final:
                    return self.service.metrics.rejects.labels(refused.code).inc()
                if refused.status != 429 or loop.time() + 0.1 > deadline:
                    raise refused from None
                await asyncio.sleep(0.1)
        await self._send(StreamAnswer(frames=frames, final=final, answer=answer))

    async def _answer(
        self, clip: Clip, batcher: Batcher, deadline: float, begun: float
    ) -> RewardAnswer:
        judged, cached = await self.service.judge_clip(clip, batcher, deadline)
        total = asyncio.get_running_loop().time() - begun
        timing = Timing(
            decode=0.0,
            queue=judged.queue_s * 1e3,
            model=judged.model_s * 1e3,
            total=total * 1e3,
        )
        return answer_of(
            judged.judgement, clip, batcher.model.info, ("score", "progress", "success", "probes"),
            id=self.call.id, cached=cached, timing=timing,
        )  # fmt: skip

    async def _send(self, message: BaseModel) -> None:
        await self.socket.send_text(message.model_dump_json())
