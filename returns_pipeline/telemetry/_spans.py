"""`OpenTelemetrySpans`: an observer that makes spans, by the conventions for messaging."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Any, Final, NamedTuple, TypeAlias

from returns_pipeline import telemetry
from returns_pipeline._engine import checks
from returns_pipeline.errors import MissingExtra
from returns_pipeline.telemetry._messages import headers_of, messages_in

try:
    from opentelemetry import context as contexts
    from opentelemetry import propagate, trace
    from opentelemetry.context import Context
    from opentelemetry.propagators.textmap import TextMapPropagator
    from opentelemetry.trace import Span, SpanContext, SpanKind, StatusCode, TracerProvider
except ImportError as _error:
    raise MissingExtra("otel", "opentelemetry-api") from _error

__all__ = ["OpenTelemetrySpans"]

_SCOPE: Final = "returns_pipeline"

# How many links a span has in the SDK, unless it is configured otherwise.
_MAX_LINKS: Final = 128
# The keys whose spans are remembered, for the links of their undo actions.
_MAX_KEYS: Final = 1000
# The pipelines whose sources are remembered, and the sets of attributes that are kept.
_MAX_NAMES: Final = 1000

_Attributes: TypeAlias = dict[str, str]


class _Open(NamedTuple):
    """The span of a step that runs."""

    span: Span
    token: Any  # with which it was made the current one
    has_messages: bool


class OpenTelemetrySpans:
    """An observer that makes spans by OpenTelemetry. They are not made unless it is set.

    1. **A span for each step**: of `StepContext.run`, of each item of `bind_step`, of each attempt
       of a policy. It is the current span inside the step, in a context of its own if several run
       at once, so spans that drivers make are inside it.
    2. **A step that handles messages**, one or a window of them, begins a trace of its own, of the
       kind "consumer", that *links* to the spans in which its messages were sent: at most
       ``max_links``, taken evenly. With one message it continues the trace of that message instead.
       Messages are objects with ``headers``, such as `returns_pipeline.connectors.Message`.
    3. **A span for each undo action**, which is current inside it. It links to the span in which it
       was registered. If that is not known, as after a crash, it has the idempotency ``key``.
    4. **Spans of sources**: "receive" for each fetch, "ack" for each acknowledgement. **Of
       publishers**: "send" for each call of `Publisher`, whose context all its messages get in
       their headers.
    5. Retries, time limits and waits for limiters are events of the span in which they happen.

    A worker has no span of its own: it would last for days. An error sets the status, and
    ``error.type`` to its class; its text may be secret, and is left out. The attributes are those
    of the metrics, and never hold a position or an index.

    The sampler is asked first, with the name, the kind, and the attributes ``pipeline`` and
    ``stage``; links are added afterwards. A step that is not sampled costs little.

    It may be used by the event loops of several threads.

    Args:
        tracer_provider: The provider of the tracer; by default the global one, which may also be
            set later.
        propagator: Reads and writes the headers of messages; by default the global one, which
            has those of W3C unless it was set.
        max_links: How many links a span has at most. The SDK keeps 128, unless it is configured
            otherwise.
        record_exceptions: Whether the exception of a step is recorded in its span, with its text
            and its traceback, also one that is the error of a `Failure`.

    Raises:
        InvalidArgument: ``max_links`` is negative.

    >>> from opentelemetry.sdk.trace import TracerProvider
    >>> from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    >>> from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    >>> from returns_pipeline import StepContext, err
    >>> from returns_pipeline.testing import run
    >>> async def pay():
    ...     return err(OSError("secret"))
    >>> exporter = InMemorySpanExporter()
    >>> provider = TracerProvider(shutdown_on_exit=False)
    >>> provider.add_span_processor(SimpleSpanProcessor(exporter))
    >>> context = StepContext("pay", observer=OpenTelemetrySpans(provider))
    >>> _ = run(context.run(pay()))
    >>> for span in exporter.get_finished_spans():
    ...     print(span.name, span.status.status_code.name, span.attributes["error.type"])
    pay ERROR OSError
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        *,
        propagator: TextMapPropagator | None = None,
        max_links: int = _MAX_LINKS,
        record_exceptions: bool = False,
    ) -> None:
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
        self._own_propagator = propagator
        self._max_links = checks.count("max_links", max_links, least=0)
        self._record_exceptions = record_exceptions
        self._steps: dict[int, _Open] = {}
        self._publishing: dict[int, _Open] = {}
        self._undos: dict[int, Span] = {}
        self._lock = Lock()
        self._registered: dict[str, SpanContext] = {}  # by key; the oldest first
        self._workers = Counter[str]()
        self._sources: dict[str, set[tuple[str, str]]] = {}  # systems and destinations by pipeline
        self._named: dict[tuple[str, str, bool], tuple[str, _Attributes]] = {}
        self._handlers: dict[type, Callable[[Any], None]] = {
            telemetry.Acknowledged: self._acknowledged,
            telemetry.Fetched: self._fetched,
            telemetry.LimiterWaited: self._limiter_waited,
            telemetry.PublishBegun: self._publish_begun,
            telemetry.PublishEnded: self._publish_ended,
            telemetry.ScopeCommitted: self._committed,
            telemetry.StepBegun: self._step_begun,
            telemetry.StepEnded: self._step_ended,
            telemetry.StepRetried: self._step_retried,
            telemetry.StepTimedOut: self._step_timed_out,
            telemetry.UndoBegun: self._undo_begun,
            telemetry.UndoDone: self._undo_done,
            telemetry.UndoFailed: self._undo_failed,
            telemetry.UndoRegistered: self._undo_registered,
            telemetry.UndoStuck: self._undo_stuck,
            telemetry.WorkerEnded: self._worker_ended,
            telemetry.WorkerStarted: self._worker_started,
        }

    def on_event(self, event: telemetry.Event, /) -> None:
        """Begin or end a span. A kind of event that is not known is ignored."""
        handle = self._handlers.get(event.__class__)
        if handle is not None:
            handle(event)

    # Steps

    def _step_begun(self, event: telemetry.StepBegun) -> None:
        if self._is_worker(event):
            return
        messages: list[object] = []
        if event.item is not None and not self._is_inside_messages(event):
            messages = messages_in(event.item)
        name, attributes = self._names_of(event.pipeline, event.stage, bool(messages))
        outer = contexts.get_current()
        if messages:
            parent = self._context_of(messages, outer)
            span = self._tracer.start_span(name, parent, SpanKind.CONSUMER, attributes)
        else:
            parent = outer
            span = self._tracer.start_span(name, parent, attributes=attributes)
        if span.is_recording():
            if event.attempt > 1:
                span.set_attribute("attempt", event.attempt)
            if len(messages) > 1:
                span.set_attribute("messaging.batch.message_count", len(messages))
                for linked in self._linked(messages):
                    span.add_link(linked)
        token = contexts.attach(trace.set_span_in_context(span, parent))
        self._steps[event.run] = _Open(span, token, bool(messages))

    def _step_ended(self, event: telemetry.StepEnded) -> None:
        begun = self._steps.pop(event.run, None)
        if begun is None:
            return
        span = begun.span
        if span.is_recording():
            span.set_attribute("outcome", event.outcome)
            if event.outcome in {"failed", "raised"}:
                self._set_error(span, event.error)
        _end(begun)

    def _is_worker(self, event: telemetry.StepBegun) -> bool:
        """Whether it is the context of a worker, or that of one of its partitions."""
        if event.number is not None or not self._workers[event.pipeline]:
            return False
        return event.stage == event.pipeline or event.stage.startswith(f"{event.pipeline} ")

    def _is_inside_messages(self, event: telemetry.StepBegun) -> bool:
        outer = None if event.parent is None else self._steps.get(event.parent)
        return outer is not None and outer.has_messages

    def _names_of(self, pipeline: str, stage: str, has_messages: bool) -> tuple[str, _Attributes]:
        """Return the name of the span of a step, and the attributes that do not change."""
        where = pipeline, stage, has_messages
        if (found := self._named.get(where)) is not None:
            return found
        name = stage
        attributes = {"pipeline": pipeline, "stage": stage}
        if has_messages:
            name = f"process {stage}"
            attributes["messaging.operation.name"] = "process"
            attributes["messaging.operation.type"] = "process"
            # Which of several sources a message is from is not known.
            sources = self._sources.get(pipeline, ())
            if len(sources) == 1:
                ((system, source),) = sources
                name = f"process {source}"
                attributes["messaging.system"] = system
                attributes["messaging.destination.name"] = source
        if len(self._named) < _MAX_NAMES:
            self._named[where] = name, attributes
        return name, attributes

    # The spans of messages

    @property
    def _propagator(self) -> TextMapPropagator:
        return self._own_propagator or propagate.get_global_textmap()

    def _context_of(self, messages: list[object], outer: Context) -> Context:
        """Return the context in which the span of messages begins: that of one alone, or none."""
        if len(messages) == 1:
            headers = headers_of(messages[0])
            found = self._propagator.extract(headers, outer)
            if trace.get_current_span(found) is not trace.get_current_span(outer):
                return found
            outer = found
        return trace.set_span_in_context(trace.INVALID_SPAN, outer)

    def _linked(self, messages: list[object]) -> Iterator[SpanContext]:
        """Yield the spans in which messages were sent, each once."""
        propagator = self._propagator
        fields = tuple(propagator.fields)
        known: set[tuple[str | None, ...]] = {(None,) * len(fields)}
        for message in _evenly(messages, self._max_links):
            headers = headers_of(message)
            told = tuple([headers.get(field) for field in fields])
            if told in known:  # as is usual, if they were sent together
                continue
            known.add(told)
            span = trace.get_current_span(propagator.extract(headers, Context()))
            if (found := span.get_span_context()).is_valid:
                yield found

    # What happens inside a step

    def _step_retried(self, event: telemetry.StepRetried) -> None:
        why = {"error.type": _type_of(event.error)}
        _add_event("retry", event.stage, attempt=event.attempt, delay=event.delay, **why)

    def _step_timed_out(self, event: telemetry.StepTimedOut) -> None:
        _add_event("timeout", event.stage, limit=event.limit, abandoned=event.abandoned)

    def _limiter_waited(self, event: telemetry.LimiterWaited) -> None:
        _add_event("limiter", event.stage, limiter=event.limiter, waited=event.waited)

    # Undo actions

    def _undo_registered(self, event: telemetry.UndoRegistered) -> None:
        context = trace.get_current_span().get_span_context()
        if not context.is_valid:
            return
        with self._lock:
            self._registered[event.key] = context
            if len(self._registered) > _MAX_KEYS:
                del self._registered[next(iter(self._registered))]

    def _committed(self, event: telemetry.ScopeCommitted) -> None:
        with self._lock:
            self._registered.pop(event.key, None)

    def _undo_begun(self, event: telemetry.UndoBegun) -> None:
        attributes = {"pipeline": event.pipeline, "undo": event.undo}
        outer = trace.get_current_span().get_span_context()
        span = self._tracer.start_span(f"undo {event.undo}", attributes=attributes)
        if span.is_recording():
            of_step = self._registered.get(event.key)
            if of_step is None:
                span.set_attribute("key", event.key)
            elif of_step != outer:
                span.add_link(of_step)
        # The context belongs to the task of the undo, and ends with it.
        _ = contexts.attach(trace.set_span_in_context(span))
        self._undos[event.run] = span

    def _undo_done(self, event: telemetry.UndoDone) -> None:
        self._undo_ended(event, "done", None)

    def _undo_failed(self, event: telemetry.UndoFailed) -> None:
        self._undo_ended(event, "failed", event.error)

    def _undo_stuck(self, event: telemetry.UndoStuck) -> None:
        self._undo_ended(event, "stuck", event.error)

    def _undo_ended(
        self,
        event: telemetry.UndoDone | telemetry.UndoFailed | telemetry.UndoStuck,
        outcome: str,
        error: object,
    ) -> None:
        span = None if event.run is None else self._undos.pop(event.run, None)
        if span is None:
            return
        if span.is_recording():
            span.set_attribute("outcome", outcome)
            span.set_attribute("attempt", event.attempt)
            if outcome != "done":
                self._set_error(span, error)
        span.end()

    def _set_error(self, span: Span, error: object) -> None:
        span.set_attribute("error.type", _type_of(error))
        span.set_status(StatusCode.ERROR)
        if self._record_exceptions and isinstance(error, BaseException):
            span.record_exception(error)

    # Sources and workers

    def _fetched(self, event: telemetry.Fetched) -> None:
        where = event.system, event.source
        sources = self._sources.get(event.pipeline)
        if sources is None:
            sources = set[tuple[str, str]]()
            if len(self._sources) < _MAX_NAMES:
                self._sources[event.pipeline] = sources
        if where not in sources:
            sources.add(where)
            self._named.clear()  # the names of steps depend on it
        self._past("receive", "receive", event, event.waited, event.messages)

    def _acknowledged(self, event: telemetry.Acknowledged) -> None:
        self._past("ack", "settle", event, event.duration, event.messages)

    def _past(
        self,
        name: str,
        kind: str,
        event: telemetry.Fetched | telemetry.Acknowledged,
        duration: float,
        messages: int,
    ) -> None:
        """Make a span of what has ended. It belongs to no step, so it begins a trace."""
        now = time.time_ns()
        attributes: dict[str, str | int] = {
            "pipeline": event.pipeline,
            "messaging.operation.name": name,
            "messaging.operation.type": kind,
            "messaging.system": event.system,
            "messaging.destination.name": event.source,
            "messaging.batch.message_count": messages,
        }
        span = self._tracer.start_span(
            f"{name} {event.source}",
            Context(),
            SpanKind.CLIENT,
            attributes,
            start_time=now - int(duration * 1e9),
        )
        span.end(now)

    def _publish_begun(self, event: telemetry.PublishBegun) -> None:
        where = event.destination or event.system
        attributes: dict[str, str | int] = {
            "pipeline": event.pipeline,
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.system": event.system,
        }
        if event.destination:
            attributes["messaging.destination.name"] = event.destination
        if event.messages > 1:
            attributes["messaging.batch.message_count"] = event.messages
        span = self._tracer.start_span(
            f"send {where}", kind=SpanKind.PRODUCER, attributes=attributes
        )
        token = contexts.attach(trace.set_span_in_context(span))
        self._publishing[event.run] = _Open(span, token, has_messages=False)
        inject: Any = self._propagator.inject  # pyright does not accept the setter of its default
        inject(event.headers)

    def _publish_ended(self, event: telemetry.PublishEnded) -> None:
        begun = self._publishing.pop(event.run, None)
        if begun is None:
            return
        if begun.span.is_recording() and event.error is not None:
            self._set_error(begun.span, event.error)
        _end(begun)

    def _worker_started(self, event: telemetry.WorkerStarted) -> None:
        with self._lock:
            self._workers[event.pipeline] += 1

    def _worker_ended(self, event: telemetry.WorkerEnded) -> None:
        with self._lock:
            self._workers[event.pipeline] -= 1
            if self._workers[event.pipeline] <= 0:  # it may have ended before it started
                del self._workers[event.pipeline]


def _end(begun: _Open) -> None:
    begun.span.end()
    # It is another one if the step was ended in another context, by hand.
    if trace.get_current_span() is begun.span:
        contexts.detach(begun.token)


def _evenly(messages: list[object], limit: int) -> Iterator[object]:
    """Yield up to ``limit`` messages, from the first on, in even distances."""
    count = len(messages)
    if count <= limit:
        yield from messages
    else:
        for number in range(limit):
            yield messages[number * count // limit]


def _add_event(name: str, stage: str, **facts: str | float) -> None:
    """Add an event to the current span, if it is recorded."""
    span = trace.get_current_span()
    if span.is_recording():
        span.add_event(name, {"stage": stage, **facts})


def _type_of(error: object) -> str:
    return type(error).__name__
