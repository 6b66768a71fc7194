"""Programs that are measured by OpenTelemetry or Prometheus, and a way to ask both the same."""

from __future__ import annotations

from typing import Protocol

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    DataPointT,
    HistogramDataPoint,
    InMemoryMetricReader,
    NumberDataPoint,
)
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from returns_pipeline.telemetry.otel import OpenTelemetry
from returns_pipeline.telemetry.prometheus import Prometheus

__all__ = ["BACK_ENDS", "ByOpenTelemetry", "ByPrometheus", "Measured"]


class Measured(Protocol):
    """What was measured."""

    observer: OpenTelemetry | Prometheus

    def total(self, name: str, **attributes: str) -> float:
        """Return the sum of the series of a counter or gauge that have these attributes.

        Names are those of OpenTelemetry, with underscores for dots in those of attributes.
        """

    def count(self, name: str, **attributes: str) -> float:
        """Return the number of the values of a histogram."""

    def sum(self, name: str, **attributes: str) -> float:
        """Return the sum of the values of a histogram."""


class ByOpenTelemetry:
    """Measured by the SDK."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)
        self.observer: OpenTelemetry | Prometheus = OpenTelemetry(self.provider)

    def points(self, name: str, attributes: dict[str, str]) -> list[DataPointT]:
        data = self.reader.get_metrics_data()
        metrics = [
            metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]
        points = [
            point for metric in metrics if metric.name == name for point in metric.data.data_points
        ]
        return [
            point
            for point in points
            if attributes.items()
            <= {key.replace(".", "_"): v for key, v in (point.attributes or {}).items()}.items()
        ]

    def total(self, name: str, **attributes: str) -> float:
        points = self.points(name, attributes)
        return sum([point.value for point in points if isinstance(point, NumberDataPoint)])

    def count(self, name: str, **attributes: str) -> float:
        points = self.points(name, attributes)
        return sum([point.count for point in points if isinstance(point, HistogramDataPoint)])

    def sum(self, name: str, **attributes: str) -> float:
        points = self.points(name, attributes)
        return sum([point.sum for point in points if isinstance(point, HistogramDataPoint)])


class ByPrometheus:
    """Measured by ``prometheus_client``, and read from what it shows to a scraper."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.observer: OpenTelemetry | Prometheus = Prometheus(self.registry)

    def samples(self, name: str, endings: set[str], attributes: dict[str, str]) -> float:
        name = name.replace(".", "_")
        wanted = {name + ending for ending in endings}
        wanted |= {f"{name}_seconds{ending}" for ending in endings}
        text = generate_latest(self.registry).decode()
        return sum(
            [
                sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
                if sample.name in wanted and attributes.items() <= sample.labels.items()
            ]
        )

    def total(self, name: str, **attributes: str) -> float:
        return self.samples(name, {"", "_total"}, attributes)

    def count(self, name: str, **attributes: str) -> float:
        return self.samples(name, {"_count"}, attributes)

    def sum(self, name: str, **attributes: str) -> float:
        return self.samples(name, {"_sum"}, attributes)


BACK_ENDS: list[type[ByOpenTelemetry | ByPrometheus]] = [ByOpenTelemetry, ByPrometheus]
