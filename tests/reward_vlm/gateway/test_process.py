"""What only a real server process shows: sockets, signals, exit codes."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time

import cv2
import httpx
import numpy as np
import pytest
import websockets.sync.client

from incognita.bench.hostile_requests import GOOD, multipart
from incognita.bench.reward_stand import clip_frames, npz, standing
from incognita.serve import serve
from reward_vlm.gateway.auth import Keys


@pytest.fixture(scope="module")
def stand():
    with standing("--set", "header_s=1", "body_s=1", "connections=100", "body_bytes=200000") as s:
        yield s


def clip(task="go"):
    request = json.dumps(GOOD | {"task": task}).encode()
    return multipart(
        [
            ("request", "r", "application/json", request),
            ("front", "f", "application/x-npz", npz(clip_frames(0, 4, 8))),
        ]
    )


def post(stand, task="go", **options):
    headers, body = clip(task)
    headers |= stand.headers
    return httpx.post(f"{stand.url}/v1/rewards", headers=headers, content=body, **options)


def connect(stand):
    host, _, port = stand.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=5)


def closed_after(sock, begun):
    """Seconds until the server closes it."""
    sock.settimeout(5)
    try:
        while sock.recv(4096):
            pass
    except ConnectionError:
        pass
    return time.monotonic() - begun


def test_slow_headers_and_bodies_are_cut_off_while_others_are_served(stand):
    begun = time.monotonic()
    body = f"POST /v1/rewards HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {stand.key}\r\n"
    body += "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    starts = [b"", b"POST /v1", b"POST /v1/rewards HTTP/1.1\r\nHost: x\r\n", body.encode()]
    slow = []
    for n in range(20):
        slow.append(connect(stand))
        slow[-1].sendall(starts[n % 4])
    for _ in range(3):
        at = time.monotonic()
        assert post(stand).status_code == 200 and time.monotonic() - at < 1
        for sock in slow[1::4]:  # still talking, one byte at a time
            sock.sendall(b"x")
    assert max(closed_after(sock, begun) for sock in slow) < 3
    assert post(stand).status_code == 200


def test_an_idle_connection_may_be_used_again(stand):
    with httpx.Client(headers=stand.headers) as client:
        assert client.get(f"{stand.url}/v1/models").status_code == 200
        time.sleep(1.6)  # longer than a header may take
        assert client.get(f"{stand.url}/v1/models").status_code == 200


def test_too_many_connections_are_closed_at_once(stand):
    held = [connect(stand) for _ in range(130)]
    time.sleep(0.1)
    gone = 0
    for sock in held:
        sock.setblocking(False)
        try:
            gone += sock.recv(1) == b""
        except BlockingIOError:
            pass
        except ConnectionError:
            gone += 1
        sock.close()
    assert 25 <= gone <= 40
    time.sleep(0.1)
    assert post(stand).status_code == 200


def test_a_body_without_length_is_cut_at_the_limit(stand):
    def chunks():
        for _ in range(30):
            yield bytes(10_000)

    headers = stand.headers | {"Content-Type": "application/json"}
    response = httpx.post(f"{stand.url}/v1/rewards", content=chunks(), headers=headers)
    assert response.status_code == 413


def test_a_header_or_trailer_without_end_is_cut_off():
    with standing() as stand:  # its deadlines are far away
        _endless(stand)


def _endless(stand):
    start = f"POST /v1/rewards HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {stand.key}\r\n"
    chunked = start + "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{"
    many = "".join(f"X-{n}: {'y' * 100}\r\n" for n in range(1000))
    for begin, more in (
        ("", "G" * 100_000), ("GET /", "x" * 100_000), (start + "X: ", "y" * 100_000),
        (start, many), (chunked + "\r\n0\r\nX: ", "y" * 1_000_000), (chunked + "\r\n0\r\n", many),
        (chunked + "\r\n1;x=", "y" * 1_000_000),
    ):  # fmt: skip
        with connect(stand) as sock:
            begun = time.monotonic()
            try:
                sock.sendall(begin.encode())
                for n in range(0, len(more), 1000):
                    sock.sendall(more[n : n + 1000].encode())
            except ConnectionError:
                pass
            assert closed_after(sock, begun) < 4, begin[-20:]
        assert post(stand).status_code == 200


def ask_models(sock, stand):
    head = f"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {stand.key}\r\n\r\n"
    sock.sendall(head.encode())


def test_empty_lines_do_not_keep_a_connection_open(stand):
    with connect(stand) as sock:
        ask_models(sock, stand)
        assert b" 200 " in sock.recv(4096)
        begun = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() - begun < 4:
                sock.sendall(b"\r\n")
                time.sleep(0.1)
        assert time.monotonic() - begun < 3


def test_an_answer_comes_in_one_piece(stand):
    with connect(stand) as sock:
        for _ in range(20):
            ask_models(sock, stand)
            said, _, body = sock.recv(65536).partition(b"\r\n\r\n")
            assert b" 200 " in said and json.loads(body)["models"]


def test_a_stream_works_over_a_real_socket(stand):
    url = stand.url.replace("http", "ws") + "/v1/streams"
    image = cv2.imencode(".jpg", np.full((16, 16, 3), 255, np.uint8))[1].tobytes()
    with websockets.sync.client.connect(url, additional_headers=stand.headers) as stream:
        stream.send(json.dumps({"task": "go", "fps": 5}))
        assert json.loads(stream.recv(5))["model"] == "brightness"
        stream.send(image)
        assert json.loads(stream.recv(5))["answer"]["score"] == 5
        stream.send('{"end": true}')
        assert json.loads(stream.recv(5))["final"]
    with pytest.raises(websockets.exceptions.InvalidStatus, match="401"):
        websockets.sync.client.connect(url)


def test_at_sigterm_what_was_accepted_finishes_and_new_requests_get_503():
    with standing("--delay-ms", "1000", "--set", "drain_notice_s=0.5") as stand:
        found = [None] * 4

        def ask(n):
            found[n] = post(stand, f"clip {n}", timeout=10)

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        full = 'reward_queue_depth{model="brightness"} 4.0'
        while full not in httpx.get(f"{stand.url}/metrics", headers=stand.headers).text:
            time.sleep(0.02)
        begun = time.monotonic()
        stand.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        late = post(stand, "late")
        assert late.status_code == 503 and int(late.headers["retry-after"]) >= 1
        for thread in threads:
            thread.join()
        assert [response.status_code for response in found] == [200] * 4
        assert stand.process.wait(10) == 0 and time.monotonic() - begun < 5
        lines = [json.loads(line) for line in stand.log.read_text().splitlines()]
        assert any(line["text"] == "draining" for line in lines)


def test_a_hung_model_does_not_hold_up_the_exit():
    with standing("--set", "drain_s=3.5") as stand:
        found = []
        thread = threading.Thread(target=lambda: found.append(post(stand, "fault:sleep30")))
        thread.start()
        time.sleep(0.5)
        begun = time.monotonic()
        stand.process.send_signal(signal.SIGTERM)
        assert stand.process.wait(6) == 0
        assert 1.5 <= time.monotonic() - begun < 3.5
        thread.join()
        assert found[0].status_code == 503 and found[0].json()["code"] == "draining"


HANGS = """
import sys, time
from pathlib import Path
from incognita.bench.reward_stand import BrightnessModel
from reward_vlm.gateway.server import serve
from reward_vlm.gateway.settings import Settings
model = BrightnessModel()
model.close = lambda: time.sleep(60)
serve([model], Settings(keys=Path(sys.argv[1]), port=0, decoders=1, drain_s=3, drain_notice_s=0.2))
"""


def test_a_model_that_hangs_at_its_end_is_given_the_drain_deadline_and_no_more(key_file):
    command = [sys.executable, "-c", HANGS, str(key_file[0])]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert "listening on" in process.stdout.readline()
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=10)
        finally:
            process.kill()
    assert 2.5 < time.monotonic() - begun < 4.0
    assert process.returncode == 1 and "in close" in said  # where it hangs


def test_a_key_is_made_and_shown_once(tmp_path, capsys):
    file = tmp_path / "keys.json"
    serve(keys=file, new_key="arm")
    key = capsys.readouterr().out.strip()
    assert key.startswith("rvk_") and key not in file.read_text()
    assert Keys.load(file).name_of(f"Bearer {key}") == "arm"
    with pytest.raises(ValueError, match="must be new"):
        serve(keys=file, new_key="arm")
