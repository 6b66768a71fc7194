"""`per_partition`: a pipeline for each partition that is owned, on virtual time."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from returns.result import Failure, Result, Success

from returns_pipeline import CompensationRegistry, ResultStream, StepContext
from returns_pipeline.connectors import Message, Source
from returns_pipeline.errors import ConnectionLost, InvalidArgument
from returns_pipeline.journal import SqliteJournal
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.sources import from_iterable
from returns_pipeline.testing import MemoryBroker, run
from returns_pipeline.worker import StoppedBy, Worker, run_worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from returns_pipeline.connectors import Driver

Messages = ResultStream[Message[int], Any]
GROUP = "shop"


def broker_of(count: int, *, partitions: int = 3, shared: bool = False) -> MemoryBroker:
    """Message n is in partition n % partitions."""
    broker = MemoryBroker(partitions=partitions, shared=shared)
    broker.publish(*[str(number).encode() for number in range(count)])
    return broker


def source_of(broker: MemoryBroker, **how: Any) -> Source[int, Any]:
    return Source(broker.driver(GROUP), decode=int, **how)


class Shop:
    """A pipeline that stores windows, and undoes those that are not committed.

    Attributes:
        stored: The numbers whose effect stands, in order, by partition.
        done: The numbers whose effect was ever there, in order, by partition.
        undone: The windows that were undone.
        running: How many pipelines are there, by partition.
        stuck: Numbers on which a window waits until `go_on`.
        contexts: The names of the contexts that pipelines got.
    """

    def __init__(self, *, window: int = 2, timeout: float = 1.0, seconds: float = 0.1) -> None:
        self.stored: dict[str, list[int]] = defaultdict(list)
        self.done: dict[str, list[int]] = defaultdict(list)
        self.undone: list[list[int]] = []
        self.stuck: set[int] = set()
        self.refused: set[int] = set()
        self.broken: set[int] = set()
        self.contexts: list[str] = []
        self.window, self.timeout, self.seconds = window, timeout, seconds
        self.go_on = asyncio.Event()
        self.registry = CompensationRegistry()
        self.remove = self.registry.compensation("remove")(self._remove)

    async def _remove(self, partition: str, numbers: list[int]) -> None:
        self.undone.append(numbers)
        stored = self.stored[partition]
        for number in numbers:  # its own effect alone: another worker may have had it, too
            stored.remove(number)

    async def persist(self, window: list[Message[int]], step: StepContext) -> Result[int, str]:
        (partition,) = {message.partition for message in window}
        numbers = [message.value for message in window]
        await step.register(self.remove, partition, numbers)
        self.stored[partition] += numbers
        self.done[partition] += numbers
        await asyncio.sleep(self.seconds)
        if self.stuck.intersection(numbers):
            await self.go_on.wait()
        if self.broken.intersection(numbers):
            raise ZeroDivisionError
        return Failure("refused") if self.refused.intersection(numbers) else Success(len(numbers))

    def pipeline(self, messages: Messages, ctx: StepContext) -> ResultStream[int, Any]:
        self.contexts.append(ctx.name)
        return messages.chunks_or_timeout(self.window, self.timeout).bind_step(self.persist, ctx)

    async def run(self, source: Source[int, Any], **how: Any) -> Any:
        return await run_worker(source, self.pipeline, per_partition=True, **how)


def after(seconds: float) -> Awaitable[None]:
    return asyncio.sleep(seconds)


def of(partition: int, count: int, partitions: int = 3) -> list[int]:
    return [number for number in range(count) if number % partitions == partition]


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.05)
    pytest.fail("it never comes true")


# One for each.


def test_each_partition_has_a_pipeline_and_windows_of_its_own() -> None:
    async def main() -> None:
        broker, shop = broker_of(30), Shop(window=4)
        report = await shop.run(source_of(broker), stop=after(9))
        assert report.stopped_by is StoppedBy.STOP
        assert shop.stored == {f"memory-{number}": of(number, 30) for number in range(3)}
        assert report.partitions == {f"memory-{number}": 3 for number in range(3)}
        assert (report.handled, report.partition) == (9, None)
        assert sorted(shop.contexts) == [f"pipeline memory-{number}" for number in range(3)]
        assert broker.backlog(GROUP) == 0

    run(main())


def test_a_partition_that_is_stuck_does_not_stop_the_others() -> None:
    async def main() -> None:
        broker, shop = broker_of(600), Shop(seconds=0.01)
        shop.stuck = {0}
        stop = asyncio.Event()
        working = asyncio.ensure_future(shop.run(source_of(broker, max_in_flight=30), stop=stop))
        await asyncio.sleep(30)
        assert shop.stored == {
            "memory-0": [0, 3],
            "memory-1": of(1, 600),
            "memory-2": of(2, 600),
        }
        assert broker.backlog(GROUP) == 200
        shop.go_on.set()
        await asyncio.sleep(30)
        stop.set()
        report = await working
        assert shop.stored["memory-0"] == of(0, 600)
        assert report.statistics.acknowledged == 600
        assert broker.backlog(GROUP) == 0

    run(main())


def test_what_is_stuck_holds_no_more_than_its_share_of_the_credit() -> None:
    async def main() -> None:
        broker, shop = broker_of(600), Shop(seconds=0.01)
        shop.stuck = {0}
        worker = Worker(
            source_of(broker, max_in_flight=30), shop.pipeline, per_partition=True, stuck_after=20.0
        )
        working = asyncio.create_task(worker.run(after(60)))
        await asyncio.sleep(15)
        held = worker.statistics().in_flight + worker.statistics().buffered
        assert 2 <= held <= 10
        assert worker.health().alive
        assert worker.health().stuck == ()
        assert not worker.statistics().out_of_credit
        await asyncio.sleep(15)
        # The others are done, and have nothing that waits.
        assert list(worker.statistics().stalled_partitions) == ["memory-0"]
        health = worker.health()
        assert (health.alive, health.stuck) == (False, ("memory-0",))
        assert health.stalled_for > 20
        shop.go_on.set()
        assert (await working).statistics.acknowledged == 600
        assert worker.health().stuck == ()

    run(main())


def test_one_that_holds_all_takes_no_room_from_a_partition_that_is_assigned_later() -> None:
    async def main() -> None:
        broker, shop = broker_of(400, partitions=2), Shop(seconds=0.01)
        shop.stuck = {0}
        other = source_of(broker)
        other_works = asyncio.create_task(
            run_worker(source_of(broker), lambda messages: messages.map_async(_forever))
        )
        await asyncio.sleep(1)  # it has both, and keeps memory-0
        worker = Worker(source_of(broker, max_in_flight=20), shop.pipeline, per_partition=True)
        stop = asyncio.Event()
        working = asyncio.create_task(worker.run(stop))
        del other
        await asyncio.sleep(30)
        other_works.cancel()
        await asyncio.wait([other_works])
        await asyncio.sleep(30)
        assert shop.stored["memory-0"] == [0, 2]
        assert shop.stored["memory-1"] == of(1, 400, 2)
        shop.go_on.set()
        await asyncio.sleep(30)
        stop.set()
        await working
        assert broker.backlog(GROUP) == 0

    run(main())


async def _forever(message: Message[int]) -> int:
    await asyncio.get_running_loop().create_future()
    return message.value


def test_a_window_larger_than_a_share_is_emitted() -> None:
    async def main() -> None:
        broker, shop = broker_of(60), Shop(window=1000, timeout=math.inf)
        await shop.run(source_of(broker, max_in_flight=15), stop=after(30))
        assert shop.stored == {f"memory-{number}": of(number, 60) for number in range(3)}
        assert broker.backlog(GROUP) == 0

    run(main())


# Partitions that move.


class Member:
    """A worker of the group, with a shop that all share.

    Attributes:
        driver: What it reads.
        worker: The worker.
        task: The task that runs it.
    """

    def __init__(self, broker: MemoryBroker, shop: Shop, **how: Any) -> None:
        driver: Any = broker.driver(GROUP)
        self.driver: Driver = driver
        acknowledge = driver.ack

        async def ack(messages: Sequence[Message[bytes]]) -> None:
            for message in messages:  # of this partition, and not of another
                assert int(message.value) in shop.stored[message.partition]
            await acknowledge(messages)

        driver.ack = ack
        self._stop = asyncio.Event()
        source = Source(self.driver, decode=int, settle_timeout=5.0, **how)
        self.worker = Worker(source, shop.pipeline, per_partition=True)
        self.task = asyncio.create_task(self.worker.run(self._stop))

    async def leave(self) -> Any:
        self._stop.set()
        return await self.task


def test_a_revocation_ends_one_pipeline_and_leaves_the_windows_of_others_open() -> None:
    async def main() -> None:
        broker = broker_of(9)
        here, there = Shop(window=100, timeout=50.0), Shop(window=100, timeout=50.0)
        first = Member(broker, here)
        await asyncio.sleep(5)
        second = Member(broker, there)
        await asyncio.sleep(5)
        assert here.stored == {"memory-1": [1, 4, 7]}
        assert first.worker.statistics().acknowledged == 3
        broker.publish(b"9", b"10", b"11")
        await first.leave()
        # What came in the meantime has joined the windows that were open.
        assert here.done == {
            "memory-0": [0, 3, 6, 9],
            "memory-1": [1, 4, 7],
            "memory-2": [2, 5, 8, 11],
        }
        assert here.undone == []
        await second.leave()
        assert there.done == {"memory-1": [10]}
        assert broker.backlog(GROUP) == 0

    run(main())


def test_a_pipeline_that_is_stuck_at_its_revocation_is_undone_while_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        broker, here, there = broker_of(300), Shop(seconds=0.5), Shop()
        here.stuck = {1}
        first = Member(broker, here)
        await asyncio.sleep(5)
        second = Member(broker, there)
        await asyncio.sleep(4)  # it waits for what is in flight
        at = len(here.stored["memory-0"])
        assert 10 < at < 90
        assert here.stored["memory-1"] == [1, 4]
        await asyncio.sleep(4)
        assert len(here.stored["memory-0"]) > at
        assert here.stored["memory-1"] == []
        assert here.undone == [[1, 4]]
        assert first.worker.statistics().fenced >= 2
        await asyncio.sleep(40)
        assert there.stored == {"memory-1": of(1, 300)}
        reports = [await first.leave(), await second.leave()]
        assert [report.stopped_by for report in reports] == [StoppedBy.STOP] * 2
        assert here.stored == {"memory-0": of(0, 300), "memory-1": [], "memory-2": of(2, 300)}
        assert broker.backlog(GROUP) == 0

    with caplog.at_level(logging.WARNING):
        run(main())
    assert "the pipeline of memory-1 is cancelled: the partition was lost" in caplog.messages


def test_a_partition_that_comes_back_gets_a_new_pipeline() -> None:
    async def main() -> None:
        broker, shop = broker_of(300), Shop(seconds=0.3)
        first = Member(broker, shop)
        await asyncio.sleep(3)
        second = Member(broker, shop)
        await asyncio.sleep(3)
        await second.leave()
        await asyncio.sleep(20)
        report = await first.leave()
        assert shop.contexts.count("pipeline memory-0") == 1
        assert shop.contexts.count("pipeline memory-1") == 3
        assert shop.done == {f"memory-{number}": of(number, 300) for number in range(3)}
        assert report.partitions["memory-0"] == 50
        assert 0 < report.partitions["memory-1"] < 50
        assert broker.backlog(GROUP) == 0

    run(main())


def test_a_new_pipeline_waits_until_the_old_one_of_its_partition_has_undone_its_work() -> None:
    async def main() -> None:
        broker, shop = broker_of(30), Shop()
        shop.stuck = {1}
        ended: list[float] = []

        async def slow_remove(partition: str, numbers: list[int]) -> None:
            await asyncio.sleep(10)
            await shop._remove(partition, numbers)
            ended.append(asyncio.get_running_loop().time())

        shop.remove = shop.registry.compensation("slowly")(slow_remove)
        first = Member(broker, shop)
        await asyncio.sleep(5)
        assert shop.stored["memory-1"] == [1, 4]
        shop.stuck.clear()
        broker.evict(first.driver)  # it learns of it, and joins again
        await asyncio.sleep(9)
        assert shop.contexts.count("pipeline memory-1") == 1
        assert shop.done["memory-1"] == [1, 4]
        await asyncio.sleep(9)
        assert len(ended) == 1
        await first.leave()
        assert shop.done["memory-1"] == [1, 4, *of(1, 30)]
        assert shop.stored == {f"memory-{number}": of(number, 30) for number in range(3)}
        assert broker.backlog(GROUP) == 0

    run(main())


def test_a_broken_connection_leaves_pipelines_and_their_windows_alone() -> None:
    async def main() -> None:
        broker, shop = broker_of(9), Shop(window=100, timeout=20.0)
        first = Member(broker, shop)
        await asyncio.sleep(5)
        broker.disconnect()
        broker.publish(*[str(number).encode() for number in range(9, 30)])
        await asyncio.sleep(30)
        await first.leave()
        assert len(shop.contexts) == 3
        assert shop.done == {f"memory-{number}": of(number, 30) for number in range(3)}
        assert broker.backlog(GROUP) == 0

    run(main())


def test_a_broken_connection_does_not_matter_while_a_partition_is_paused() -> None:
    async def main() -> None:
        broker, shop = broker_of(60), Shop()
        shop.stuck = {0}
        first = Member(broker, shop, max_in_flight=12)
        await asyncio.sleep(5)
        broker.disconnect()
        await asyncio.sleep(10)
        assert first.worker.statistics().connections == 2
        shop.go_on.set()
        await asyncio.sleep(10)
        await first.leave()
        assert shop.done == {f"memory-{number}": of(number, 60) for number in range(3)}
        assert broker.backlog(GROUP) == 0

    run(main())


# Ends.


def test_all_are_drained_side_by_side() -> None:
    async def main() -> None:
        broker, shop = broker_of(6), Shop(window=9, timeout=math.inf, seconds=7.0)
        report = await shop.run(source_of(broker), stop=after(5), drain_timeout=10.0)
        assert report.stopped_by is StoppedBy.STOP
        assert report.handled == 3
        assert 12 <= asyncio.get_running_loop().time() < 15
        assert broker.backlog(GROUP) == 0

    run(main())


def test_one_that_does_not_end_in_time_is_undone_and_the_others_are_acknowledged() -> None:
    async def main() -> None:
        broker, shop = broker_of(6), Shop()
        shop.stuck = {2}
        report = await shop.run(source_of(broker), stop=after(5), drain_timeout=10.0)
        assert report.stopped_by is StoppedBy.DRAIN_TIMEOUT
        assert shop.stored == {"memory-0": [0, 3], "memory-1": [1, 4], "memory-2": []}
        assert shop.undone == [[2, 5]]
        assert broker.backlog(GROUP) == 2

    run(main())


def test_a_worker_that_gets_no_message_ends_as_any_other() -> None:
    async def main() -> None:
        report = await Shop().run(source_of(broker_of(0)), stop=after(5))
        assert (report.stopped_by, report.handled, report.partitions) == (StoppedBy.STOP, 0, {})
        stop = asyncio.Event()
        stop.set()
        report = await Shop().run(source_of(broker_of(9)), stop=stop)
        assert (report.stopped_by, report.handled) == (StoppedBy.STOP, 0)

    run(main())


def test_a_failure_of_one_stops_all_and_the_report_says_whose_it_is() -> None:
    async def main() -> None:
        broker, shop = broker_of(30), Shop()
        shop.refused, shop.stuck = {10}, {2}
        report = await shop.run(source_of(broker))
        assert (report.stopped_by, report.failure) == (StoppedBy.FAILURE, "refused")
        assert (report.partition, report.exit_code) == ("memory-1", 3)
        assert shop.stored["memory-1"] == [1, 4]
        assert shop.stored["memory-2"] == []
        assert [2, 5] in shop.undone
        left = sum(
            len(of(number, 30)) - len(shop.stored[f"memory-{number}"]) for number in range(3)
        )
        assert broker.backlog(GROUP) == left

    run(main())


def test_an_exception_of_one_is_raised_after_all_were_undone_and_names_its_partition() -> None:
    async def main() -> None:
        broker, shop = broker_of(30), Shop()
        shop.broken, shop.stuck = {10}, {2}
        with pytest.raises(ZeroDivisionError) as raised:
            await shop.run(source_of(broker))
        assert "in step pipeline memory-1" in raised.value.__notes__[-1]
        assert shop.stored["memory-1"] == [1, 4]
        assert shop.stored["memory-2"] == []
        left = sum(
            len(of(number, 30)) - len(shop.stored[f"memory-{number}"]) for number in range(3)
        )
        assert broker.backlog(GROUP) == left

    run(main())


def test_a_second_exception_becomes_a_note_on_the_first() -> None:
    async def main() -> None:
        async def step(message: Message[int]) -> int:
            try:
                await asyncio.sleep(1 if message.value == 0 else 9)
            finally:
                if message.value == 1:
                    raise OSError("and that")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError) as raised:
            await run_worker(
                source_of(broker_of(3)), lambda each: each.map_async(step), per_partition=True
            )
        assert raised.value.__notes__ == [
            "in step <lambda> memory-0",
            "while all were stopped, OSError('and that') was raised in the pipeline of memory-1",
        ]

    run(main())


def test_a_step_that_awaits_what_is_cancelled_ends_the_worker_as_it_does_without() -> None:
    async def main() -> None:
        async def step(message: Message[int]) -> int:
            gone = asyncio.get_running_loop().create_future()
            gone.cancel()
            await gone
            return message.value

        with pytest.raises(asyncio.CancelledError):
            await run_worker(
                source_of(broker_of(3)), lambda each: each.map_async(step), per_partition=True
            )

    run(main())


def test_a_failure_goes_to_the_dead_letters_and_holds_up_only_its_partition() -> None:
    async def main() -> None:
        broker, shop = broker_of(60), Shop(seconds=0.01)
        shop.refused = {4}
        buried: list[object] = []
        times: list[float] = []

        async def bury(error: object) -> None:
            await asyncio.sleep(20)
            buried.append(error)
            times.append(asyncio.get_running_loop().time())
            assert shop.stored["memory-0"] == of(0, 60)
            assert shop.stored["memory-1"] == []
            assert broker.backlog(GROUP) == 20

        report = await shop.run(source_of(broker), dead_letters=bury, stop=after(30))
        assert buried == ["refused"]
        assert (report.dead, report.stopped_by) == (1, StoppedBy.STOP)
        assert shop.stored["memory-1"] == of(1, 60)[2:]
        assert broker.backlog(GROUP) == 0

    run(main())


def test_a_pipeline_that_ends_by_itself_ends_the_worker_and_the_others_are_drained() -> None:
    async def main() -> None:
        broker, shop = broker_of(9), Shop(window=9, timeout=math.inf)
        enough = asyncio.Event()

        def pipeline(messages: Messages, ctx: StepContext) -> ResultStream[int, Any]:
            if ctx.name.endswith("memory-1"):
                messages = messages.drain_on(enough)
            return shop.pipeline(messages, ctx)

        asyncio.get_running_loop().call_later(5, enough.set)
        report = await run_worker(source_of(broker), pipeline, per_partition=True)
        assert (report.stopped_by, report.handled) == (StoppedBy.END, 3)
        assert broker.backlog(GROUP) == 0

    run(main())


def test_a_failure_of_the_source_is_raised_as_it_is() -> None:
    async def main() -> None:
        broker, shop = broker_of(9), Shop()
        soon = RetryPolicy(2, wait=0.1)
        asyncio.get_running_loop().call_later(5, broker.stop)
        with pytest.raises(ConnectionLost) as raised:
            await shop.run(source_of(broker, reconnect=soon))
        assert not any("while all" in note for note in raised.value.__notes__)
        assert broker.backlog(GROUP) == 0
        with pytest.raises(ConnectionLost):  # before there is a partition
            await shop.run(source_of(broker, reconnect=soon))

    run(main())


def test_a_cancellation_undoes_all_and_propagates() -> None:
    async def main() -> None:
        broker, shop = broker_of(6), Shop()
        shop.stuck = {0, 1, 2}
        working = asyncio.create_task(shop.run(source_of(broker)))
        await asyncio.sleep(5)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert sorted(shop.undone) == [[0, 3], [1, 4], [2, 5]]
        assert broker.backlog(GROUP) == 6

    run(main())


def test_a_queue_that_is_shared_has_no_partitions_to_keep_apart() -> None:
    source = source_of(broker_of(3, shared=True))
    with pytest.raises(
        InvalidArgument, match=r"^memory shop is shared by all its readers: it has no"
    ):
        Worker(source, Shop().pipeline, per_partition=True)


def test_a_pipeline_that_would_acknowledge_nothing_is_refused_at_the_first_message() -> None:
    async def main() -> None:
        broker = broker_of(3, partitions=1)
        with pytest.raises(InvalidArgument, match=r"not made of the messages") as raised:
            await run_worker(
                source_of(broker),
                lambda messages: ResultStream.of(from_iterable([messages])),
                per_partition=True,
            )
        assert raised.value.__notes__ == ["in step <lambda> memory-0"]
        assert broker.backlog(GROUP) == 3

    run(main())


# The journal.


def test_each_partition_has_a_saga_of_its_own_in_the_journal(tmp_path: Path) -> None:
    async def main() -> None:
        broker, shop = broker_of(6), Shop()
        shop.stuck = {0, 1, 2}
        async with SqliteJournal(tmp_path / "journal.db", lazy_commits=True) as journal:
            working = asyncio.create_task(
                shop.run(source_of(broker), name="shop", journal=journal, stop=after(20))
            )
            await asyncio.sleep(5)
            names = [saga.name for saga in await journal.sagas()]
            assert sorted(names) == [f"shop memory-{number}" for number in range(3)]
            shop.go_on.set()
            assert (await working).handled == 3
            assert await journal.sagas() == []
        assert broker.backlog(GROUP) == 0

    run(main())


def test_nothing_is_acknowledged_before_its_commit_is_durable(tmp_path: Path) -> None:
    class Careful(SqliteJournal):
        flushed_at = -1.0

        async def flush(self) -> None:
            await super().flush()
            self.flushed_at = asyncio.get_running_loop().time()

    async def main() -> None:
        broker, shop = broker_of(60), Shop()
        driver = broker.driver(GROUP)
        acknowledge = driver.ack
        async with Careful(tmp_path / "journal.db", lazy_commits=True) as journal:

            async def ack(messages: Any) -> None:
                assert journal.flushed_at == asyncio.get_running_loop().time()
                for message in messages:
                    assert int(message.value) in shop.stored[message.partition]
                await acknowledge(messages)

            driver.ack = ack  # type: ignore[method-assign]
            await shop.run(Source(driver, decode=int), journal=journal, stop=after(20))
        assert broker.backlog(GROUP) == 0

    run(main())


# The law.


@settings(max_examples=12)
@given(
    moves=st.lists(
        st.tuples(
            st.sampled_from(["join", "leave", "kill", "evict", "disconnect", "publish"]),
            st.integers(0, 3),
            st.floats(0.0, 6.0),
        ),
        max_size=8,
    ),
    stuck=st.sets(st.integers(0, 11), max_size=1),
    partitions=st.integers(1, 4),
    credit=st.integers(1, 12),
    seconds=st.sampled_from([0.0, 0.3, 2.0]),
)
def test_whatever_joins_or_dies_each_effect_is_there_in_order_and_acknowledged_after_that(
    moves: list[tuple[str, int, float]],
    stuck: set[int],
    partitions: int,
    credit: int,
    seconds: float,
) -> None:
    async def main() -> None:
        broker = broker_of(12, partitions=partitions)
        shop, members, count = Shop(window=3, seconds=seconds), list[Member](), 12
        shop.stuck = stuck

        def join() -> None:
            members.append(Member(broker, shop, max_in_flight=credit, drain_timeout=5.0))

        def check() -> None:
            for number in range(partitions):
                ours, done = of(number, count, partitions), shop.done[f"memory-{number}"]
                first = [each for place, each in enumerate(done) if each not in done[:place]]
                assert first == ours[: len(first)]
                log = broker._group(GROUP).logs[f"memory-{number}"]
                assert set(ours[: log.committed]) <= set(shop.stored[log.name])

        join()
        for move, which, wait in moves:
            member = members[which % len(members)] if members else None
            match move:
                case "join":
                    join()
                case "publish":
                    broker.publish(*[str(count + each).encode() for each in range(partitions)])
                    count += partitions
                case "disconnect":
                    broker.disconnect()
                case _ if member is None:
                    pass
                case "leave":
                    members.remove(member)
                    await member.leave()
                case "kill":
                    members.remove(member)
                    member.task.cancel()
                    await asyncio.wait([member.task])
                case _:
                    broker.evict(member.driver)
            await asyncio.sleep(wait)
            check()
        join()
        shop.go_on.set()
        await until(lambda: broker.backlog(GROUP) == 0)
        for member in members:
            assert (await member.leave()).exit_code == 0
        check()
        for number in range(partitions):
            assert set(shop.stored[f"memory-{number}"]) == set(of(number, count, partitions))
        assert broker.backlog(GROUP) == 0

    run(main())
