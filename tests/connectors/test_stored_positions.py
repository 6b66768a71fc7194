"""Positions that are stored with their effects: each message has its effect once, after any crash.

The storage is in memory here, and a crash is a cancellation that nothing is saved from.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from connecting import received
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_driver import ScriptedDriver, message
from stored_positions import Storage, StoredPositions

from returns_pipeline import StepContext, err, ok
from returns_pipeline._engine.marks import MarksRefused
from returns_pipeline._engine.spans import Spans, Stretch
from returns_pipeline.compensation.protocol import TakenPartition
from returns_pipeline.connectors import Message, Source
from returns_pipeline.errors import InvalidArgument, PartitionReplaced, PartitionsLost
from returns_pipeline.journal import SqliteJournal
from returns_pipeline.testing import MemoryBroker, run
from returns_pipeline.windows import TumblingWindows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from returns.result import Result

    from returns_pipeline import ResultStream
    from returns_pipeline.connectors import Ownership

    Chain = Callable[[ResultStream[Message[int], Any]], ResultStream[Any, Any]]


# Spans.


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5)), max_size=8),
    st.integers(0, 30),
)
def test_spans_hold_what_was_added_and_are_as_few_as_can_be(
    added: list[tuple[int, int]], place: int
) -> None:
    spans = Spans()
    for after, count in added:
        spans = spans.with_all([Stretch((after,), (after + count,))])
    assert ((place,) in spans) == any(a < place <= a + n for a, n in added)
    assert Spans.from_json(spans.to_json()) == spans
    stretches = list(spans)
    for before, later in itertools.pairwise(stretches):
        assert before.last < later.after


# The law.

COUNT = 30


def _sluggish(value: Message[int]) -> Any:
    async def later() -> Result[Message[int], str]:
        await asyncio.sleep(value.value % 5 / 10)
        return ok(value)

    return later()


LINKS: dict[str, Chain] = {
    "filter": lambda s: s.filter(lambda m: m.value % 4 != 1),
    "fail": lambda s: s.bind(lambda m: ok(m) if m.value % 5 != 2 else err(m)),
    "reorder": lambda s: s.bind_async(_sluggish, concurrency=4, ordered=False),
    "ordered": lambda s: s.bind_async(_sluggish, concurrency=3),
    "prefetch": lambda s: s.prefetch(3),
}
WINDOWS: dict[str, Chain] = {
    "none": lambda s: s,
    "chunks": lambda s: s.chunks_or_timeout(3, 0.5),
    "keyed": lambda s: s.keyed_chunks(3, 0.7, key=lambda m: m.value % 3),
    "sessions": lambda s: s.sessions(0.2, n=4, key=lambda m: m.value % 2),
}


@settings(max_examples=60)
@given(
    links=st.lists(st.sampled_from(sorted(LINKS)), max_size=3),
    window=st.sampled_from(sorted(WINDOWS)),
    concurrency=st.integers(1, 3),
    ordered=st.booleans(),
    crashes=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 20)), max_size=4),
    credit=st.integers(1, 12),
    failing=st.booleans(),
    apart=st.booleans(),
)
def test_each_message_has_its_effect_once_whatever_the_chain_and_the_crashes(
    links: list[str],
    window: str,
    concurrency: int,
    crashes: list[tuple[int, int]],
    credit: int,
    *,
    ordered: bool,
    failing: bool,
    apart: bool,
) -> None:
    broker, storage = MemoryBroker(3), Storage()
    broker.publish(*[str(number).encode() for number in range(COUNT)])
    dead: set[int] = set()

    async def once(stop_after: float | None) -> None:
        store = StoredPositions(storage)
        source = Source(
            broker.driver("g", positions=store), decode=int, max_in_flight=credit, drain_timeout=0
        )

        async def write(value: object) -> Result[int, object]:
            members = _numbers(value)
            await asyncio.sleep((members[0] % 3 + 1) / 10)
            if failing and members[0] % 7 == 3:
                return err(value)
            store.commit(value)
            await asyncio.sleep(members[0] % 2 / 10)  # handled later than it is committed
            return ok(len(members))

        def made(stream: Any) -> Any:
            for link in links:
                stream = LINKS[link](stream)
            stream = WINDOWS[window](stream).bind_async(
                write, concurrency=concurrency, ordered=ordered
            )
            return stream.tap_failure(lambda failed: dead.update(_numbers(failed)))

        async def read_apart() -> None:
            async with asyncio.TaskGroup() as tasks:
                async for partition in source.partitions():
                    _ = tasks.create_task(_awaited(made(partition.messages()).run_all()))

        async with source:
            loop = asyncio.get_running_loop()
            reading = asyncio.ensure_future(
                read_apart() if apart else made(source.messages()).run_all()
            )
            if stop_after is None:
                loop.call_later(60, source.drain)
                await reading
                return
            loop.call_later(stop_after, reading.cancel)
            with contextlib.suppress(asyncio.CancelledError):
                await reading

    async def main() -> None:
        for tenths, forgotten in crashes:
            await once(tenths / 10)
            broker.forget_acks("g", forgotten)
        await once(None)
        effects = Counter(storage.effects)
        assert not effects or max(effects.values()) == 1
        expected = set(range(COUNT))
        if "filter" in links:
            expected -= {number for number in expected if number % 4 == 1}
        assert expected - effects.keys() <= dead
        assert effects.keys() <= expected
        assert broker.backlog("g") == 0
        for taken in storage.taken.values():
            assert len(taken.spans) <= credit + 1

    run(main())


async def _awaited(outcome: Any) -> None:
    await outcome


def _numbers(value: Any) -> list[int]:
    from returns_pipeline.connectors._message import messages_in

    return [message.value for message in messages_in(value)]  # type: ignore[misc]


# One by one.


class Placing(ScriptedDriver):
    """Asks for the positions of partitions when it is opened, and remembers the answer."""

    asked: tuple[str, ...] = ("p",)
    identity = ""

    taking: Ownership | None = None

    async def open(self, ownership: Ownership, /) -> None:
        await super().open(ownership)
        self.taking = ownership
        self.found = await ownership.positions(dict.fromkeys(self.asked, self.identity))


def sent(*numbers: int, **other: Any) -> list[Message[bytes]]:
    return [message(number, **other) for number in numbers]


def test_a_driver_is_told_where_to_read_on_and_what_comes_again_is_acknowledged_unread() -> None:
    async def main() -> None:
        storage = Storage()
        first = StoredPositions(storage)
        driver = Placing(*sent(3, 4, 5), positioned=True, positions=first)
        async with Source(driver) as source:
            assert driver.acked == []
            window = await received(source, 3)
            first.commit(window[:1])
            first.commit(window[2:])  # 4 is not handled
        assert driver.acked == []
        again = Placing(*sent(3, 4, 5, 6), positioned=True, positions=StoredPositions(storage))
        async with Source(again) as source:
            assert [each.value for each in await received(source, 2)] == [b"4", b"6"]
            assert again.found == {"p": (3,)}
            await asyncio.sleep(1)
            assert again.acked == [3]  # 5 must not be: 4 is before it
            source.reached(source.mark())
            await source.settled()
            assert again.acked == [3, 4, 5, 6]
            assert source.statistics().redelivered == 2

    run(main())


def test_a_process_that_lost_its_partition_cannot_commit_even_if_it_does_not_know() -> None:
    async def main() -> None:
        storage = Storage()
        zombie = StoredPositions(storage)
        async with Source(Placing(*sent(1), positioned=True, positions=zombie)) as source:
            window = await received(source, 1)
            heir = StoredPositions(storage)
            async with Source(Placing(*sent(1), positioned=True, positions=heir)) as other:
                same = await received(other, 1)
                with pytest.raises(PartitionsLost, match="p"):
                    zombie.commit(window)
                heir.commit(same)
        assert storage.effects == [b"1"]

    run(main())


def test_what_was_fenced_cannot_be_committed_and_is_read_again_by_what_is_stored() -> None:
    async def main() -> None:
        storage = Storage()
        store = StoredPositions(storage)
        driver = Placing(*sent(1, 2), positioned=True, positions=store)
        async with Source(driver) as source:
            window = await received(source, 2)
            store.commit(window[:1])
            ownership = driver.ownership
            assert ownership is not None
            ownership.fence(["p"])
            with pytest.raises(PartitionsLost):
                store.commit(window[1:])
            assert await ownership.positions({"p": ""}) == {"p": (1,)}
            with pytest.raises(PartitionsLost):  # it is in the hands of this process, and fenced
                store.commit(window[1:])
            driver.deliver(*sent(1, 2))
            store.commit(await received(source, 1))
        assert storage.effects == [b"1", b"2"]

    run(main())


def test_of_a_message_that_was_fenced_and_came_again_one_delivery_is_committed() -> None:
    async def main() -> None:
        storage = Storage()
        store = StoredPositions(storage)
        driver = Placing(*sent(1, 2, 3), positioned=True, positions=store)
        async with Source(driver) as source:
            before = await received(source, 3)
            ownership = driver.ownership
            assert ownership is not None
            ownership.fence(["p"])
            await ownership.positions({"p": ""})
            driver.deliver(*sent(1, 2, 3))
            again = await received(source, 3)
            store.commit(before[:1])  # this process has it again, and no other had it meanwhile
            with pytest.raises(PartitionsLost):
                store.commit(again[:1])
            with pytest.raises(PartitionsLost):
                store.commit([before[1], again[1]])
            store.commit(again[1:2])
            with pytest.raises(PartitionsLost):
                store.commit(before[1:2])
            source.reached(source.mark())
            await source.settled()
            driver.deliver(*sent(4))
            fresh = await received(source, 1)
            with pytest.raises(RuntimeError, match="a second time"):
                store.commit(fresh * 2)
        assert storage.effects == [b"1", b"2"]

    run(main())


def test_a_lost_connection_neither_takes_partitions_again_nor_reads_what_is_in_flight() -> None:
    async def main() -> None:
        storage = Storage()
        store = StoredPositions(storage)
        driver = Placing(*sent(1, 2), positioned=True, positions=store)
        async with Source(driver) as source:
            window = await received(source, 2)
            store.commit(window[:1])
            source.reached(1)
            await asyncio.sleep(1)
            driver.break_connection()
            driver.deliver(*sent(2, 3))
            store.commit([*window[1:], *await received(source, 1)])
            assert driver.found == {"p": (1,)}
            assert storage.taken["p"].epoch == 1
        assert sorted(map(str, storage.effects)) == ["b'1'", "b'2'", "b'3'"]

    run(main())


def test_partitions_that_are_fenced_while_their_positions_are_read_are_read_again() -> None:
    async def main() -> None:
        storage = Storage()

        class Slow(StoredPositions):
            async def take(self, source: str, partitions: Any, /) -> Any:
                await asyncio.sleep(1)
                return await super().take(source, partitions)

        driver = Placing(*sent(1), positioned=True, positions=Slow(storage))
        async with Source(driver) as source:
            await asyncio.sleep(0.5)
            assert driver.taking is not None
            driver.taking.fence(["p"])
            assert len(await received(source, 1)) == 1
            assert driver.times("open") == 2
            assert storage.taken["p"].epoch == 2

    run(main())


def test_another_message_at_a_stored_position_ends_the_source() -> None:
    async def main() -> None:
        storage = Storage()
        store = StoredPositions(storage)
        old = sent(1, 2, timestamp=5.0)
        async with Source(Placing(*old, positioned=True, positions=store)) as source:
            store.commit(await received(source, 2))
        new = Placing(
            *sent(1, 2, timestamp=6.0), positioned=True, positions=StoredPositions(storage)
        )
        with pytest.raises(PartitionReplaced, match="another message"):
            async with Source(new) as source:
                await anext(source)

    run(main())


def test_a_partition_of_another_identity_has_positions_of_its_own() -> None:
    async def main() -> None:
        storage = Storage()

        async def read(identity: str) -> object:
            store = StoredPositions(storage)
            driver = Placing(*sent(1, 2), positioned=True, positions=store)
            driver.identity = identity
            async with Source(driver) as source:
                store.commit(await received(source, 1))
            return driver.found

        assert await read("old") == {}
        assert await read("new") == {}
        assert await read("old") == {"p": (1,)}
        assert storage.effects == [b"1", b"1", b"2"]

    run(main())


def test_a_memory_broker_that_has_less_than_was_handled_is_noticed() -> None:
    async def main() -> None:
        storage = Storage()
        storage.taken["memory-0"] = TakenPartition(1, Spans().with_all([Stretch((), (3,))]))
        broker = MemoryBroker()
        broker.publish(b"1")
        with pytest.raises(PartitionReplaced, match="memory-0 has 1, not 4"):
            async with Source(broker.driver("g", positions=StoredPositions(storage))) as source:
                await anext(source)

    run(main())


def test_a_message_that_comes_twice_is_refused() -> None:
    async def main() -> None:
        storage = Storage()
        store = StoredPositions(storage)
        async with Source(Placing(*sent(1, 2), positioned=True, positions=store)) as source:
            first, second = await received(source, 2)
            with pytest.raises(RuntimeError, match="a second time"):
                store.commit([first, first.with_value("other")])
            assert storage.effects == []
            store.commit(first)
            with pytest.raises(RuntimeError, match="a second time"):
                store.commit([first.with_value("rest"), second])
            with pytest.raises(RuntimeError, match=r"no messages: pass messages to it.*not 'list'"):
                store.commit(["not a message"])
        assert storage.effects == [b"1"]

    run(main())


def test_an_empty_window_is_committed_without_positions(tmp_path: Path) -> None:
    sizes: list[int] = []

    async def book(window: list[Message[int]], step: StepContext) -> Result[int, str]:
        sizes.append(len(window))
        return ok(len(window))

    async def main() -> None:
        broker = MemoryBroker()
        broker.publish(b"1")
        async with (
            SqliteJournal(tmp_path / "journal.db") as journal,
            StepContext("test", journal=journal) as ctx,
            Source(broker.driver("g", positions=journal), decode=int) as source,
        ):
            asyncio.get_running_loop().call_later(5.0, source.drain)
            windows = source.messages().chunks_or_timeout(9, 2.0, emit_empty=True)
            assert (await windows.bind_step(book, ctx).run()).unwrap()._inner_value == len(sizes)
        assert sorted(sizes)[-2:] == [0, 1]
        assert broker.backlog("g") == 0

    run(main())


@pytest.mark.parametrize("count", [1, 1000])
def test_positions_that_nothing_stores_are_told(
    count: int, caplog: pytest.LogCaptureFixture
) -> None:
    told = "messages were acknowledged, and no position was stored: nothing in the pipeline writes"

    async def main() -> None:
        broker = MemoryBroker()
        broker.publish(*[b"1"] * count)
        positions = StoredPositions(Storage())
        async with Source(broker.driver("g", positions=positions)) as source:
            asyncio.get_running_loop().call_later(5.0, source.drain)
            await source.messages().run()
            await source.settled()
            assert (told in caplog.text) is (count == 1000)
        assert caplog.text.count(f"{count} {told}") == 1
        # If one is, the others have failed, or were filtered out.
        broker.publish(*[b"1"] * 2000)
        positions = StoredPositions(Storage())
        async with Source(broker.driver("g", positions=positions)) as source:
            positions.commit((await anext(source)).unwrap())
            await received(source, 1999)
            source.reached(source.mark())
            await source.settled()
        assert caplog.text.count(told) == 1

    run(main())


def test_a_driver_that_does_not_ask_for_its_positions_ends_the_source() -> None:
    async def main() -> None:
        driver = ScriptedDriver(*sent(1), positioned=True, positions=StoredPositions(Storage()))
        with pytest.raises(RuntimeError, match="did not ask for the positions of p"):
            async with Source(driver) as source:
                await anext(source)

    run(main())


REPEATING: dict[str, Callable[[Any], object]] = {
    "flat_map": lambda s: s.flat_map(lambda m: s),
    "sliding": lambda s: s.sliding(2),
    "scan": lambda s: s.scan(0, lambda n, m: n),
    "broadcast": lambda s: s.broadcast(2),
    "event_windows": lambda s: s.event_windows(TumblingWindows(2.0), timestamp=lambda m: 0.0),
    "merge": lambda s: Source(MemoryBroker().driver("g")).messages().merge(s).sliding(2),
}


@pytest.mark.parametrize("name", REPEATING)
def test_what_puts_a_message_into_several_items_is_refused_where_positions_are_stored(
    name: str,
) -> None:
    store = StoredPositions(Storage())
    stream = Source(MemoryBroker().driver("g", positions=store)).messages()
    with pytest.raises(MarksRefused, match=r"\(\) and stored positions cannot follow"):
        REPEATING[name](stream.filter(lambda m: True).chunks_or_timeout(2, 1.0))
    REPEATING[name](Source(MemoryBroker().driver("g")).messages())


def test_a_second_step_that_would_store_the_positions_is_refused(tmp_path: Path) -> None:
    async def book(window: list[Message[bytes]], step: StepContext) -> Result[int, str]:
        return ok(len(window))

    async def bill(count: object, step: StepContext) -> Result[object, str]:
        return ok(count)

    async def main() -> None:
        broker = MemoryBroker()
        broker.publish(b"1", b"2", b"3")
        async with (
            SqliteJournal(tmp_path / "journal.db") as journal,
            StepContext("test", journal=journal) as ctx,
            StepContext("beside") as beside,
            Source(broker.driver("g", positions=journal)) as source,
        ):
            asyncio.get_running_loop().call_later(5.0, source.drain)
            windows = source.messages().chunks_or_timeout(2, 1.0)
            booked = windows.bind_step(book, ctx, concurrency=2).filter(lambda count: True)
            other = Source(MemoryBroker().driver("g")).messages().map(lambda message: 0)
            for stream in (booked, other.merge(booked)):
                with pytest.raises(InvalidArgument) as refused:
                    _ = stream.bind_step(bill, ctx.child("inside"))
                assert str(refused.value) == (
                    "bind_step(book) stores the positions of the messages already: bind_step(bill)"
                    " would be skipped after a crash between the two. Make one step of them"
                )
            found = await booked.bind_step(bill, beside).collect()
            assert found.unwrap()._inner_value == [2, 1]
        assert broker.backlog("g") == 0

    run(main())


def test_positions_are_refused_where_partitions_are_shared() -> None:
    store = StoredPositions(Storage())
    with pytest.raises(InvalidArgument, match="shares its partitions"):
        MemoryBroker(shared=True).driver("g", positions=store)
    with pytest.raises(InvalidArgument, match="scripted shares its partitions"):
        Source(ScriptedDriver(positioned=False, positions=store))
