"""Requests made by somebody who means harm to the reward service: every one must be a 4xx."""

from __future__ import annotations

import base64
import gzip
import json
import pickle
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .hostile_media import MP4, NPZ, arrays, videos
from .reward_stand import clip_frames, npz

GOOD = {"task": "make it bright", "fps": 10}


@dataclass(frozen=True)
class Case:
    """One request. ``files`` go as multipart beside ``request``, unless ``raw`` is the body."""

    files: tuple[tuple[str, str | None, str, bytes], ...] = ()
    """Part name, filename, type, content."""
    request: str | bytes | None = field(default_factory=lambda: json.dumps(GOOD))
    raw: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def encoded(self) -> tuple[dict[str, str], bytes]:
        """Headers and body."""
        if self.raw is not None:
            return self.headers, self.raw
        parts = list(self.files)
        if self.request is not None:
            text = self.request.encode() if isinstance(self.request, str) else self.request
            parts.insert(0, ("request", "request.json", "application/json", text))
        return multipart(parts) if not self.headers else (self.headers, multipart(parts)[1])


def multipart(
    parts: list[tuple[str, str | None, str, bytes]], boundary: str = "edge-of-a-part"
) -> tuple[dict[str, str], bytes]:
    """Headers and body, written by hand: a library would not write what is wrong."""
    body = b""
    for name, filename, kind, content in parts:
        named = f'; filename="{filename}"' if filename else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n'
        body += head.encode() + f"Content-Type: {kind}\r\n\r\n".encode() + content + b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    return {"Content-Type": f"multipart/form-data; boundary={boundary}"}, body


def _file(kind: str, data: bytes, **request: Any) -> Case:
    return Case((("front", "f", kind, data),), json.dumps(GOOD | request))


def _asked(text: str | bytes) -> Case:
    """A good file with a request part of one's own."""
    return Case((("front", "f", NPZ, npz(clip_frames(0, 2, 8))),), text)


def _json(**request: Any) -> Case:
    head = {"Content-Type": "application/json"}
    return Case(raw=json.dumps(GOOD | request).encode(), headers=head)


def cases(canary: Path) -> dict[str, Case]:
    """Name -> request. The canary is touched by code that runs."""
    found = {name: _file(MP4, data) for name, data in videos().items()}
    found |= {name: _file(NPZ, data) for name, data in arrays(canary).items()}
    return found | _requests(str(canary))


def _requests(url: str) -> dict[str, Case]:
    frames = npz(clip_frames(3, 4, 8))
    view = ("front", "f", NPZ, frames)
    media = {"type": NPZ, "data": base64.b64encode(frames).decode()}
    urls = ("http://127.0.0.1:9/x.mp4", f"file://{url}", "data:video/mp4;base64,AAAA", url)

    def fps(text: str) -> Case:
        return _asked(f'{{"task": "go", "fps": {text}}}')

    def whole(parts: list[tuple[str, str | None, str, bytes]]) -> Case:
        headers, body = multipart(parts)
        return Case(raw=body, headers=headers)

    asked = ("request", "r", "application/json", json.dumps(GOOD).encode())
    head, body = multipart([asked, view])
    json_head = {"Content-Type": "application/json"}
    return {
        **{f"request: fps {v}": fps(v) for v in ("NaN", "Infinity", "1e400", '"nan"', "0", "-1")},
        **{f"request: the URL {u[:9]} as a file": _file(MP4, u.encode()) for u in urls},
        **{
            f"request: the URL {u[:9]} as data": _json(views={"front": media | {"data": u}})
            for u in urls
        },
        "request: field video_url": _asked(json.dumps(GOOD | {"video_url": urls[0]})),
        "request: type text/uri-list": _file("text/uri-list", urls[0].encode()),
        "request: type application/octet-stream": _file("application/octet-stream", frames),
        "request: task of 1 MB": _asked(json.dumps(GOOD | {"task": "x" * 1_000_000})),
        "request: task of 2001": _asked(json.dumps(GOOD | {"task": "x" * 2001})),
        "request: task of blanks": _asked(json.dumps(GOOD | {"task": "   "})),
        "request: task with NUL": _asked(json.dumps(GOOD | {"task": "go\0"})),
        "request: task with half a character": _asked('{"task": "go \\ud800", "fps": 1}'),
        "request: task that is no UTF-8": _asked(b'{"task": "\xff\xfe", "fps": 1}'),
        "request: want of 1000": _asked(json.dumps(GOOD | {"want": ["score"] * 1000})),
        "request: unknown model": _asked(json.dumps(GOOD | {"model": "../../etc"})),
        "request: JSON nested 30,000 deep": _asked("[" * 30_000),
        "request: not JSON": _asked("task=go"),
        "request: a number": _asked("1"),
        "request: no part request": whole([view]),
        "request: two parts request": whole([asked, asked, view]),
        "request: no file": whole([asked]),
        "request: five views": whole([asked, *((f"v{n}", "f", NPZ, frames) for n in range(5))]),
        "request: 2000 parts": whole([asked, *((f"v{n}", "f", NPZ, b"") for n in range(2000))]),
        "request: view ../../x": whole([asked, ("../../x", "f", NPZ, frames)]),
        "request: the same view twice": whole([asked, view, view]),
        "request: view without filename": whole([asked, ("front", None, NPZ, frames)]),
        "request: views both ways": Case((view,), json.dumps(GOOD | {"views": {"front": media}})),
        "request: views of unequal length": whole(
            [asked, view, ("side", "f", NPZ, npz(clip_frames(3, 5, 8)))]
        ),
        "request: no boundary": Case(raw=body, headers={"Content-Type": "multipart/form-data"}),
        "request: another boundary": Case(
            raw=body, headers={"Content-Type": "multipart/form-data; boundary=other"}
        ),
        "request: multipart cut short": Case(raw=body[: len(body) // 2], headers=head),
        "request: no type": Case(raw=body, headers={"Content-Type": ""}),
        "request: XML": Case(raw=b"<x/>", headers={"Content-Type": "application/xml"}),
        "request: a pickle": Case(
            raw=pickle.dumps(1), headers={"Content-Type": "application/x-pickle"}
        ),
        "request: gzip": Case(raw=gzip.compress(body), headers=head | {"Content-Encoding": "gzip"}),
        "request: deflate bomb": Case(
            raw=zlib.compress(bytes(32 << 20)), headers=head | {"Content-Encoding": "deflate"}
        ),
        "request: no base64": _json(views={"front": media | {"data": "%%%"}}),
        "request: no views": _json(views={}),
        "request: empty body": Case(raw=b"", headers=json_head),
        "request: deadline NaN": Case(raw=body, headers=head | {"X-Deadline-Ms": "NaN"}),
        "request: deadline -1": Case(raw=body, headers=head | {"X-Deadline-Ms": "-1"}),
        "request: Idempotency-Key of 9000": Case(
            raw=body, headers=head | {"Idempotency-Key": "k" * 9000}
        ),
    }  # fmt: skip
