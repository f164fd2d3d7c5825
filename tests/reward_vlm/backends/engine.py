"""A small engine with the OpenAI API that really runs a tiny checkpoint: `engine.py FOLDER`.

It shares no code with the backends: frames are decoded and scaled by Pillow, cut by NumPy, and the
chat is written by the tokenizer's template with the assistant's message continued. A model named
``tiny:FAULT`` answers with that fault. ``GET /seen`` tells what was asked.
"""

import asyncio
import base64
import gzip
import io
import json
import math
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoTokenizer

app = FastAPI()
seen: list[dict[str, Any]] = []
net: Any = None
words: Any = None
limits: dict[str, int] = {}


def shape(count: int, height: int, width: int) -> tuple[int, int]:
    """Qwen3-VL's rule for the size of a video, in whole units of 32 pixels."""
    if min(height, width) < 32:
        grow = max(32 / height, 32 / width)
        height, width = int(height * grow), int(width * grow)
    rows, columns = round(height / 32), round(width / 32)
    whole = count * rows * columns * 1024
    exact = count * height * width
    if whole > limits["longest_edge"]:
        factor = math.sqrt(limits["longest_edge"] / exact)
        rows, columns = (max(1, math.floor(n * factor / 32)) for n in (height, width))
    elif whole < limits["shortest_edge"]:
        factor = math.sqrt(limits["shortest_edge"] / exact)
        rows, columns = (math.ceil(n * factor / 32) for n in (height, width))
    return rows * 32, columns * 32


