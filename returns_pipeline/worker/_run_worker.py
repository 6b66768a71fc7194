"""`run_worker`: a worker as one call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

from returns_pipeline._engine.checks import Seconds
from returns_pipeline.compensation import CompensationRegistry
from returns_pipeline.compensation.protocol import DurableJournal
from returns_pipeline.connectors import Source
from returns_pipeline.context import StepContext
from returns_pipeline.result_stream import ResultStream
from returns_pipeline.telemetry import Observer
from returns_pipeline.worker._report import WorkerReport
from returns_pipeline.worker._worker import DeadLetters, Messages, Worker, discard

__all__ = ["run_worker"]

T = TypeVar("T")
F = TypeVar("F")
E = TypeVar("E")


@overload
async def run_worker(
    source: Source[T, F],
    pipeline: Callable[[Messages[T, F]], ResultStream[object, E]],
    *,
    name: str | None = None,
    journal: DurableJournal | None = None,
    registry: CompensationRegistry | None = None,
    dead_letters: DeadLetters[E] | None = None,
    recover_every: Seconds = 30.0,
    drain_timeout: Seconds = 25.0,
    per_partition: bool = False,
    stop: asyncio.Event | Awaitable[object] | None = None,
    observer: Observer | None = None,
) -> WorkerReport[E]: ...
@overload
async def run_worker(
    source: Source[T, F],
    pipeline: Callable[[Messages[T, F], StepContext], ResultStream[object, E]],
    *,
    name: str | None = None,
    journal: DurableJournal | None = None,
    registry: CompensationRegistry | None = None,
    dead_letters: DeadLetters[E] | None = None,
    recover_every: Seconds = 30.0,
    drain_timeout: Seconds = 25.0,
    per_partition: bool = False,
    stop: asyncio.Event | Awaitable[object] | None = None,
    observer: Observer | None = None,
) -> WorkerReport[E]: ...
async def run_worker(
    source: Source[Any, Any],
    pipeline: Callable[..., ResultStream[object, Any]],
    *,
    name: str | None = None,
    journal: DurableJournal | None = None,
    registry: CompensationRegistry | None = None,
    dead_letters: DeadLetters[Any] | None = None,
    recover_every: Seconds = 30.0,
    drain_timeout: Seconds = 25.0,
    per_partition: bool = False,
    stop: asyncio.Event | Awaitable[object] | None = None,
    observer: Observer | None = None,
) -> WorkerReport[Any]:
    """Read a source through a pipeline until SIGTERM: recover, consume, drain, report.

    The pipeline is a function of the stream of messages, and of a `StepContext` if it takes two
    arguments. It returns the stream that the worker runs:

    .. code-block:: python

        def billing(
            messages: ResultStream[Message[Order], Unread], ctx: StepContext
        ) -> ResultStream[int, Unread | WriteError]:
            return messages.chunks_or_timeout(500, 2.0).bind_step(persist, ctx)

        report = await run_worker(source, billing, journal=journal, registry=registry)
        sys.exit(report.exit_code)

    1. **Recovery.** With a journal and a registry, it undoes what dead processes have left: before
       it reads, and then every ``recover_every`` seconds, as `recovering` does, since a machine
       that died may never come back. It waits for the first round before it reads, but no longer
       than ``recover_every`` seconds: undos that are tried again and again go on beside it.
    2. **Consuming.** It enters the source and runs the pipeline. The context writes to the journal,
       and an acknowledgement is sent after ``journal.flush()``: the worker tells the source so.
    3. **Failures.** Each failure that comes out of the pipeline is passed to ``dead_letters``, in
       its turn. Its message is acknowledged after that has returned. Without ``dead_letters``, or
       if it returns a failure itself, the worker stops with `StoppedBy.FAILURE`, or
       `StoppedBy.DEAD_LETTERS`; that message and those after it are not acknowledged.
    4. **Exceptions** of the pipeline, of ``dead_letters``, of the source or of the journal end it:
       what is not committed is undone, what is not handled is given back, and they are raised. One
       does not: `PartitionsLost`, by which what stores positions refuses a window whose partition
       another process has. What is not committed is undone, the source connects again, and the
       pipeline begins again with what is still owned.
    5. **Stopping.** At SIGTERM, SIGINT, or when ``stop`` is set or returns, it drains. Nothing more
       is read, open windows are emitted, what was read is handled and acknowledged, and the group
       is left. After ``drain_timeout`` seconds, or at a second signal, everything is cancelled and
       undone, and is not acknowledged.
    6. **Partitions.** With ``per_partition``, each partition that is owned has a pipeline of its
       own, with a context of its own, whose name ends with that of the partition. It is made when
       the first message has arrived. One that is stuck does not stop the others: each may hold the
       same share of the source's ``max_in_flight``. If the partition moves, its pipeline is
       drained, within the source's ``settle_timeout``; if that does not suffice, or the partition
       is lost at once, the pipeline is cancelled and undone. The others go on. If the partition
       comes back, it gets a new pipeline, once the old one has ended. A failure, an exception or
       the end of one pipeline means the same for the worker as without ``per_partition``;
       ``dead_letters`` may be called by several at a time.

    Signal handlers are installed if this runs in the main thread, and restored at the end. Several
    workers of a process all get each signal. The third one ends the process at once, for a loop
    that is blocked; what is open then is undone by the next recovery. In other threads use
    ``stop``.

    Cancel safety: a cancellation ends it like an exception, and propagates after that. What has
    been handled is acknowledged if that takes less than a second.

    Args:
        source: What to read. It must not be entered: the worker does that.
        pipeline: What to do with its messages, by methods of `ResultStream`.
        name: What the worker is called in logs, and its steps in the journal; by default the name
            of ``pipeline``.
        journal: Where its steps record their undo actions. The worker does not close it.
        registry: The undo actions that this process knows. Without it the worker does not recover:
            another process has to.
        dead_letters: Takes a failure: a `DeadLetter` of a message that could not be read, or what
            the pipeline failed with. Or a `Publisher`, which must not be entered: the worker does
            that. It publishes the message of a `DeadLetter`, with the error in a header; of any
            other failure the worker stops, as it does without ``dead_letters``.
        recover_every: Seconds from one recovery to the next, above 0; up to a quarter less.
        drain_timeout: Seconds, at least 0. An undo that has begun is finished, whatever they are.
            Kubernetes kills a process 30 seconds after SIGTERM.
        per_partition: Whether each partition that is owned has a pipeline of its own: see above.
        stop: Does the same as SIGTERM when it is set, or when it returns. An exception that it
            raises is raised after draining. A coroutine is cancelled at the end; a future is not.
        observer: Gets the events of everything that the worker opens and runs: see
            `returns_pipeline.telemetry`. Their pipeline is ``name``.

    Returns:
        What it has done, and why it has stopped.

    Raises:
        InvalidArgument: An argument is out of range, or the source has a ``before_ack`` that is not
            the journal's ``flush``, or the pipeline returns a stream that acknowledges nothing, or
            ``per_partition`` is set and the source has no partitions that are owned.
        JournalError: The journal cannot be read at the start, or written to later.
        ConnectionLost: The ``reconnect`` of the source allows no other attempt.
        TypeError: An argument is of another kind, or the pipeline does not return a stream.
        Exception: Any exception of the pipeline, of ``dead_letters``, ``stop`` or the source.

    >>> from returns_pipeline.testing import MemoryBroker, run
    >>> broker = MemoryBroker()
    >>> broker.publish(b"1", b"2", b"oops", b"4")
    >>> async def bury(letter: object) -> None:
    ...     print("buried")
    >>> async def main() -> None:
    ...     report = await run_worker(
    ...         Source(broker.driver("sums"), decode=int),
    ...         lambda messages: messages.map(lambda each: each.value).chunks_or_timeout(9, 2.0),
    ...         dead_letters=bury,
    ...         stop=asyncio.sleep(9.0),
    ...     )
    ...     print(report.handled, report.dead, report.stopped_by, broker.backlog("sums"))
    >>> run(main())
    buried
    2 1 StoppedBy.STOP 0
    """
    try:
        worker: Worker[Any] = Worker(
            source,
            pipeline,
            name=name,
            journal=journal,
            registry=registry,
            dead_letters=dead_letters,
            recover_every=recover_every,
            drain_timeout=drain_timeout,
            per_partition=per_partition,
            observer=observer,
        )
    except BaseException:
        discard(stop)
        raise
    return await worker.run(stop)
