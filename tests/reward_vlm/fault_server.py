"""A reward service that misbehaves as the task's words say; run as a process, prints its port.

The n-th try of a request (by its Idempotency-Key) meets the n-th word of the task, later ones the
last: ``ok``, ``new_field``, ``429`` or ``429:SECONDS`` or any other status, ``bad_output``,
``slow:SECONDS``, ``drip`` (a byte each 50 ms), ``garbage``, ``prose``, ``nan``, ``wrong`` (numbers
that contradict each other), ``half``, ``close``, ``huge``, ``hang``, ``redirect``. The answer's
``model`` says how many tries there were, ``revision`` has a digest of each body that came,
``prompt_version`` what X-Deadline-Ms said.
"""

import asyncio
import hashlib
import json
import re
import sys

from reward_vlm.wire import RewardAnswer, Timing

TRIES: dict[str, list[str]] = {}
KEY = "test-key-1"


def answer(headers: dict[str, str], model: str, revision: str, frames: int) -> dict[str, object]:
    made = RewardAnswer(
        id=headers["x-request-id"], score=4, expected=3.8, reward=0.7,
        probs=[0, 0.1, 0.1, 0.7, 0.1], entropy=0.5, lost_mass=0, abstain=None, ood=None,
        p_success=None, progress=None,
        probes=None, frame_indices=list(range(frames)), model=model, revision=revision,
        prompt_version=headers["x-deadline-ms"], preprocess_sha="0", cached=False,
        timing_ms=Timing(decode=0, queue=0, model=0, total=0),
    )  # fmt: skip
    return made.model_dump()


def response(status: int, body: bytes, *more: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", *more]
    return "\r\n".join([*lines, "", ""]).encode() + body


def problem(status: int, code: str, *more: str) -> bytes:
    body = {"title": "t", "status": status, "detail": "as asked", "code": code, "id": "i"}
    return response(
        status, json.dumps(body).encode(), "content-type: application/problem+json", *more
    )


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            pairs = [line.split(": ", 1) for line in head[1:] if ": " in line]
            headers = {k.lower(): v for k, v in pairs}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            if not await misbehave(head[0].split()[1], headers, body, writer):
                return
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def misbehave(
    path: str, headers: dict[str, str], body: bytes, out: asyncio.StreamWriter
) -> bool:
    """Answer one request; False closes the connection."""
    if headers.get("authorization") != f"Bearer {KEY}":
        out.write(problem(401, "key"))
        return True
    if path == "/v1/models":
        out.write(response(200, b'{"models": []}'))
        return True
    if path == "/readyz":
        out.write(response(200, b"{}"))
        return True
    task = re.search(rb'"task": ?"([^"]*)"', body)
    words = task[1].decode().split() if task else ["422"]
    seen = TRIES.setdefault(headers["idempotency-key"], [])
    seen.append(hashlib.sha256(body).hexdigest()[:8])
    word, _, value = words[min(len(seen), len(words)) - 1].partition(":")
    good = answer(
        headers, f"tries={len(seen)}", " ".join(sorted(set(seen))), body.count(b"filename")
    )
    text = json.dumps(good).encode()
    match word:
        case "slow":
            await asyncio.sleep(float(value))
            out.write(response(200, text))
        case "ok":
            out.write(response(200, text))
        case "new_field":
            out.write(response(200, json.dumps(good | {"later": 1}).encode()))
        case "drip":
            for byte in response(200, text):
                out.write(bytes([byte]))
                await out.drain()
                await asyncio.sleep(0.05)
        case "garbage":
            out.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
            return False
        case "prose":
            out.write(response(200, b"ANSWER: 5, well done"))
        case "nan":
            out.write(response(200, text.replace(b"0.7,", b"NaN,", 1)))
        case "wrong":
            out.write(response(200, json.dumps(good | {"reward": 0.9}).encode()))
        case "huge":
            out.write(response(200, b" " * (8 << 20) + text))
        case "half":
            out.write(response(200, text)[:-100])
            return False
        case "close":
            return False
        case "hang":
            await asyncio.sleep(60)
        case "redirect":
            out.write(response(307, b"", "location: http://127.0.0.1:1/v1/rewards"))
        case "bad_output":
            out.write(problem(502, "bad_output"))
        case status:
            more = [f"retry-after: {value}"] if value else []
            out.write(problem(int(status), f"code_{status}", *more))
    return True


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), limit=1 << 20)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
