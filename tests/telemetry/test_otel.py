"""`OpenTelemetry`: what is given to the SDK, for whom it counts, and what harms nothing."""

# pyright: basic, reportMissingImports=false

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from typing import Any, get_args

import pytest

pytest.importorskip("opentelemetry.sdk.metrics")
pytest.importorskip("prometheus_client")

from measured import ByOpenTelemetry
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    PeriodicExportingMetricReader,
)
from opentelemetry.semconv._incubating.attributes import messaging_attributes
from opentelemetry.semconv._incubating.metrics import messaging_metrics
from opentelemetry.semconv.attributes import error_attributes
from returns.io import IOSuccess
from returns.result import Failure, Result, Success

from returns_pipeline import ResultStream, StepContext, telemetry, to_result
from returns_pipeline.connectors import Source
from returns_pipeline.telemetry import WindowEmitted
from returns_pipeline.telemetry._instruments import INSTRUMENTS
from returns_pipeline.telemetry._tally import MAX_SERIES, Tally
from returns_pipeline.telemetry.otel import OpenTelemetry
from returns_pipeline.testing import MemoryBroker, run, timed
from returns_pipeline.windows import TumblingWindows


def windows() -> ResultStream[list[int], object]:
    return ResultStream.of(timed(1, 2, 3)).chunks_or_timeout(2, 9.0)


def emitted(pipeline: str) -> WindowEmitted:
    return WindowEmitted(
        pipeline=pipeline,
        stage="chunks",
        operator="chunks",
        size=1,
        reason="end",
        age=None,
        at=0.0,
    )


def test_names_and_units_are_those_of_the_conventions() -> None:
    """Of those that the conventions have; ours have the name of the package."""
    ours = [each for each in INSTRUMENTS if each.name.startswith("returns_pipeline.")]
    theirs = [each for each in INSTRUMENTS if each not in ours]
    assert {each.name for each in theirs} == {
        messaging_metrics.MESSAGING_CLIENT_CONSUMED_MESSAGES,
        messaging_metrics.MESSAGING_CLIENT_OPERATION_DURATION,
        messaging_metrics.MESSAGING_CLIENT_SENT_MESSAGES,
    }
    units = {each.name: each.unit for each in theirs}
    assert units == {
        messaging_metrics.MESSAGING_CLIENT_CONSUMED_MESSAGES: "{message}",
        messaging_metrics.MESSAGING_CLIENT_SENT_MESSAGES: "{message}",
        messaging_metrics.MESSAGING_CLIENT_OPERATION_DURATION: "s",
    }
    dotted = {name for each in INSTRUMENTS for name in each.attributes if "." in name}
    known = {
        value
        for module in (messaging_attributes, error_attributes)
        for value in vars(module).values()
        if isinstance(value, str)
    }
    assert dotted <= known
    assert len({each.name for each in INSTRUMENTS}) == len(INSTRUMENTS)


def test_no_attribute_can_grow_without_bound() -> None:
    names = {name for each in INSTRUMENTS for name in each.attributes}
    assert not names & {"key", "saga", "scope", "number", "run", "error", "at", "position"}


def test_every_kind_of_event_is_counted() -> None:
    def kinds(alias: Any) -> set[type]:
        return set.union(*map(kinds, get_args(alias))) if get_args(alias) else {alias}

    def make(*_: object) -> Any:
        raise AssertionError

    assert set(Tally(make)._handlers) == kinds(telemetry.Event)


def test_a_watermark_that_is_infinite_at_the_end_is_not_exported() -> None:
    found = ByOpenTelemetry()

    async def main() -> None:
        s = ResultStream.of(timed(1, 12, 3)).event_windows(TumblingWindows(10.0), timestamp=float)
        await s.observed(found.observer, name="shop").run()

    run(main())
    assert found.total("returns_pipeline.window.watermark", pipeline="shop") == 12.0
    assert found.total("returns_pipeline.window.late_items", pipeline="shop") == 1


def test_a_partition_that_was_given_up_has_no_lag_any_more() -> None:
    """The process that reads it reports its lag; the sum of both would be wrong."""
    found = ByOpenTelemetry()
    broker = MemoryBroker(partitions=2)
    broker.publish(b"1", b"2")
    lags = []

    def partitions() -> int:
        return len(found.points("returns_pipeline.source.lag", {}))

    async def main() -> None:
        first = Source(broker.driver("sums"), decode=int, observer=found.observer)
        async with first as source:
            reading = asyncio.ensure_future(to_result(source.messages().run()))
            await asyncio.sleep(1.0)
            lags.append(partitions())
            async with Source(broker.driver("sums"), decode=int) as other:
                also = asyncio.ensure_future(to_result(other.messages().run()))
                await asyncio.sleep(5.0)
                lags.append(partitions())
                source.drain()
                other.drain()
                await asyncio.gather(reading, also)

    run(main())
    assert lags == [2, 1]
    assert found.total("returns_pipeline.source.revoked", settled="true") >= 1


def test_an_error_is_named_by_its_class_and_never_by_its_text() -> None:
    found = ByOpenTelemetry()

    async def step() -> Result[int, OSError]:
        return Failure(OSError("secret"))

    run(StepContext("shop", observer=found.observer).run(step()))
    (point,) = found.points("returns_pipeline.step.duration", {})
    assert dict(point.attributes or {}) == {
        "pipeline": "shop",
        "stage": "shop",
        "outcome": "failed",
        "error.type": "OSError",
    }


