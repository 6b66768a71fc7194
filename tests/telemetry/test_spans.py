"""`OpenTelemetrySpans`: which spans are made, what they link to, and where they are current."""

# pyright: basic, reportPrivateUsage=false

from __future__ import annotations

import asyncio
import contextlib
import itertools
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

pytest.importorskip("opentelemetry.sdk.trace")

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, Sampler, SamplingResult
from opentelemetry.semconv._incubating.attributes import messaging_attributes
from opentelemetry.semconv.attributes import error_attributes
from opentelemetry.trace import SpanKind, StatusCode
from returns.result import Failure, Result, Success

from returns_pipeline import (
    CompensationRegistry,
    CompensationScope,
    ResultStream,
    StepContext,
    telemetry,
    to_result,
)
from returns_pipeline.connectors import DeadLetter, Message, Outgoing, Publisher, Source
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.journal import SqliteJournal, recover
from returns_pipeline.policies import RetryPolicy, bulkhead, with_retry, with_timeout
from returns_pipeline.telemetry._messages import messages_in
from returns_pipeline.telemetry.otel import OpenTelemetrySpans
from returns_pipeline.testing import MemoryBroker, run, timed
from returns_pipeline.windows import EventWindow
from returns_pipeline.worker import StoppedBy, run_worker

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")


