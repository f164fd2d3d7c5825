"""A service in this process, with a model whose speed and faults a test chooses."""

import base64
import contextlib
import dataclasses
import json

import pytest
from starlette.testclient import TestClient

from incognita.bench.reward_stand import BrightnessModel, clip_frames, npz
from reward_vlm.gateway.app import create_app
from reward_vlm.gateway.auth import Keys, add_key
from reward_vlm.gateway.service import Service
from reward_vlm.gateway.settings import Settings


class Bench:
    """The service, its model and an HTTP client that has a key."""

    def __init__(self, client, service, key):
        self.client, self.service, self.key = client, service, key
        self.model = service.models[0]

    def judge(self, task="make it bright", frames=None, headers=None, **request):
        """POST a clip of npz frames as multipart."""
        body = npz(clip_frames(0, 4, 8) if frames is None else frames)
        files = {
            "request": ("r", json.dumps({"task": task, "fps": 10} | request), "application/json"),
            "front": ("f", body, "application/x-npz"),
        }
        return self.client.post("/v1/rewards", files=files, headers=headers)

    def gauge(self, name, **labels):
        return self.service.metrics.registry.get_sample_value(name, labels)


def inline(frames):
    """Views of a JSON body."""
    data = base64.b64encode(npz(frames)).decode()
    return {"front": {"type": "application/x-npz", "data": data}}


@pytest.fixture(name="inline")
def _inline():
    return inline


@pytest.fixture(scope="session")
def key_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    return file, add_key(file, "tester")


@pytest.fixture(scope="session")
def serving(key_file):
    """Context manager of a service with its own model and settings."""
    file, key = key_file

    @contextlib.contextmanager
    def start(model=None, **settings):
        given = dataclasses.replace(Settings(keys=file, decoders=1), **settings)
        service = Service([model or BrightnessModel()], given)
        headers = {"Authorization": f"Bearer {key}"}
        app = create_app(service, Keys.load(file))
        with TestClient(app, headers=headers) as client:
            yield Bench(client, service, key)

    return start


@pytest.fixture(scope="session")
def bench(serving):
    """One service for all tests that change nothing in it."""
    with serving() as started:
        yield started
