"""Metrics for Prometheus, by ``prometheus_client``. Needs the extra ``prometheus``.

``docs/metrics.md`` lists the metrics, and what they answer.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate
from threading import Lock
from typing import Final
from weakref import WeakKeyDictionary

from returns_pipeline.errors import MissingExtra
from returns_pipeline.telemetry import Event
from returns_pipeline.telemetry._instruments import INSTRUMENTS, Instrument
from returns_pipeline.telemetry._tally import Attributes, Tally

try:
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
    from prometheus_client.registry import Collector
except ImportError as _error:
    raise MissingExtra("prometheus", "prometheus-client") from _error

__all__ = ["Prometheus"]


class Prometheus:
    """An observer that measures for Prometheus.

    The metrics are those of `returns_pipeline.telemetry.otel`, with names as Prometheus wants them:
    ``returns_pipeline.window.closed`` is ``returns_pipeline_window_closed_total``, and names of
    seconds end with ``_seconds``. Set it for all pipelines of a program: their names are a label of
    all metrics. Observers of one registry count together.

    A metric has at most 1000 series. Events that would need more are counted in one more, whose
    labels are all "other", and that is logged once.

    It may be used by the event loops of several threads. The multiprocess mode of
    ``prometheus_client`` does not see these metrics: each process must be scraped by itself.

    Args:
        registry: Where the metrics are registered.

    >>> from prometheus_client import generate_latest
    >>> from returns_pipeline import ResultStream
    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> registry = CollectorRegistry()
    >>> observer = Prometheus(registry)
    >>> stream = ResultStream.of(from_iterable([1, 2, 3])).chunks_or_timeout(2, 9.0)
    >>> run(stream.observed(observer, name="shop").collect())
    <IOResult: <Success: [[1, 2], [3]]>>
    >>> for line in generate_latest(registry).decode().splitlines():
    ...     if line.startswith("returns_pipeline_window_size"):
    ...         print(line)
    returns_pipeline_window_size_total{pipeline="shop",reason="size",stage="chunks_or_timeout"} 2.0
    returns_pipeline_window_size_total{pipeline="shop",reason="end",stage="chunks_or_timeout"} 1.0
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._tally = _tally_of(registry)

    def on_event(self, event: Event, /) -> None:
        """Count an event."""
        self._tally.on_event(event)


# A registry refuses a second metric of the same name.
_tallies: Final[WeakKeyDictionary[CollectorRegistry, Tally[_Buckets]]] = WeakKeyDictionary()
_lock: Final = Lock()


def _tally_of(registry: CollectorRegistry) -> Tally[_Buckets]:
    """Return the tally of a registry."""
    with _lock:
        if registry not in _tallies:
            tally = Tally(_Buckets)
            registry.register(_Collector(tally))
            _tallies[registry] = tally
        return _tallies[registry]


class _Buckets:
    """One series of a histogram.

    Attributes:
        counts: The number of values in each bucket; the last is for those above all bounds.
        total: The sum of the values.
    """

    __slots__ = ("_bounds", "_lock", "counts", "total")

    def __init__(self, instrument: Instrument, _: Attributes) -> None:
        self._bounds = instrument.bounds
        self._lock = Lock()
        self.counts = [0] * (len(self._bounds) + 1)
        self.total = 0.0

    def record(self, value: float, /) -> None:
        with self._lock:
            self.counts[bisect_left(self._bounds, value)] += 1
            self.total += value

    def read(self) -> tuple[list[tuple[str, float]], float]:
        """Return the cumulated counts by bound, and the sum."""
        with self._lock:
            counts, total = self.counts.copy(), self.total
        bounds = [*map(str, self._bounds), "+Inf"]
        return list(zip(bounds, accumulate(counts), strict=True)), total


class _Collector(Collector):
    """Makes the metrics of a tally when they are scraped."""

    def __init__(self, tally: Tally[_Buckets]) -> None:
        self._tally = tally

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without values: the registry takes their names."""
        return [_empty(each) for each in INSTRUMENTS]

    def collect(self) -> Iterable[Metric]:
        """Return the metrics."""
        found: list[Metric] = []
        for each in INSTRUMENTS:
            metric = _empty(each)
            found.append(metric)
            if isinstance(metric, HistogramMetricFamily):
                for attributes, values in self._tally.distributions[each].all():
                    buckets, total = values.read()
                    metric.add_metric(_labels(each, attributes), buckets, total)
            else:
                for attributes, number in self._tally.numbers[each].all():
                    metric.add_metric(_labels(each, attributes), number.value)
        return found


def _empty(
    instrument: Instrument,
) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
    """Return the metric of an instrument, without values."""
    name = instrument.name.replace(".", "_") + ("_seconds" if instrument.unit == "s" else "")
    labels = [each.replace(".", "_") for each in instrument.attributes]
    match instrument.kind:
        case "counter":
            return CounterMetricFamily(name, instrument.description, labels=labels)
        case "histogram":
            return HistogramMetricFamily(name, instrument.description, labels=labels)
        case "balance" | "gauge":
            return GaugeMetricFamily(name, instrument.description, labels=labels)


def _labels(instrument: Instrument, attributes: Attributes) -> list[str]:
    return [attributes.get(name, "") for name in instrument.attributes]
