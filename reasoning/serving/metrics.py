"""Figures of a running server, in the format of Prometheus. They hold no prompts and no keys."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from reasoning.serving.models import Checkpoint

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counts requests and tokens, and measures times."""

    def __init__(self, checkpoints: Sequence[Checkpoint]):
        self._checkpoints = checkpoints
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "ergo_requests",
            "Requests, by path and status",
            ["path", "status"],
            registry=self.registry,
        )
        self.routes = Counter(
            "ergo_routes", "Routes that `auto` took", ["route"], registry=self.registry
        )
        self.tokens = Counter(
            "ergo_tokens", "Tokens of complete requests", ["kind"], registry=self.registry
        )
        self.first_token = Histogram(
            "ergo_first_token_seconds",
            "Time to the first token",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.duration = Histogram(
            "ergo_request_seconds",
            "Time of a whole request",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._load = Gauge(
            "ergo_jobs",
            "Samples that wait or have a slot",
            ["model", "state"],
            registry=self.registry,
        )
        self._engine = Gauge(
            "ergo_engine",
            "Counts of the engine since its start",
            ["model", "what"],
            registry=self.registry,
        )

    def text(self) -> bytes:
        """Returns all figures."""
        for checkpoint in self._checkpoints:
            waiting, running = checkpoint.engine.load
            self._load.labels(checkpoint.name, "waiting").set(waiting)
            self._load.labels(checkpoint.name, "running").set(running)
            for what, count in dict(checkpoint.engine.counts).items():
                self._engine.labels(checkpoint.name, what).set(count)
        return generate_latest(self.registry)
