"""What observers cost: windows of 500 whose step does nothing, and the main job.

The yardstick is the same pipeline, not observed.
"""

# pyright: reportUnknownVariableType=false

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from prometheus_client import CollectorRegistry
from returns.result import Success

from batcher import into_postgres, into_sqlite, ours
from harness import Way, compare, start
from returns_pipeline import ResultStream, StepContext, telemetry
from returns_pipeline.telemetry.otel import OpenTelemetry, OpenTelemetrySpans
from returns_pipeline.telemetry.prometheus import Prometheus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from returns.result import Result

    from returns_pipeline.telemetry import Event, Observer

WINDOW = 500


class Nothing:
    """Does nothing with events: what it costs to make them."""

    def on_event(self, event: Event, /) -> None:
        """Do nothing."""


class Dropped(SpanExporter):
    """Sends spans nowhere."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002
        """Do nothing."""
        return SpanExportResult.SUCCESS


def traced(sampler: Sampler) -> OpenTelemetrySpans:
    """Return an observer whose spans are exported in batches, by a thread."""
    provider = TracerProvider(sampler, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Dropped()))
    return OpenTelemetrySpans(provider)


# Goals: for windows whose step does nothing, and for the main job.
OBSERVERS: dict[str, tuple[Observer, float, float]] = {
    "an observer that does nothing": (Nothing(), 1.15, 1.03),
    "OpenTelemetry": (
        OpenTelemetry(MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)),
        1.15,
        1.03,
    ),
    "Prometheus": (Prometheus(CollectorRegistry()), 1.15, 1.03),
    "OpenTelemetry, spans": (traced(ALWAYS_ON), math.inf, 1.05),
    "OpenTelemetry, spans that are not sampled": (traced(ALWAYS_OFF), math.inf, 1.03),
}


async def numbers(items: int) -> AsyncIterator[int]:
    """Yield all items without ever suspending."""
    for item in range(items):
        yield item


async def step(window: list[int], _: StepContext) -> Result[int, str]:
    """Do nothing with a window."""
    return Success(len(window))


async def windows(items: int) -> None:
    """Run windows, each through a step of its own."""
    async with StepContext("bench") as ctx:
        stream = ResultStream.of(numbers(items)).chunks_or_timeout(WINDOW, 2.0)
        _ = await stream.bind_step(step, ctx).run()


def observed(
    work: Callable[[int], Awaitable[float | None]], observer: Observer
) -> Callable[[int], Awaitable[float | None]]:
    """Run the same, observed."""

    async def run(items: int) -> float | None:
        with telemetry.use(observer, pipeline="bench"):
            return await work(items)

    return run


def main() -> None:
    """Compare."""
    start("Observers of pipelines")
    compare(
        f"windows of {WINDOW}, with a step that does nothing",
        100_000,
        Way("not observed", windows),
        *[Way(name, observed(windows, each), goal) for name, (each, goal, _) in OBSERVERS.items()],
    )
    for name, into in (("SQLite", into_sqlite), ("PostgreSQL", into_postgres)):
        job = into(ours)
        compare(
            f"the main job, with {name}",
            20_000,
            Way("not observed", job),
            *[Way(name, observed(job, each), goal) for name, (each, _, goal) in OBSERVERS.items()],
        )


if __name__ == "__main__":
    main()
