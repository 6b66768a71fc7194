"""Types of the observers that make metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from opentelemetry.metrics import MeterProvider, get_meter_provider

from returns_pipeline import StepContext, telemetry
from returns_pipeline.telemetry.otel import OpenTelemetry
from returns_pipeline.telemetry.prometheus import Prometheus

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from returns_pipeline.telemetry import Event, Observer


def check(event: Event, provider: MeterProvider, registry: CollectorRegistry) -> None:
    """Both are observers."""
    by_otel = assert_type(OpenTelemetry(provider), OpenTelemetry)
    by_prometheus = assert_type(Prometheus(registry), Prometheus)
    both: list[Observer] = [by_otel, by_prometheus, OpenTelemetry(), Prometheus()]
    with telemetry.use(*both, OpenTelemetry(get_meter_provider())):
        StepContext("shop", observer=by_otel)
    by_otel.on_event(event)
    by_prometheus.on_event(event)


def refuse(provider: MeterProvider, registry: CollectorRegistry) -> None:
    """One does not take what belongs to the other, nor a name instead of an event."""
    OpenTelemetry(registry)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Prometheus(provider)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Prometheus(registry).on_event("step")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    OpenTelemetry(provider).on_event("step")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
