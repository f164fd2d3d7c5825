"""Many GPUs behind one address, with Ray Serve: every replica is a gateway with its own model.

    pip install 'ray[serve]' 'incognita[serve,vlm]'
    ray start --head --include-dashboard=false     # its dashboard has no login: never start it
    INCOGNITA_MODEL=qwen:/models/RoboReward-4B INCOGNITA_KEYS=/keys/keys.json INCOGNITA_REPLICAS=8 \
        serve run deploy.ray_serve:app

Replicas share nothing. Ray's HTTP proxy listens on loopback and has none of the deadlines for slow
clients that ``incognita serve`` has: a proxy with TLS in front must bound header and body times.
Ray's other ports run code for whoever reaches them: keep its machines on a network of their own.
"""

from __future__ import annotations

import os
from pathlib import Path

try:
    from ray import serve
except ImportError as error:
    raise ImportError("pip install 'ray[serve]' to spread the service over many GPUs") from error

from starlette.types import ASGIApp

from reward_vlm.backends import open_model
from reward_vlm.gateway.app import create_app
from reward_vlm.gateway.auth import Keys
from reward_vlm.gateway.service import Service
from reward_vlm.gateway.settings import Settings


def gateway() -> ASGIApp:
    """The application of one replica; the model goes to the GPU that Ray gave it."""
    settings = Settings(keys=Path(os.environ["INCOGNITA_KEYS"]))
    model = open_model(os.environ["INCOGNITA_MODEL"])
    return create_app(Service([model], settings), Keys.load(settings.keys))


@serve.deployment(
    num_replicas=int(os.environ.get("INCOGNITA_REPLICAS", "1")),
    ray_actor_options={"num_gpus": float(os.environ.get("INCOGNITA_GPUS", "1"))},
    # The gateway queues and refuses by itself, with Retry-After; Ray only passes on.
    max_ongoing_requests=128,
    health_check_period_s=5,
    graceful_shutdown_timeout_s=15,
)
@serve.ingress(gateway)
class Replica:
    """See :func:`gateway`."""


app = Replica.bind()
