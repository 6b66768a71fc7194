"""Types of the observers that make metrics and spans."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from opentelemetry.metrics import MeterProvider, get_meter_provider
from opentelemetry.trace import TracerProvider, get_tracer_provider

from returns_pipeline import StepContext, telemetry
from returns_pipeline.telemetry.otel import OpenTelemetry, OpenTelemetrySpans
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


def spans(event: Event, provider: TracerProvider, metrics: MeterProvider) -> None:
    """They are an observer, too, with arguments by name."""
    observer: Observer = OpenTelemetrySpans()
    made = assert_type(OpenTelemetrySpans(provider, max_links=8), OpenTelemetrySpans)
    made.on_event(event)
    with telemetry.use(observer, OpenTelemetrySpans(get_tracer_provider())):
        StepContext("shop", observer=made)
    OpenTelemetrySpans(metrics)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    OpenTelemetrySpans(provider, None)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    made.on_event("step")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def refuse(provider: MeterProvider, registry: CollectorRegistry) -> None:
    """One does not take what belongs to the other, nor a name instead of an event."""
    OpenTelemetry(registry)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Prometheus(provider)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Prometheus(registry).on_event("step")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    OpenTelemetry(provider).on_event("step")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
