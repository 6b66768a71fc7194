"""`run_worker` on virtual time: how it starts, every way in which it ends, and what is left."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import math
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from returns.future import FutureResult
from returns.result import Failure, Result, Success

from returns_pipeline import CompensationRegistry, CompensationScope, ResultStream, StepContext
from returns_pipeline.connectors import DeadLetter, Message, Publisher, Source
from returns_pipeline.errors import (
    ConnectionLost,
    DecodeError,
    InvalidArgument,
    JournalError,
    JournalUnavailable,
    PartitionsLost,
    PublishError,
)
from returns_pipeline.journal import SqliteJournal
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.testing import MemoryBroker, inject_everywhere, run
from returns_pipeline.worker import StoppedBy, Worker, run_worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from returns_pipeline.testing import FaultInjector

Messages = ResultStream[Message[int], Any]
GROUP = "shop"


def broker_of(count: int, *, partitions: int = 1, shared: bool = False) -> MemoryBroker:
    broker = MemoryBroker(partitions=partitions, shared=shared, redeliver_after=9.0)
    broker.publish(*[str(number).encode() for number in range(count)])
    return broker


def source_of(broker: MemoryBroker, **how: Any) -> Source[int, Any]:
    return Source(broker.driver(GROUP), decode=int, **how)


class Shop:
    """A pipeline that stores windows of four, slowly, and undoes those that are not committed.

    Attributes:
        stored: The messages whose effect stands.
        undone: The windows that were undone, in order.
        refused: Messages that make their window fail.
    """

    def __init__(self, *, seconds: float = 1.0, timeout: float = 2.0) -> None:
        self.stored: list[int] = []
        self.undone: list[list[int]] = []
        self.refused: set[int] = set()
        self.broken: set[int] = set()
        self.seconds = seconds
        self.timeout = timeout
        self.registry = CompensationRegistry()
        self.remove = self.registry.compensation("remove")(self._remove)

    async def _remove(self, numbers: list[int]) -> None:
        self.undone.append(numbers)
        self.stored = [number for number in self.stored if number not in numbers]

    async def persist(self, window: list[Message[int]], step: StepContext) -> Result[int, str]:
        numbers = [message.value for message in window]
        await step.register(self.remove, numbers)
        self.stored += numbers
        await asyncio.sleep(self.seconds)
        if self.broken.intersection(numbers):
            raise ZeroDivisionError
        return Failure("refused") if self.refused.intersection(numbers) else Success(len(numbers))

    def pipeline(self, messages: Messages, ctx: StepContext) -> ResultStream[int, Any]:
        return messages.chunks_or_timeout(4, self.timeout).bind_step(self.persist, ctx)


def doubled(messages: Messages) -> ResultStream[int, Any]:
    return messages.map(lambda message: 2 * message.value)


# Ends: stop, signals.


@pytest.mark.parametrize("shared", [False, True])
def test_stop_drains_all_that_was_read_and_open_windows_too(shared: bool) -> None:
    async def main() -> None:
        broker, shop, stop = broker_of(10, shared=shared), Shop(timeout=math.inf), asyncio.Event()
        asyncio.get_running_loop().call_later(30, stop.set)
        report = await run_worker(source_of(broker), shop.pipeline, stop=stop)
        assert report.stopped_by is StoppedBy.STOP
        assert (report.handled, report.dead, report.exit_code) == (3, 0, 0)
        assert report.statistics.acknowledged == 10
        assert sorted(shop.stored) == list(range(10))
        assert shop.undone == []
        assert broker.backlog(GROUP) == 0
        assert asyncio.get_running_loop().time() < 33

    run(main())


def test_the_log_says_when_a_worker_reads_and_when_it_drains(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        _ = await run_worker(source_of(broker_of(1)), doubled, name="w", stop=asyncio.sleep(3))

    run(main())
    assert caplog.messages == ["worker w reads", "worker w drains: stop"]
    assert [vars(record)["rp_worker"] for record in caplog.records] == ["w", "w"]


def test_a_worker_that_is_refused_again_and_again_can_be_stopped_and_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    refusals = 0

    def refuse(_: object) -> int:
        nonlocal refusals
        refusals += 1
        raise PartitionsLost("memory", ("memory-0",))

    async def main() -> None:
        report = await run_worker(
            source_of(broker_of(5)), lambda messages: messages.map(refuse), stop=asyncio.sleep(20)
        )
        assert report.stopped_by is StoppedBy.STOP

    run(main())
    assert refusals > 2
    assert "it reads on with what it owns" in caplog.text
    assert caplog.text.count("it reads on with what it owns") == 1


def test_stop_may_be_a_coroutine_or_a_future_which_is_not_cancelled() -> None:
    async def main() -> None:
        report = await run_worker(source_of(broker_of(1)), doubled, stop=asyncio.sleep(3))
        assert report.stopped_by is StoppedBy.STOP
        assert asyncio.get_running_loop().time() < 5
        forever = asyncio.get_running_loop().create_future()
        broker = broker_of(1)
        with pytest.raises(ZeroDivisionError):
            await run_worker(
                source_of(broker), lambda messages: messages.map(lambda _: 1 / 0), stop=forever
            )
        assert not forever.done()
        failed = asyncio.get_running_loop().create_future()
        failed.set_exception(OSError("the lock is lost"))
        broker = broker_of(3)
        with pytest.raises(OSError, match="the lock is lost"):
            await run_worker(source_of(broker), doubled, stop=failed)

    run(main())


def test_a_worker_that_is_stopped_before_it_begins_does_not_connect() -> None:
    async def main() -> None:
        broker, stop = broker_of(3), asyncio.Event()
        stop.set()
        report = await run_worker(source_of(broker), doubled, stop=stop)
        assert (report.stopped_by, report.handled) == (StoppedBy.STOP, 0)
        assert report.statistics.connections == 0
        assert broker.backlog(GROUP) == 3

    run(main())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_the_handlers_are_restored(number: signal.Signals) -> None:
    def mine(*_: object) -> None:
        raise AssertionError("this is the program's, not the worker's")

    async def main() -> None:
        before = signal.signal(number, mine)
        try:
            broker, shop = broker_of(6), Shop(timeout=math.inf)
            asyncio.get_running_loop().call_later(5, os.kill, os.getpid(), number)
            report = await run_worker(source_of(broker), shop.pipeline, stop=asyncio.sleep(60))
            assert report.stopped_by is StoppedBy.SIGNAL
            assert (report.exit_code, report.handled) == (0, 2)
            assert broker.backlog(GROUP) == 0
            assert signal.getsignal(number) is mine
        finally:
            signal.signal(number, before)

    run(main())


def test_a_second_signal_cancels_and_undoes_and_leaves_the_rest_unacknowledged() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        broker, shop = broker_of(8), Shop(seconds=100.0)
        for seconds in (50, 120):
            loop.call_later(seconds, os.kill, os.getpid(), signal.SIGTERM)
        report = await run_worker(
            source_of(broker), shop.pipeline, drain_timeout=math.inf, stop=asyncio.sleep(500)
        )
        assert report.stopped_by is StoppedBy.SECOND_SIGNAL
        assert (report.exit_code, report.handled) == (6, 1)
        assert shop.stored == [0, 1, 2, 3]
        assert shop.undone == [[4, 5, 6, 7]]
        assert broker.backlog(GROUP) == 4
        assert loop.time() < 122

    run(main())


def test_a_signal_after_stop_is_not_the_second_one() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        broker, shop = broker_of(4), Shop(seconds=10.0)
        loop.call_later(3, os.kill, os.getpid(), signal.SIGTERM)
        report = await run_worker(source_of(broker), shop.pipeline, stop=asyncio.sleep(1))
        assert (report.stopped_by, report.handled) == (StoppedBy.STOP, 1)

    run(main())


def test_workers_of_one_process_all_get_a_signal_whichever_ends_first() -> None:
    def mine(*_: object) -> None:
        raise AssertionError("this is the program's, not the workers'")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        before = signal.signal(signal.SIGTERM, mine)
        try:
            loop.call_later(50, os.kill, os.getpid(), signal.SIGTERM)
            running = [
                run_worker(source_of(broker_of(3)), doubled, stop=asyncio.sleep(seconds))
                for seconds in (10, 90, 90)
            ]
            reports = await asyncio.gather(*running)
            assert [report.stopped_by for report in reports] == [
                StoppedBy.STOP,
                StoppedBy.SIGNAL,
                StoppedBy.SIGNAL,
            ]
            assert loop.time() < 60
            assert signal.getsignal(signal.SIGTERM) is mine
        finally:
            signal.signal(signal.SIGTERM, before)

    run(main())


def test_a_third_signal_ends_a_process_whose_loop_is_blocked() -> None:
    code = (
        "import os, signal, sys\n"
        "from returns_pipeline.worker._signals import sharing\n"
        "with sharing(print):\n"
        "  for _ in range(3): os.kill(os.getpid(), signal.SIGTERM); sys.stdout.flush()\n"
        "  print('still here')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "15\n15\n")


def test_draining_ends_at_its_limit() -> None:
    async def main() -> None:
        broker, shop = broker_of(8), Shop(seconds=100.0)
        report = await run_worker(
            source_of(broker), shop.pipeline, stop=asyncio.sleep(50), drain_timeout=20.0
        )
        assert report.stopped_by is StoppedBy.DRAIN_TIMEOUT
        assert (report.exit_code, report.handled) == (5, 0)
        assert shop.stored == []
        assert shop.undone == [[0, 1, 2, 3]]
        assert broker.backlog(GROUP) == 8
        assert 70 <= asyncio.get_running_loop().time() < 72

    run(main())


def test_in_another_thread_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    async def main() -> None:
        broker = broker_of(2)

        def look(message: Message[int]) -> Message[int]:
            seen.append(signal.getsignal(signal.SIGTERM))
            return message

        report = await run_worker(
            source_of(broker), lambda messages: messages.map(look), stop=asyncio.sleep(3)
        )
        seen.append(report.stopped_by)

    thread = threading.Thread(target=lambda: run(main()))
    thread.start()
    thread.join()
    assert seen == [before, before, StoppedBy.STOP]


def test_a_pipeline_that_ends_by_itself_ends_the_worker() -> None:
    async def main() -> None:
        broker, enough = broker_of(9), asyncio.Event()
        asyncio.get_running_loop().call_later(3, enough.set)
        report = await run_worker(
            source_of(broker), lambda messages: doubled(messages).drain_on(enough)
        )
        assert (report.stopped_by, report.handled, report.exit_code) == (StoppedBy.END, 9, 0)
        assert broker.backlog(GROUP) == 0

    run(main())


# Ends: failures and exceptions.


def test_a_failure_stops_the_worker_and_neither_it_nor_what_follows_is_acknowledged() -> None:
    async def main() -> None:
        broker, shop = broker_of(12), Shop()
        shop.refused = {5}
        report = await run_worker(source_of(broker), shop.pipeline)
        assert report.stopped_by is StoppedBy.FAILURE
        assert (report.failure, report.exit_code, report.handled) == ("refused", 3, 1)
        assert shop.stored == [0, 1, 2, 3]
        assert shop.undone == [[4, 5, 6, 7]]
        assert broker.backlog(GROUP) == 8

    run(main())


def test_a_failure_goes_to_the_dead_letters_before_it_is_acknowledged() -> None:
    async def main() -> None:
        broker, shop = broker_of(8), Shop()
        broker.publish(b"oops", b"9")
        shop.refused = {2}
        letters: list[tuple[object, int, list[list[int]]]] = []

        async def bury(error: object) -> None:
            await asyncio.sleep(5)
            letters.append((error, broker.backlog(GROUP), list(shop.undone)))

        report = await run_worker(
            source_of(broker), shop.pipeline, dead_letters=bury, stop=asyncio.sleep(60)
        )
        assert (report.handled, report.dead) == (2, 2)
        assert report.stopped_by is StoppedBy.STOP
        (first, backlog, undone), (second, later, _) = letters
        assert (first, backlog, undone) == ("refused", 10, [[0, 1, 2, 3]])
        assert isinstance(second, DeadLetter)
        assert isinstance(second.error, DecodeError)
        assert later == 2
        assert broker.backlog(GROUP) == 0

    run(main())


async def _raises(_: object) -> None:
    await asyncio.sleep(1)
    raise OSError("no space")


async def _fails(_: object) -> Result[None, str]:
    await asyncio.sleep(1)
    return Failure("no space")


def _fails_later(error: object) -> FutureResult[None, str]:
    return FutureResult(_fails(error))


async def _fails_unawaited(error: object) -> FutureResult[None, str]:
    return _fails_later(error)


def test_a_publisher_takes_dead_letters() -> None:
    async def main() -> None:
        broker, graveyard = broker_of(2), MemoryBroker()
        broker.publish(b"oops", key=b"k")
        async with Publisher(graveyard.sender(), encode=int) as publisher:
            report = await run_worker(
                source_of(broker), doubled, dead_letters=publisher.publish, stop=asyncio.sleep(9)
            )
        assert (report.handled, report.dead, broker.backlog(GROUP)) == (2, 1, 0)
        async with Source(graveyard.driver("people")) as source:
            message = (await anext(source)).unwrap()
            assert (message.value, message.key) == (b"oops", b"k")
            assert message.headers["error"].startswith("DecodeError: a message cannot be read")
            assert message.headers["read-from"] == "memory-0 2"

    run(main())


def test_a_publisher_is_entered_and_takes_dead_letters_but_no_other_failures() -> None:
    async def main() -> None:
        broker, graveyard, shop = broker_of(8), MemoryBroker(), Shop()
        broker.publish(b"oops", b"9")
        shop.refused = {9}
        publisher = Publisher(graveyard.sender(), encode=int)
        report = await run_worker(
            source_of(broker), shop.pipeline, dead_letters=publisher, stop=asyncio.sleep(60)
        )
        assert (report.stopped_by, report.failure) == (StoppedBy.FAILURE, "refused")
        assert (report.exit_code, report.handled, report.dead) == (3, 2, 1)
        assert (broker.backlog(GROUP), graveyard.backlog("people")) == (1, 1)
        with pytest.raises(RuntimeError, match="async with"):
            await publisher.publish(1)  # the worker has left it

        broker.publish(b"oops")
        graveyard.stop()
        refusing = Publisher(graveyard.sender(), encode=int, reconnect=RetryPolicy(attempts=1))
        report = await run_worker(source_of(broker), doubled, dead_letters=refusing)
        assert report.stopped_by is StoppedBy.DEAD_LETTERS
        assert isinstance(report.sink_failure, PublishError)

    run(main())


def test_dead_letters_that_cannot_be_written_stop_the_worker() -> None:
    async def main() -> None:
        for bury in (_fails, _fails_later, _fails_unawaited):
            broker, shop = broker_of(12), Shop()
            shop.refused = {5}
            report = await run_worker(source_of(broker), shop.pipeline, dead_letters=bury)
            assert report.stopped_by is StoppedBy.DEAD_LETTERS
            assert (report.failure, report.sink_failure) == ("refused", "no space")
            assert (report.exit_code, report.dead, report.handled) == (4, 0, 1)
            assert broker.backlog(GROUP) == 8
        broker, shop = broker_of(12), Shop()
        shop.refused = {5}
        with pytest.raises(OSError, match="no space"):
            await run_worker(source_of(broker), shop.pipeline, dead_letters=_raises)
        assert broker.backlog(GROUP) == 8

    run(main())


@pytest.mark.parametrize("is_draining", [False, True])
def test_an_exception_is_raised_after_what_is_open_was_undone(is_draining: bool) -> None:
    async def main() -> None:
        broker, shop = broker_of(12), Shop(seconds=3.0)
        shop.broken = {5}
        stop = asyncio.sleep(4) if is_draining else None
        with pytest.raises(ZeroDivisionError):
            await run_worker(source_of(broker), shop.pipeline, stop=stop)
        assert shop.stored == [0, 1, 2, 3]
        assert shop.undone == [[4, 5, 6, 7]]
        assert broker.backlog(GROUP) == 8

    run(main())


def test_a_broker_that_never_answers_does_not_keep_a_worker_from_stopping() -> None:
    async def main() -> None:
        broker = broker_of(3)
        broker.stop()
        worker = Worker(source_of(broker), doubled)
        running = asyncio.create_task(worker.run(asyncio.sleep(3600)))
        await asyncio.sleep(1800)
        assert not worker.health().ready
        report = await running
        assert report.stopped_by is StoppedBy.STOP
        assert report.statistics.connections == 0
        assert asyncio.get_running_loop().time() < 3602

    run(main())


def test_a_broker_that_dies_with_messages_in_flight_is_given_up_at_the_limit() -> None:
    async def main() -> None:
        broker, shop = broker_of(4), Shop(seconds=5.0)
        asyncio.get_running_loop().call_later(2, broker.stop)
        report = await run_worker(
            source_of(broker), shop.pipeline, stop=asyncio.sleep(30), drain_timeout=10.0
        )
        # It was handled, and could not be acknowledged: another worker will get it, too.
        assert (report.stopped_by, report.handled) == (StoppedBy.DRAIN_TIMEOUT, 1)
        assert report.statistics.in_flight == 4
        assert asyncio.get_running_loop().time() == 40

    run(main())


def test_a_source_that_gives_acknowledgements_up_has_not_ended_in_order() -> None:
    async def main() -> None:
        broker, shop = broker_of(4), Shop(seconds=5.0)
        asyncio.get_running_loop().call_later(2, broker.stop)
        report = await run_worker(
            source_of(broker, drain_timeout=1.0),
            shop.pipeline,
            stop=asyncio.sleep(30),
            drain_timeout=10.0,
        )
        assert (report.stopped_by, report.exit_code) == (StoppedBy.DRAIN_TIMEOUT, 5)
        assert asyncio.get_running_loop().time() < 32

    run(main())


def test_a_second_signal_does_not_wait_for_a_dead_broker() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        broker, shop = broker_of(4), Shop(seconds=5.0)
        loop.call_later(2, broker.stop)
        for seconds in (20, 25):
            loop.call_later(seconds, os.kill, os.getpid(), signal.SIGTERM)
        report = await run_worker(
            source_of(broker, drain_timeout=1000.0),
            shop.pipeline,
            drain_timeout=math.inf,
            stop=asyncio.sleep(500),
        )
        assert (report.stopped_by, report.handled) == (StoppedBy.SECOND_SIGNAL, 1)
        assert loop.time() <= 27

    run(main())


def test_a_broker_for_which_the_attempts_are_used_up_ends_the_worker() -> None:
    async def main() -> None:
        broker = broker_of(3)
        broker.stop()
        source = source_of(broker, reconnect=RetryPolicy(attempts=3, wait=1.0))
        with pytest.raises(ConnectionLost):
            await run_worker(source, doubled)

    run(main())


def test_a_cancellation_undoes_and_propagates() -> None:
    async def main() -> None:
        broker, shop = broker_of(8), Shop(seconds=10.0)
        running = asyncio.create_task(run_worker(source_of(broker), shop.pipeline))
        await asyncio.sleep(15)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert shop.stored == [0, 1, 2, 3]
        assert shop.undone == [[4, 5, 6, 7]]
        assert broker.backlog(GROUP) == 4

    run(main())


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("times", [1, 2])
def test_wherever_it_is_cancelled_nothing_is_acknowledged_that_does_not_stand(
    shared: bool, times: int
) -> None:
    """At each await of the worker, its source and its steps; twice in a row, too."""

    async def scenario(injector: FaultInjector) -> None:
        broker, shop = broker_of(10, shared=shared), Shop(seconds=0.5)
        shop.refused = {5}
        before = signal.getsignal(signal.SIGTERM)
        letters: list[object] = []

        async def bury(letter: object) -> None:
            await asyncio.sleep(0.1)
            letters.append(letter)

        try:
            report = await injector.run(
                run_worker(
                    source_of(broker),
                    shop.pipeline,
                    dead_letters=bury,
                    stop=asyncio.sleep(20),
                    drain_timeout=5.0,
                )
            )
        except asyncio.CancelledError:
            assert injector.fired
        else:
            assert report.stopped_by is StoppedBy.STOP
            assert broker.backlog(GROUP) == 0
        acknowledged = set(range(10 - broker.backlog(GROUP)))
        if letters:
            acknowledged -= {4, 5, 6, 7}
        assert acknowledged <= set(shop.stored)
        assert len(shop.stored) == len(set(shop.stored))
        assert signal.getsignal(signal.SIGTERM) == before

    inject_everywhere(scenario, times=times)


# The journal.


@contextlib.asynccontextmanager
async def dead_shop(path: Path, shop: Shop) -> AsyncIterator[SqliteJournal]:
    """A journal with an action whose owner has gone without undoing it."""
    dead = SqliteJournal(path)
    scope = CompensationScope("dead", journal=dead)
    await scope.register(shop.remove, [77])
    await dead.close()
    with pytest.warns(ResourceWarning):
        del scope
    async with SqliteJournal(path, lazy_commits=True) as journal:
        yield journal


def test_what_a_dead_process_left_is_undone_before_the_first_message(tmp_path: Path) -> None:
    async def main() -> None:
        broker, shop = broker_of(4), Shop()
        shop.stored = [77]
        first: list[object] = []
        async with dead_shop(tmp_path / "j.db", shop) as journal:
            report = await run_worker(
                source_of(broker),
                lambda messages, ctx: shop.pipeline(
                    messages.tap(lambda _: first.append(list(shop.undone))), ctx
                ),
                name="shop",
                journal=journal,
                registry=shop.registry,
                stop=asyncio.sleep(9),
            )
            assert [action.state for saga in await journal.sagas() for action in saga.actions] == [
                "done"
            ]
        assert first[0] == [[77]]
        assert (report.recovered, report.stuck) == (1, 0)
        assert shop.stored == [0, 1, 2, 3]

    run(main())


def test_a_machine_that_dies_while_others_work_is_undone_by_them(tmp_path: Path) -> None:
    async def main() -> None:
        broker, shop = broker_of(4), Shop()
        async with SqliteJournal(tmp_path / "j.db") as journal:
            running = asyncio.create_task(
                run_worker(
                    source_of(broker),
                    shop.pipeline,
                    journal=journal,
                    registry=shop.registry,
                    recover_every=10.0,
                    stop=asyncio.sleep(100),
                )
            )
            await asyncio.sleep(42)
            async with dead_shop(tmp_path / "j.db", shop):
                await asyncio.sleep(11)
            assert shop.undone == [[77]]
            assert (await running).recovered == 1

    run(main())


def test_an_undo_that_fails_for_long_does_not_keep_a_worker_from_reading(tmp_path: Path) -> None:
    async def main() -> None:
        broker, shop = broker_of(4), Shop()

        async def undo(numbers: list[int]) -> Result[None, str]:
            return Failure(f"the shop is closed: {numbers}")

        registry = CompensationRegistry()
        registry.compensation("remove", retry=RetryPolicy(attempts=9, wait=60.0))(undo)
        async with dead_shop(tmp_path / "j.db", shop) as journal:
            report = await run_worker(
                source_of(broker),
                doubled,
                journal=journal,
                registry=registry,
                recover_every=5.0,
                stop=asyncio.sleep(30),
            )
        assert (report.handled, report.stuck) == (4, 0)
        assert broker.backlog(GROUP) == 0
        assert asyncio.get_running_loop().time() < 32

    run(main())


def test_nothing_is_acknowledged_before_its_commit_is_durable(tmp_path: Path) -> None:
    async def main() -> None:
        broker, shop = broker_of(8), Shop()
        async with SqliteJournal(tmp_path / "j.db", lazy_commits=True) as journal:
            flushed: list[int] = []
            flush = journal.flush

            async def seen() -> None:
                flushed.append(8 - broker.backlog(GROUP))
                await flush()

            vars(journal)["flush"] = seen
            await run_worker(
                source_of(broker), shop.pipeline, journal=journal, stop=asyncio.sleep(9)
            )
        # The last one is the end of the worker's own context.
        assert flushed == [0, 4, 8]

    run(main())


class DeadJournal(SqliteJournal):
    """A journal whose disk fails, from a time on."""

    is_dead = False

    async def record(self, *args: Any) -> None:
        if self.is_dead:
            raise JournalUnavailable(str(self), "no space")
        await super().record(*args)

    async def claim(self, *args: Any, **how: Any) -> Any:
        if self.is_dead:
            raise JournalUnavailable(str(self), "no space")
        return await super().claim(*args, **how)

    async def flush(self) -> None:
        if self.is_dead:
            raise JournalUnavailable(str(self), "no space")
        await super().flush()


def test_a_journal_that_is_down_ends_the_worker_and_nothing_is_acknowledged(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        # From the start; when a window is committed; when the next one begins.
        for number, dies_after in enumerate((None, 1.5, 3.5)):
            broker, shop = broker_of(12), Shop()
            async with DeadJournal(tmp_path / f"{number}.db") as journal:
                if dies_after is None:
                    journal.is_dead = True
                else:
                    loop.call_later(dies_after, setattr, journal, "is_dead", True)
                loop.call_later(5, broker.publish, b"12")
                worker = Worker(
                    source_of(broker), shop.pipeline, journal=journal, registry=shop.registry
                )
                with pytest.raises(JournalError):
                    await worker.run()
                assert worker.statistics().connections == (dies_after is not None)
                unacknowledged = broker.backlog(GROUP)
                assert unacknowledged == (12, 8, 1)[number]
                assert set(range(12 - unacknowledged)) <= set(shop.stored)
            await asyncio.sleep(9)

    run(main())


def test_a_source_that_awaits_something_else_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async def other() -> None: ...

        async with SqliteJournal(tmp_path / "j.db") as journal:
            with pytest.raises(InvalidArgument, match="another function"):
                await run_worker(
                    source_of(broker_of(0), before_ack=other), doubled, journal=journal
                )
            same = source_of(broker_of(2), before_ack=journal.flush)
            report = await run_worker(same, doubled, journal=journal, stop=asyncio.sleep(2))
            assert report.handled == 2
            async with source_of(broker_of(0)) as entered:
                with pytest.raises(RuntimeError, match="too late"):
                    await run_worker(entered, doubled, journal=journal)

    run(main())


# What is refused, and what can be seen.


def not_marked(messages: Messages) -> ResultStream[Any, Any]:
    return ResultStream.of(messages.successes())


def run_already(messages: Messages) -> Any:
    return messages.run()


async def as_coroutine(messages: Messages) -> Any:
    return messages


# The outcome that is refused is never awaited.
@pytest.mark.filterwarnings("ignore:coroutine", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_pipeline_that_would_acknowledge_nothing_is_refused() -> None:
    async def main() -> None:
        with pytest.raises(InvalidArgument, match=r"^not_marked\(\) returned a stream that is not"):
            await run_worker(source_of(broker_of(1)), not_marked)
        with pytest.raises(
            TypeError, match=r"^run_already\(\) returned what a terminal returns: it must"
        ):
            await run_worker(source_of(broker_of(1)), run_already)
        with pytest.raises(TypeError, match=r"^as_coroutine\(\) must return a stream, not a corou"):
            await run_worker(source_of(broker_of(1)), as_coroutine)  # type: ignore[arg-type]

    run(main())


def test_arguments_are_checked_at_the_call() -> None:
    broker = broker_of(0)
    hows: list[dict[str, Any]] = [
        {"recover_every": 0},
        {"drain_timeout": -1},
        {"stuck_after": 0},
    ]
    for how in hows:
        with pytest.raises(InvalidArgument, match=next(iter(how))):
            Worker(source_of(broker), doubled, **how)
    with pytest.raises(InvalidArgument, match="pass a journal, too"):
        Worker(source_of(broker), doubled, registry=CompensationRegistry())
    with pytest.raises(TypeError, match="a worker reads a Source"):
        Worker(broker.driver(GROUP), doubled)  # type: ignore[call-overload]


@pytest.mark.parametrize("stop", [threading.Event(), 9.0, asyncio.sleep])
def test_what_cannot_stop_it_is_refused_before_anything_begins(stop: Any) -> None:
    async def main() -> None:
        broker = broker_of(1)
        with pytest.raises(
            TypeError, match=r"^stop= takes an asyncio\.Event or an awaitable, not "
        ):
            await run_worker(source_of(broker), doubled, stop=stop)
        assert broker.backlog(GROUP) == 1

    run(main())


@pytest.mark.filterwarnings("ignore:coroutine", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stop_that_is_not_awaited_because_the_worker_is_refused_is_closed() -> None:
    async def main() -> None:
        stops = [asyncio.sleep(1), asyncio.sleep(1)]
        with pytest.raises(InvalidArgument):
            await run_worker(source_of(broker_of(1)), doubled, drain_timeout=-1, stop=stops[0])
        with pytest.raises(TypeError, match="run_already"):
            await run_worker(source_of(broker_of(1)), run_already, stop=stops[1])
        assert [inspect.getcoroutinestate(stop) for stop in stops] == ["CORO_CLOSED"] * 2

    run(main())


def test_a_worker_runs_once() -> None:
    async def main() -> None:
        worker = Worker(source_of(broker_of(1)), doubled)
        await worker.run(asyncio.sleep(1))
        assert worker.health().state == "ended"
        with pytest.raises(RuntimeError, match="runs once"):
            await worker.run()

    run(main())


def test_a_pipeline_that_is_slow_is_alive_however_long_its_messages_wait() -> None:
    async def main() -> None:
        async def slow(message: Message[int]) -> Result[int, str]:
            await asyncio.sleep(60)
            return Success(message.value)

        worker = Worker(
            source_of(broker_of(9)), lambda messages: messages.bind_async(slow), stuck_after=100.0
        )
        running = asyncio.create_task(worker.run(asyncio.sleep(9 * 60)))
        await asyncio.sleep(8 * 60 + 30)
        health = worker.health()
        assert health.oldest_unacknowledged > 500
        assert 25 < health.stalled_for < 35
        assert health.alive
        await running

    run(main())


def test_a_pipeline_that_is_stuck_is_not_alive() -> None:
    async def main() -> None:
        shop = Shop(seconds=400.0)
        worker = Worker(source_of(broker_of(4)), shop.pipeline, stuck_after=100.0)
        states: list[tuple[str, bool, bool]] = []

        def look() -> None:
            health = worker.health()
            states.append((health.state, health.ready, health.alive))

        look()
        running = asyncio.create_task(worker.run(asyncio.sleep(380)))
        for seconds in (50, 100, 300):
            await asyncio.sleep(seconds)
            look()
        await running
        assert states == [
            ("new", False, True),
            ("running", True, True),
            ("running", True, False),
            ("ended", False, True),
        ]
        assert worker.statistics().acknowledged == 4
        assert worker.health().alive

    run(main())
