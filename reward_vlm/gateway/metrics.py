"""What Prometheus reads at ``/metrics``."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """One registry per service: two services in one process do not mix."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "reward_requests", "Requests answered.", ["route", "status"], registry=registry
        )
        self.rejects = Counter(
            "reward_rejects", "Clips and requests refused.", ["reason"], registry=registry
        )
        self.queue = Gauge(
            "reward_queue_depth", "Clips admitted, not answered.", ["model"], registry=registry
        )
        self.batch = Histogram(
            "reward_batch_size", "Clips in one call of the model.", ["model"],
            buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry,
        )  # fmt: skip
        self.stage = Histogram(
            "reward_stage_seconds", "Time of each stage of a clip.", ["stage"],
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.score = Histogram(
            "reward_score", "Scores given.", ["model"], buckets=(1, 2, 3, 4, 5), registry=registry
        )
        self.abstained = Counter(
            "reward_abstained", "Judgements that say I do not know.", ["model", "reason"],
            registry=registry,
        )  # fmt: skip
        self.cache = Counter("reward_cache", "Clips looked up.", ["result"], registry=registry)
        self.decoders = Gauge(
            "reward_decoders_replaced", "Decoder processes killed or dead.", registry=registry
        )
        self.streams = Gauge("reward_streams_open", "Open streams.", registry=registry)
        self.held = Gauge(
            "reward_held_bytes", "Bodies and frames held by requests.", registry=registry
        )

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)