def test_two_pipelines_count_apart_in_one_provider() -> None:
    """With one observer, or with one for each."""
    found = ByOpenTelemetry()
    other = OpenTelemetry(found.provider)

    async def main() -> None:
        await windows().observed(found.observer, name="first").run()
        await windows().observed(other, name="second").run()
        await windows().observed(other, name="second").run()

    run(main())
    closed = "returns_pipeline.window.closed"
    assert found.total(closed, pipeline="first") == 2
    assert found.total(closed, pipeline="second") == 4


def test_a_program_that_makes_up_names_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    found = ByOpenTelemetry()
    for number in range(MAX_SERIES + 10):
        found.observer.on_event(emitted(f"request-{number}"))
    closed = "returns_pipeline.window.closed"
    assert found.total(closed) == MAX_SERIES + 10
    assert found.total(closed, pipeline="other", stage="other", reason="other") == 10
    assert len(found.points(closed, {})) == MAX_SERIES + 1
    logged = [record.getMessage() for record in caplog.records]
    assert f"{closed} has {MAX_SERIES} series: others are counted together" in logged
    assert len(logged) == 3  # one for each instrument of windows


def test_threads_lose_no_count() -> None:
    """While another thread exports all the time."""
    found = ByOpenTelemetry()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    ended = threading.Event()

    def count() -> None:
        for number in range(2000):
            found.observer.on_event(emitted(f"shop-{number % 50}"))

    def export() -> None:
        while not ended.is_set():
            found.reader.get_metrics_data()

    threads = [threading.Thread(target=count) for _ in range(4)]
    exporting = threading.Thread(target=export)
    try:
        for thread in (exporting, *threads):
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        ended.set()
        exporting.join()
        sys.setswitchinterval(interval)
    assert found.total("returns_pipeline.window.closed") == 8000


class Failing(MetricExporter):
    """Fails as a collector that is gone does."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def export(self, *args: Any, **options: Any) -> MetricExportResult:
        self.asked += 1
        raise ConnectionError("no collector")

    def force_flush(self, timeout_millis: float = 0.0) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 0.0, **_: Any) -> None:
        pass


def test_an_exporter_that_fails_harms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("opentelemetry"), "disabled", True)
    exporter = Failing()
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=60_000)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    try:
        done = run(windows().observed(OpenTelemetry(provider)).collect())
        assert done == IOSuccess([[1, 2], [3]])
        provider.force_flush()
    finally:
        provider.shutdown()
    assert exporter.asked


def test_an_sdk_that_raises_harms_nothing_and_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = ByOpenTelemetry()

    def record(*_: Any) -> None:
        raise OSError("no memory")

    monkeypatch.setattr("opentelemetry.sdk.metrics._internal.instrument._Histogram.record", record)

    async def step(value: int, ctx: StepContext) -> Result[int, str]:
        return Success(value)

    async def main() -> None:
        ctx = StepContext("shop", observer=found.observer)
        assert await ResultStream.of(timed(1, 2)).bind_step(step, ctx).run() == IOSuccess(2)

    run(main())
    assert len(caplog.records) == 1
    assert found.total("returns_pipeline.step.running") == 0


def test_the_global_provider_may_be_set_later() -> None:
    """In a process of its own, because it can be set once."""
    program = """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from returns_pipeline import ResultStream
from returns_pipeline.telemetry.otel import OpenTelemetry
from returns_pipeline.testing import MemoryBroker, run, timed
from returns_pipeline.windows import TumblingWindows

first = OpenTelemetry()
reader = InMemoryMetricReader()
provider = MeterProvider([reader], shutdown_on_exit=False)
metrics.set_meter_provider(provider)
for observer in (first, OpenTelemetry(), OpenTelemetry(provider)):
    run(ResultStream.of(timed(1)).chunks_or_timeout(2, 9.0).observed(observer).run())
found = reader.get_metrics_data().resource_metrics[0].scope_metrics[0]
print(found.scope.name)
for metric in found.metrics:
    if metric.name == "returns_pipeline.window.closed":
        print(*[point.value for point in metric.data.data_points])
"""
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["returns_pipeline", "3"]


def test_without_an_sdk_nothing_is_measured_and_nothing_fails() -> None:
    program = """
from returns_pipeline import ResultStream
from returns_pipeline.telemetry.otel import OpenTelemetry
from returns_pipeline.testing import MemoryBroker, run, timed
from returns_pipeline.windows import TumblingWindows
print(run(ResultStream.of(timed(1)).chunks_or_timeout(2, 9.0).observed(OpenTelemetry()).run()))
"""
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "<IOResult: <Success: 1>>\n"


def test_a_provider_is_not_kept() -> None:
    import gc
    import weakref

    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    run(windows().observed(OpenTelemetry(provider)).run())
    kept = weakref.ref(provider)
    provider.shutdown()
    del provider, reader
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize(
    ("module", "blocked", "message"),
    [
        (
            "otel",
            "opentelemetry",
            'opentelemetry-api is missing: pip install "returns-pipeline[otel]"',
        ),
        (
            "prometheus",
            "prometheus_client",
            'prometheus-client is missing: pip install "returns-pipeline[prometheus]"',
        ),
    ],
)
def test_an_extra_that_is_absent_is_named_with_the_command_that_installs_it(
    module: str, blocked: str, message: str
) -> None:
    program = f"""
import sys
sys.modules[{blocked!r}] = None
from returns_pipeline.errors import MissingExtra
try:
    import returns_pipeline.telemetry.{module}
except MissingExtra as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == message