class Traced:
    """A provider that keeps its spans in memory, and an observer that makes some."""

    def __init__(self, sampler: Sampler | None = None, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.observer = OpenTelemetrySpans(self.provider, **options)
        self.tracer = self.provider.get_tracer("driver")

    def spans(self, name: str) -> list[ReadableSpan]:
        """Return the spans of a name, in the order in which they ended."""
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def span(self, name: str) -> ReadableSpan:
        (found,) = self.spans(name)
        return found

    def names(self) -> list[str]:
        return [span.name for span in self.exporter.get_finished_spans()]


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    found: int = span.context.span_id
    return found


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    found: int = span.context.trace_id
    return found


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def linked(span: ReadableSpan) -> list[int]:
    return [link.context.span_id for link in span.links]


def sent(value: T, span: int, *, trace_id: int = 7, flags: int = 1) -> Message[T]:
    """A message with the headers of W3C."""
    told = f"00-{trace_id:032x}-{span:016x}-{flags:02x}"
    return Message(value, "orders-0", (span,), headers={"traceparent": told})


async def persist(item: object, step: StepContext) -> Result[object, str]:
    return Success(item)


def handle(found: Traced, *items: object) -> None:
    """Pass items through a step, inside a context that runs."""

    async def main() -> None:
        ctx = StepContext("shop", observer=found.observer)
        done = ResultStream.of(timed(*items)).bind_step(persist, ctx).run()
        assert await to_result(ctx.run(done)) == Success(len(items))

    run(main())


def test_each_step_has_a_span_inside_that_of_its_context() -> None:
    found = Traced()
    handle(found, 1, 2)
    assert found.names() == ["persist", "persist", "shop"]
    outer = found.span("shop")
    assert parent_of(outer) is None
    for span in found.spans("persist"):
        assert parent_of(span) == id_of(outer)
        assert span.kind is SpanKind.INTERNAL
        assert span.status.status_code is StatusCode.UNSET
        assert attributes(span) == {"pipeline": "shop", "stage": "persist", "outcome": "succeeded"}
    assert trace.get_current_span() is trace.INVALID_SPAN


@pytest.mark.parametrize(("concurrency", "ordered"), [(1, True), (3, True), (3, False)])
def test_the_spans_of_drivers_are_inside_that_of_their_step(
    concurrency: int, *, ordered: bool
) -> None:
    """Also if several steps run at once, each with waits of its own."""
    found = Traced()
    current: dict[int, int] = {}

    async def write(item: int, step: StepContext) -> Result[int, str]:
        mine = trace.get_current_span()
        await asyncio.sleep(1.0 / item)
        with found.tracer.start_as_current_span(f"INSERT {item}"):
            await asyncio.sleep(item)

        async def inner() -> None:
            with found.tracer.start_as_current_span(f"COPY {item}"):
                await asyncio.sleep(item)

        await asyncio.gather(inner(), asyncio.sleep(1.0))
        assert trace.get_current_span() is mine
        current[item] = mine.get_span_context().span_id
        return Success(item)

    async def main() -> None:
        ctx = StepContext("shop", observer=found.observer)
        items = range(1, 8)
        stream = ResultStream.of(timed(*items)).bind_step(
            write, ctx, concurrency=concurrency, ordered=ordered
        )
        assert await to_result(stream.run()) == Success(7)
        assert trace.get_current_span() is trace.INVALID_SPAN

    run(main())
    assert len({*current.values()}) == 7
    assert {id_of(span) for span in found.spans("write")} == {*current.values()}
    for item, span in current.items():
        assert parent_of(found.span(f"INSERT {item}")) == span
        assert parent_of(found.span(f"COPY {item}")) == span


def test_a_step_belongs_to_the_span_that_is_current_around_it() -> None:
    found = Traced()

    async def main() -> None:
        with found.tracer.start_as_current_span("request") as request:
            ctx = StepContext("shop", observer=found.observer)
            await ctx.run(persist(1, ctx))
            assert trace.get_current_span() is request

    run(main())
    assert parent_of(found.span("shop")) == id_of(found.span("request"))


def test_a_window_links_to_the_spans_of_its_messages_and_begins_a_trace() -> None:
    """Each once; a message without headers, or with a broken one, has no link."""
    found = Traced()
    broken = Message(3, "orders-0", (3,), headers={"traceparent": "00-nonsense"})
    window = [sent(1, 11), sent(2, 11), broken, Message(4, "orders-0", (4,)), sent(5, 15)]
    handle(found, window)
    span = found.span("process persist")
    assert linked(span) == [11, 15]
    assert {link.context.trace_id for link in span.links} == {7}
    assert parent_of(span) is None
    assert span.kind is SpanKind.CONSUMER
    assert trace_of(span) not in {7, trace_of(found.span("shop"))}
    assert attributes(span) == {
        "pipeline": "shop",
        "stage": "persist",
        "outcome": "succeeded",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.batch.message_count": 5,
    }


def test_one_message_continues_its_trace() -> None:
    found = Traced()
    handle(found, sent(1, 11))
    span = found.span("process persist")
    assert trace_of(span) == 7
    assert parent_of(span) == 11
    assert not span.links


def test_one_message_without_a_trace_begins_one() -> None:
    found = Traced()
    handle(found, Message(1, "orders-0", (1,)))
    span = found.span("process persist")
    assert parent_of(span) is None
    assert trace_of(span) != trace_of(found.span("shop"))


def test_the_links_of_a_large_window_are_taken_evenly() -> None:
    found = Traced()
    window = [sent(number, number + 1) for number in range(500)]
    handle(found, window)
    links = linked(found.span("process persist"))
    assert len(links) == len({*links}) == 128
    assert links[0] == 1
    assert all(3 <= b - a <= 4 for a, b in itertools.pairwise(links))
    few = Traced(max_links=2)
    handle(few, window)
    assert linked(few.span("process persist")) == [1, 251]
    none = Traced(max_links=0)
    handle(none, window)
    assert linked(none.span("process persist")) == []


@dataclass
class Letter:
    headers: dict[str, str] = field(default_factory=dict)


LETTER = Letter()


@pytest.mark.parametrize(
    ("item", "messages"),
    [
        (LETTER, 1),
        ([LETTER, LETTER], 2),
        (("key", [LETTER, LETTER]), 2),
        ([("a", [LETTER]), ("b", [LETTER])], 2),
        ([[LETTER], [LETTER]], 2),
        (EventWindow(None, 0.0, 10.0, [LETTER]), 1),
        ((LETTER, LETTER), 2),
        ([], 0),
        ([1, LETTER], 0),
        ("headers", 0),
        ({"a": LETTER}, 0),
        (None, 0),
    ],
)
def test_messages_are_found_in_windows_of_all_kinds(item: object, messages: int) -> None:
    assert messages_in(item) == [LETTER] * messages


def test_a_step_inside_the_step_of_a_message_is_in_its_trace() -> None:
    """A stream over the same messages, and the attempts of a policy."""
    found = Traced()
    failing = [Failure("busy"), Success(1)]

    async def store(item: object, step: StepContext) -> Result[int, str]:
        return failing.pop(0)

    async def outer(item: list[Message[int]], step: StepContext) -> Result[object, str]:
        inner = ResultStream.of(timed(item)).bind_step(persist, step)
        assert await to_result(inner.run()) == Success(1)
        done = await to_result(with_retry(store, RetryPolicy(3, wait=0.5))(item, step))
        return done.alt(str)

    async def main() -> None:
        ctx = StepContext("shop", observer=found.observer)
        window = [sent(1, 11), sent(2, 12)]
        stream = ResultStream.of(timed(window)).bind_step(outer, ctx)
        assert await to_result(stream.run()) == Success(1)

    run(main())
    span = found.span("process outer")
    first, second = found.spans("store")
    for inside in (found.span("persist"), first, second):
        assert parent_of(inside) == id_of(span)
        assert not inside.links
        assert inside.kind is SpanKind.INTERNAL
    assert "attempt" not in attributes(first)
    assert attributes(second)["attempt"] == 2
    assert [(event.name, dict(event.attributes or {})) for event in span.events] == [
        ("retry", {"stage": "store", "attempt": 1, "delay": 0.5, "error.type": "str"})
    ]


def test_time_limits_and_waits_for_limiters_are_events() -> None:
    found = Traced()
    limit = bulkhead(1)

    async def hang() -> Result[int, str]:
        await asyncio.sleep(3600.0)
        return Success(1)

    async def slow() -> Result[int, str]:
        await asyncio.sleep(1.0)
        return Success(1)

    async def step() -> Result[int, object]:
        await asyncio.gather(limit(slow)(), limit(slow)())
        return await to_result(with_timeout(hang, 2.0)())

    async def main() -> None:
        await StepContext("shop", observer=found.observer).run(step())

    run(main())
    span = found.span("shop")
    events = {event.name: dict(event.attributes or {}) for event in span.events}
    assert events["timeout"] == {"stage": "hang", "limit": 2.0, "abandoned": False}
    assert events["limiter"]["waited"] == 1.0


GONE = OSError("secret")


async def fail() -> Result[int, OSError]:
    return Failure(GONE)


async def crash() -> Result[int, OSError]:
    raise GONE


async def hang() -> Result[int, OSError]:
    await asyncio.sleep(3600.0)
    return Success(1)


@pytest.mark.parametrize(
    ("step", "outcome", "status", "error"),
    [
        (fail, "failed", StatusCode.ERROR, "OSError"),
        (crash, "raised", StatusCode.ERROR, "OSError"),
        (hang, "cancelled", StatusCode.UNSET, None),
    ],
)
def test_an_error_sets_the_status_and_names_its_class(
    step: Any, outcome: str, status: StatusCode, error: str | None
) -> None:
    found = Traced()

    async def main() -> None:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(9.0):
                await StepContext("shop", observer=found.observer).run(step())
        assert trace.get_current_span() is trace.INVALID_SPAN

    run(main())
    span = found.span("shop")
    assert attributes(span)["outcome"] == outcome
    assert attributes(span).get("error.type") == error
    assert span.status.status_code is status
    assert "secret" not in span.to_json()


def test_exceptions_are_recorded_if_that_is_wanted() -> None:
    found = Traced(record_exceptions=True)
    run(StepContext("shop", observer=found.observer).run(fail()))
    (event,) = found.span("shop").events
    assert event.name == "exception"
    assert dict(event.attributes or {})["exception.message"] == "secret"


# Undo actions


async def refund(order: int) -> None: ...


async def pay(order: int, step: StepContext) -> Result[int, str]:
    await step.register(refund, order)
    return Success(order) if order < 3 else Failure("no money")


async def delete() -> None:
    with trace.get_tracer("driver", tracer_provider=TRACED.provider).start_as_current_span("SQL"):
        await asyncio.sleep(1.0)


TRACED = Traced()


def test_an_undo_has_a_span_inside_the_step_that_has_failed() -> None:
    """It is current inside the undo."""

    async def step(item: int, step: StepContext) -> Result[int, str]:
        await step.register(delete)
        return Failure("no money")

    async def main() -> None:
        ctx = StepContext("shop", observer=TRACED.observer)
        await ResultStream.of(timed(1)).bind_step(step, ctx).run()

    run(main())
    span = TRACED.span("undo delete")
    assert parent_of(TRACED.span("SQL")) == id_of(span)
    assert parent_of(span) == id_of(TRACED.span("step"))
    assert not span.links
    assert attributes(span) == {
        "pipeline": "shop",
        "undo": "delete",
        "outcome": "done",
        "attempt": 1,
    }
    assert span.status.status_code is StatusCode.UNSET


def test_an_undo_after_its_step_links_to_the_span_of_it() -> None:
    """Steps that are held are undone when a later one fails, in the span of the whole."""
    found = Traced()

    async def main() -> None:
        ctx = StepContext("shop", observer=found.observer)
        stream = ResultStream.of(timed(1, 2, 3)).bind_step(pay, ctx, hold=True)
        assert await to_result(ctx.run(stream.run())) == Failure("no money")

    run(main())
    steps = [id_of(span) for span in found.spans("pay")]
    own, second, first = found.spans("undo refund")
    assert linked(second) == [steps[1]]
    assert linked(first) == [steps[0]]
    assert parent_of(first) == parent_of(second) == id_of(found.span("shop"))
    assert parent_of(own) == steps[2]
    assert not own.links


async def broken() -> None:
    raise GONE


def test_an_undo_that_fails_says_so() -> None:
    found = Traced()

    async def main() -> None:
        scope = CompensationScope("shop", observer=found.observer)
        await scope.register(broken)
        await scope.compensate()

    run(main())
    span = found.span("undo broken")
    assert attributes(span)["outcome"] == "stuck"
    assert attributes(span)["error.type"] == "OSError"
    assert span.status.status_code is StatusCode.ERROR


registry = CompensationRegistry()


@registry.compensation("cancel")
async def cancel(order: int) -> None: ...


def test_an_undo_after_a_crash_has_the_key_of_its_step(tmp_path: Any) -> None:
    found = Traced()
    keys = []

    async def leave_open() -> None:
        journal = SqliteJournal(tmp_path / "j.db")
        scope = CompensationScope("shop", journal=journal)
        await scope.register(cancel, 1)
        keys.append(scope.key)
        scope._records = []
        await journal.close()

    async def main() -> None:
        async with SqliteJournal(tmp_path / "j.db") as journal:
            with telemetry.use(found.observer):
                await recover(journal, registry)

    run(leave_open())
    run(main())
    span = found.span("undo cancel")
    assert parent_of(span) is None
    assert attributes(span)["key"] == keys[0]
    assert attributes(span)["outcome"] == "done"


def test_what_is_committed_is_not_remembered_and_what_is_kept_is_bounded() -> None:
    found = Traced()

    async def main() -> None:
        ctx = StepContext("shop", observer=found.observer)
        await ResultStream.of(timed(1, 2)).bind_step(pay, ctx).run()
        assert not found.observer._registered
        orders = timed(*[1] * 1010)
        await ResultStream.of(orders).bind_step(pay, ctx, hold=True).run()
        assert len(found.observer._registered) == 1000
        await ctx.commit()

    run(main())
    assert not found.observer._steps
    assert not found.observer._undos


# Sampling


class Never(Sampler):
    """Samples nothing, and keeps what it was asked with."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any, dict[str, Any], Sequence[Any]]] = []

    def should_sample(self, *args: Any, **options: Any) -> SamplingResult:
        _, _, name, kind, given, links = args
        self.asked.append((name, kind, dict(given or {}), links or ()))
        return SamplingResult(Decision.DROP)

    def get_description(self) -> str:
        return "never"


def test_the_sampler_is_asked_before_anything_is_read() -> None:
    """What it drops costs no link; what is inside is dropped with it."""
    never = Never()
    read: list[str] = []

    class Headers(dict[str, str]):
        def get(self, key: str, default: Any = None) -> Any:
            read.append(key)
            return super().get(key, default)

    found = Traced(never)
    handle(found, [Letter(Headers(traceparent="x")), Letter(Headers())])
    assert found.names() == []
    assert read == []
    assert [name for name, *_ in never.asked] == ["shop", "process persist"]
    assert never.asked[1][1] is SpanKind.CONSUMER
    assert never.asked[1][2]["stage"] == "persist"


def test_what_is_inside_a_step_that_was_not_sampled_is_not_either() -> None:
    found = Traced(ALWAYS_OFF)
    seen = []

    async def step() -> Result[int, str]:
        seen.append(trace.get_current_span())
        return Success(1)

    run(StepContext("shop", observer=found.observer).run(step()))
    assert seen[0].get_span_context().is_valid
    assert not seen[0].is_recording()


# Sources and workers


def test_a_worker_from_the_headers_of_its_messages_to_their_windows() -> None:
    """The worker has no span of its own: each window begins a trace."""
    found = Traced()
    broker = MemoryBroker()
    for number in range(1, 7):
        headers = sent(b"", number).headers
        broker.publish(str(number).encode(), headers=headers)

    async def main() -> None:
        source = Source(broker.driver("sums"), decode=int)

        def billing(
            messages: ResultStream[Message[int], Any], step: StepContext
        ) -> ResultStream[object, Any]:
            windows = messages.chunks_or_timeout(3, 1.0)
            return windows.bind_step(persist, step)

        report = await run_worker(
            source,
            billing,
            name="billing",
            stop=asyncio.sleep(20.0),
            observer=found.observer,
        )
        assert report.stopped_by is StoppedBy.STOP

    run(main())
    assert {*found.names()} == {"receive sums", "process sums", "ack sums"}
    first, second = found.spans("process sums")
    assert (linked(first), linked(second)) == ([1, 2, 3], [4, 5, 6])
    assert trace_of(first) != trace_of(second)
    for span in found.exporter.get_finished_spans():
        assert parent_of(span) is None
        told = attributes(span)
        assert told["pipeline"] == "billing"
        assert told["messaging.system"] == "memory"
        assert told["messaging.destination.name"] == "sums"
    assert sum(attributes(s)["messaging.batch.message_count"] for s in found.spans("ack sums")) == 6
    kinds = {span.name: span.kind for span in found.exporter.get_finished_spans()}
    assert kinds == {
        "receive sums": SpanKind.CLIENT,
        "process sums": SpanKind.CONSUMER,
        "ack sums": SpanKind.CLIENT,
    }


def test_messages_that_are_published_carry_the_trace() -> None:
    """From the request, by the broker, to the window of another process."""
    found = Traced()
    broker = MemoryBroker()

    async def main() -> None:
        with telemetry.use(found.observer, pipeline="shop"):
            async with Publisher(broker.sender(), encode=int) as publisher:
                with found.tracer.start_as_current_span("request") as request:
                    assert await publisher.publish_all([1, 2]) == Success(2)
                    assert trace.get_current_span() is request
                    assert await publisher.publish(3) == Success(1)
            async with Source(broker.driver("sums"), decode=int) as source:
                windows = source.messages().chunks_or_timeout(3, 1.0)
                _ = await to_result(windows.bind_step(persist, StepContext("shop")).first())

    run(main())
    first, second = found.spans("send memory")
    for span in (first, second):
        assert parent_of(span) == id_of(found.span("request"))
        assert span.kind is SpanKind.PRODUCER
    assert linked(found.span("process sums")) == [id_of(first), id_of(second)]
    assert attributes(first) == {
        "pipeline": "shop",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.system": "memory",
        "messaging.batch.message_count": 2,
    }
    assert "messaging.batch.message_count" not in attributes(second)


def test_what_was_read_is_published_in_the_trace_of_now_but_headers_of_ones_own_stay() -> None:
    found = Traced()
    broker = MemoryBroker()
    read = sent(b"1", 11)
    headers = {"traceparent": read.headers["traceparent"], "origin": "test"}
    mine = Outgoing(b"3", headers=headers)

    async def main() -> list[Message[bytes]]:
        async with Publisher(broker.sender(), observer=found.observer) as publisher:
            assert await publisher.publish_all([read, DeadLetter("no", read), mine]) == Success(3)
        async with Source(broker.driver("sums")) as source:
            windows = source.messages().chunks_or_timeout(3, 1.0)
            return (await to_result(windows.first())).unwrap()

    again, letter, own = run(main())
    span = found.span("send memory")
    told = f"00-{trace_of(span):032x}-{id_of(span):016x}-"
    assert again.headers["traceparent"] == letter.headers["traceparent"]
    assert again.headers["traceparent"].startswith(told)
    assert letter.headers["error"] == "no"
    assert dict(own.headers) == headers


@pytest.mark.parametrize("sampled", [True, False])
def test_a_publisher_that_fails_says_so_and_leaves_no_span_current(*, sampled: bool) -> None:
    found = Traced(None if sampled else ALWAYS_OFF)

    def encode(value: object) -> bytes:
        raise GONE

    async def main() -> None:
        sender = MemoryBroker().sender()
        async with Publisher(sender, observer=found.observer) as publisher:
            assert isinstance(await publisher.publish(Outgoing(1, partition=9)), Failure)
        async with Publisher(sender, encode=encode, observer=found.observer) as publisher:
            with pytest.raises(OSError, match="secret"):
                await publisher.publish(1)
        assert trace.get_current_span() is trace.INVALID_SPAN

    run(main())
    errors = [attributes(span)["error.type"] for span in found.spans("send memory")]
    assert errors == (["PublishError", "OSError"] if sampled else [])


def test_of_several_sources_no_span_says_which() -> None:
    """A message does not say which one it is from."""
    found = Traced()

    async def main() -> None:
        with telemetry.use(found.observer, pipeline="shop"):
            for name in ("first", "second"):
                broker = MemoryBroker()
                broker.publish(b"1")
                async with Source(broker.driver(name), decode=int) as source:
                    ctx = StepContext("shop")
                    stream = source.messages().bind_step(persist, ctx)
                    _ = await to_result(stream.first())

    run(main())
    assert attributes(found.span("process first"))["messaging.system"] == "memory"
    assert "messaging.system" not in attributes(found.span("process persist"))


def test_names_are_those_of_the_conventions() -> None:
    found = Traced()
    handle(found, [sent(1, 11)])
    broker = MemoryBroker()
    broker.publish(b"1")

    async def main() -> None:
        async with Source(broker.driver("sums"), decode=int, observer=found.observer) as source:
            _ = await to_result(source.messages().first())

    run(main())
    known = {
        value
        for module in (messaging_attributes, error_attributes)
        for value in vars(module).values()
        if isinstance(value, str)
    }
    used = {name for span in found.exporter.get_finished_spans() for name in attributes(span)}
    assert {name for name in used if "." in name} <= known
    assert any("." in name for name in used)
    kinds = {
        attributes(span).get("messaging.operation.type")
        for span in found.exporter.get_finished_spans()
    }
    allowed = {each.value for each in messaging_attributes.MessagingOperationTypeValues}
    assert kinds - {None} <= allowed


def test_the_global_provider_may_be_set_later() -> None:
    """In a process of its own, because it can be set once."""
    program = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from returns_pipeline import StepContext, ok
from returns_pipeline.telemetry.otel import OpenTelemetrySpans
from returns_pipeline.testing import run

async def step():
    return ok(1)

observer = OpenTelemetrySpans()
run(StepContext("before", observer=observer).run(step()))
exporter = InMemorySpanExporter()
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
run(StepContext("after", observer=observer).run(step()))
print(*[span.name for span in exporter.get_finished_spans()])
print(*[span.instrumentation_scope.name for span in exporter.get_finished_spans()])
"""
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["after", "returns_pipeline"]


@pytest.mark.parametrize("links", [-1, 1.5, True])
def test_arguments_out_of_range_are_refused(links: Any) -> None:
    with pytest.raises(InvalidArgument, match="max_links"):
        OpenTelemetrySpans(max_links=links)