def cut(images: list[Image.Image]) -> tuple[np.ndarray, list[int]]:
    """Patches of an even number of frames, a token's four together, and their grid."""
    height, width = shape(len(images), images[0].height, images[0].width)
    scaled = [np.asarray(i.resize((width, height), Image.Resampling.BICUBIC)) for i in images]
    video = (np.stack(scaled).astype(np.float32) / 255 - 0.5) / 0.5
    rows = []
    for pair in range(0, len(images), 2):
        for y in range(0, height, 32):
            for x in range(0, width, 32):
                for dy, dx in ((0, 0), (0, 16), (16, 0), (16, 16)):
                    block = video[pair : pair + 2, y + dy : y + dy + 16, x + dx : x + dx + 16]
                    rows.append(block.transpose(3, 0, 1, 2).ravel())
    return np.stack(rows), [len(images) // 2, height // 16, width // 16]


def pictures(url: str, kind: str) -> list[Image.Image]:
    head, _, data = url.partition(";base64,")
    assert head.startswith(f"data:{kind}/"), head
    return [Image.open(io.BytesIO(base64.b64decode(part))) for part in data.split(",")]


def blocks(grid: list[int], media: dict[str, Any]) -> str:
    """Times and tokens of a video; times are those of the source, by the frames' numbers."""
    text = ""
    numbers = media["frames_indices"]
    assert len(numbers) == 2 * grid[0] == media["num_frames"] <= media["total_num_frames"] + 1
    for group in range(grid[0]):
        seconds = (numbers[2 * group] + numbers[2 * group + 1]) / 2 / media["fps"]
        pads = "<|video_pad|>" * (grid[1] * grid[2] // 4)
        text += f"<{seconds:.1f} seconds><|vision_start|>{pads}<|vision_end|>"
    return text


def logprobs(body: dict[str, Any]) -> np.ndarray:
    """Over the vocabulary, for the token after the assistant's unfinished message."""
    user, assistant = body["messages"]
    parts, inputs = [], {}
    for part in user["content"]:
        kind = part["type"].removesuffix("_url")
        parts.append({"type": kind} | ({"text": part["text"]} if kind == "text" else {}))
    text = words.apply_chat_template(
        [{"role": "user", "content": parts}, assistant],
        tokenize=False,
        continue_final_message=body["continue_final_message"],
        add_generation_prompt=body["add_generation_prompt"],
    )
    for kind, suffix in (("video", "_videos"), ("image", "")):
        found = [p[f"{kind}_url"]["url"] for p in user["content"] if p["type"] == f"{kind}_url"]
        pixels, grids = [], []
        for url in found:
            images = pictures(url, kind)
            patches, grid = cut(images if kind == "video" else images * 2)
            pixels.append(patches)
            grids.append(grid)
            mark = f"<|vision_start|><|{kind}_pad|><|vision_end|>"
            whole = f"<|vision_start|>{'<|hole|>' * (grid[1] * grid[2] // 4)}<|vision_end|>"
            if kind == "video":
                assert body["mm_processor_kwargs"] == {"do_sample_frames": False}
                whole = blocks(grid, body["media_io_kwargs"]["video"])
            text = text.replace(mark, whole, 1)
        if found:
            inputs[f"pixel_values{suffix}"] = torch.from_numpy(np.concatenate(pixels))
            inputs[f"{kind}_grid_thw"] = torch.tensor(grids)
    ids = words(text.replace("<|hole|>", "<|image_pad|>"), return_tensors="pt")["input_ids"]
    kinds = sum((ids == words.convert_tokens_to_ids(f"<|{k}_pad|>")) * n
                for n, k in ((1, "image"), (2, "video")))  # fmt: skip
    with torch.no_grad():
        logits = net(input_ids=ids, mm_token_type_ids=kinds, **inputs).logits[0, -1]
    exact = logits.double().numpy()
    return exact - exact.max() - np.log(np.exp(exact - exact.max()).sum())


def answer(body: dict[str, Any]) -> dict[str, Any]:
    log = logprobs(body)
    chosen = int(log.argmax())
    listed = body.get("logprob_token_ids") or np.argsort(-log)[: body["top_logprobs"]].tolist()
    entries = [entry(i, log[i]) for i in dict.fromkeys([chosen, *listed])]
    return completion(entry(chosen, log[chosen]) | {"top_logprobs": entries})


def entry(token: int, logprob: float) -> dict[str, Any]:
    return {"token": words.decode([token]), "logprob": float(logprob), "bytes": None}


def completion(first: dict[str, Any] | None) -> dict[str, Any]:
    said = None if first is None else {"content": [first]}
    message = {"role": "assistant", "content": "" if first is None else first["token"]}
    choice = {"index": 0, "message": message, "logprobs": said, "finish_reason": "length"}
    return {"object": "chat.completion", "choices": [choice], "model": "tiny"}


def listing(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    top = [{"token": token, "logprob": log} for token, log in pairs]
    return completion(top[0] | {"top_logprobs": top})


WRONG: dict[str, Any] = {
    "nan": listing([("3", math.nan)]),
    "infinity": listing([("3", math.inf)]),
    "above": listing([("3", 0.5)]),
    "twice": listing([("3", -0.1), (" 3", -0.1), ("4", -0.1)]),
    "prose": listing([("I", -0.1), ("The", -3.0)]),
    "range": listing([("7", -0.1), ("0", -3.0)]),
    "text": listing([("3", "-0.1")]),
    "spaced": listing([("3", math.log(0.25)), (" 3", math.log(0.25)), ("4", math.log(0.5))]),
    "none": completion(None),
    "empty": {"choices": []},
    "list": [],
    "long": listing([("3", -0.1), ("x" * 10_000_000, -5.0)]),
}


async def drip():
    yield b'{"choices": ['
    for _ in range(600):
        await asyncio.sleep(0.05)
        yield b" "


async def fault(name: str, tries: int) -> Response:
    """A wrong answer."""
    match name:
        case "hang":
            await asyncio.sleep(30)
            return Response()
        case "drip":
            return StreamingResponse(drip(), media_type="application/json")
        case "cut":
            return Response('{"choices": [{"logprobs"', media_type="application/json")
        case "deep":
            return Response("[" * 200_000, media_type="application/json")
        case "gzip":
            packed = gzip.compress(json.dumps(WRONG["spaced"]).encode())
            return Response(packed, headers={"Content-Encoding": "gzip"})
        case "redirect":
            return RedirectResponse("/elsewhere", 307)
        case "flaky" if tries > 2:
            return Response(json.dumps(WRONG["spaced"]))
        case "flaky":
            return Response("busy", 503)
    if name.isdigit():
        return Response('{"error": "secret detail"}', int(name))
    return Response(json.dumps(WRONG[name]))


@app.post("/v1/chat/completions")
async def chat(request: Request) -> Response:
    body = await request.json()
    seen.append({"model": body["model"], "key": request.headers.get("authorization"),
                 "path": request.url.path})  # fmt: skip
    _, _, wanted = body["model"].partition(":")
    if wanted:
        return await fault(wanted, sum(s["model"] == body["model"] for s in seen))
    return Response(json.dumps(await asyncio.to_thread(answer, body)))


@app.post("/elsewhere")
async def elsewhere(request: Request) -> Response:
    seen.append({"path": request.url.path})
    return Response(json.dumps(WRONG["spaced"]))


@app.get("/seen")
async def what_was_asked() -> list[dict[str, Any]]:
    return seen


def main(folder: str) -> None:
    global net, words
    torch.set_num_threads(1)
    words = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    net = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True).float().eval()
    config = json.loads((Path(folder) / "processor_config.json").read_text())
    limits.update(config["video_processor"]["size"])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        asyncio.run(server.serve(sockets=[listening]))


if __name__ == "__main__":
    main(sys.argv[1])
