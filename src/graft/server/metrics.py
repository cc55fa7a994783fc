"""What Prometheus reads at /metrics: requests, answers, tokens, cost, lines, jobs; nothing of documents or people.

It does not know routes or keys.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The figures of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "graft_requests", "Requests by route and status.", ("method", "route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "graft_request_seconds",
            "Until the response was sent, streams to their end.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._answers = Counter("graft_answers", "Answers that were made.", ("model",), registry=self.registry)
        self._tokens = Counter(
            "graft_tokens", "Tokens that models read and wrote.", ("model", "kind"), registry=self.registry
        )
        self._cost = Counter("graft_cost_usd", "Of answers whose price is known.", ("model",), registry=self.registry)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """One was answered; `route` is the pattern, never a path as it was given."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def answered(self, model: str, *, read: int, written: int, cost_usd: float | None) -> None:
        """A model answered; "" where its client left before the end."""
        name = model or "left"
        self._answers.labels(name).inc()
        self._tokens.labels(name, "prompt").inc(read)
        self._tokens.labels(name, "completion").inc(written)
        if cost_usd is not None:
            self._cost.labels(name).inc(cost_usd)

    def watch_line(self, name: str, under_way: Callable[[], int]) -> None:
        """Tell how many calls are made or wait in a line."""
        gauge = Gauge(f"graft_{name}_under_way", f"{name.capitalize()} made or in line.", registry=self.registry)
        gauge.set_function(under_way)

    def watch_jobs(self, statuses: Callable[[], Iterable[str]]) -> None:
        """Tell how many jobs are in each state."""
        self.registry.register(_Jobs(statuses))

    def text(self) -> bytes:
        """In Prometheus' own format."""
        return generate_latest(self.registry)


class _Jobs(Collector):
    def __init__(self, statuses: Callable[[], Iterable[str]]) -> None:
        self._statuses = statuses

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Read when it is asked for."""
        family = GaugeMetricFamily("graft_jobs", "Jobs by state.", labels=["status"])
        counted: Mapping[str, int] = Tally(self._statuses())
        for status, number in sorted(counted.items()):
            family.add_metric([status], number)
        yield family

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing is read to know its name."""
        return [GaugeMetricFamily("graft_jobs", "Jobs by state.", labels=["status"])]
