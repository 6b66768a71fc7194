"""Metrics and spans by OpenTelemetry. Needs the extra ``otel``.

``docs/metrics.md`` lists the metrics, and what they answer; ``docs/tracing.md`` the spans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Lock
from typing import Final
from weakref import WeakKeyDictionary

from returns_pipeline.errors import MissingExtra
from returns_pipeline.telemetry import Event
from returns_pipeline.telemetry._instruments import INSTRUMENTS, Instrument
from returns_pipeline.telemetry._spans import OpenTelemetrySpans
from returns_pipeline.telemetry._tally import Attributes, Number, Series, Tally

try:
    from opentelemetry import metrics
    from opentelemetry.metrics import (
        CallbackOptions,
        Histogram,
        Meter,
        MeterProvider,
        Observation,
    )
except ImportError as _error:
    raise MissingExtra("otel", "opentelemetry-api") from _error

__all__ = ["OpenTelemetry", "OpenTelemetrySpans"]

_SCOPE: Final = "returns_pipeline"


class OpenTelemetry:
    """An observer that measures by OpenTelemetry.

    Events are counted in plain attributes, which the SDK reads when it exports. Only durations,
    once for each step, undo action and request, are passed to the SDK at once. Set it for all
    pipelines of a program: their names are an attribute of all metrics. Observers of one provider
    count together.

    An instrument has at most 1000 series. Events that would need more are counted in one more,
    whose attributes are all "other", and that is logged once.

    It may be used by the event loops of several threads. An exporter that fails, or that is slow,
    does not harm or delay a pipeline, since the SDK exports in a thread of its own.

    Args:
        meter_provider: The provider of the meters; by default the global one, which may also be set
            later. One without an SDK measures nothing.

    >>> from opentelemetry.sdk.metrics import MeterProvider
    >>> from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    >>> from returns_pipeline import ResultStream, telemetry
    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> reader = InMemoryMetricReader()
    >>> observer = OpenTelemetry(MeterProvider([reader], shutdown_on_exit=False))
    >>> stream = ResultStream.of(from_iterable([1, 2, 3])).chunks_or_timeout(2, 9.0)
    >>> run(stream.observed(observer, name="shop").collect())
    <IOResult: <Success: [[1, 2], [3]]>>
    >>> data = reader.get_metrics_data()
    >>> found = {each.name: each.data for each in data.resource_metrics[0].scope_metrics[0].metrics}
    >>> for point in found["returns_pipeline.window.closed"].data_points:
    ...     print(point.value, dict(point.attributes))
    1 {'pipeline': 'shop', 'stage': 'chunks_or_timeout', 'reason': 'size'}
    1 {'pipeline': 'shop', 'stage': 'chunks_or_timeout', 'reason': 'end'}
    """

    def __init__(self, meter_provider: MeterProvider | None = None) -> None:
        self._tally = _tally_of(meter_provider)

    def on_event(self, event: Event, /) -> None:
        """Count an event."""
        self._tally.on_event(event)


class _Values:
    """One series of a histogram of the SDK."""

    __slots__ = ("_attributes", "_histogram")

    def __init__(self, histogram: Histogram, attributes: Attributes) -> None:
        self._histogram = histogram
        self._attributes = attributes

    def record(self, value: float, /) -> None:
        self._histogram.record(value, self._attributes)


# A provider keeps one instrument of a name, with the callbacks that it was first given. None is the
# global provider, which may be set later.
_tallies: Final[WeakKeyDictionary[MeterProvider, Tally[_Values]]] = WeakKeyDictionary()
_global: Final[list[Tally[_Values]]] = []
_lock: Final = Lock()


def _tally_of(provider: MeterProvider | None) -> Tally[_Values]:
    """Return the tally of a provider."""
    with _lock:
        if provider is None or provider is metrics.get_meter_provider():
            if not _global:
                _global.append(_connected(metrics.get_meter(_SCOPE)))
            return _global[0]
        if provider not in _tallies:
            _tallies[provider] = _connected(provider.get_meter(_SCOPE))
        return _tallies[provider]


def _connected(meter: Meter) -> Tally[_Values]:
    """Return a new tally, which the instruments of a meter read."""
    histograms = {
        each: meter.create_histogram(
            each.name,
            each.unit,
            each.description,
            explicit_bucket_boundaries_advisory=each.bounds,
        )
        for each in INSTRUMENTS
        if each.kind == "histogram"
    }

    def values(instrument: Instrument, attributes: Attributes) -> _Values:
        return _Values(histograms[instrument], attributes)

    tally = Tally(values)
    for each, series in tally.numbers.items():
        described = each.name, [_read(series)], each.unit, each.description
        if each.kind == "counter":
            _ = meter.create_observable_counter(*described)
        elif each.kind == "balance":
            _ = meter.create_observable_up_down_counter(*described)
        else:
            _ = meter.create_observable_gauge(*described)
    return tally


def _read(series: Series[Number]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def read(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(number.value, attributes) for attributes, number in series.all()]

    return read
