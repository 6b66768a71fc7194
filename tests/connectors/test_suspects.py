"""Deliveries that the broker does not count: what kills its readers is found, and nothing else.

In memory, with processes that only seem to die. Real ones are killed in `test_poison`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scripted_driver import ScriptedDriver
from scripted_driver import message as numbered
from stored_positions import Storage, StoredPositions

from returns_pipeline import ok
from returns_pipeline.connectors import DeadLetter, Message, Source
from returns_pipeline.connectors._ledger import Ledger
from returns_pipeline.connectors._suspects import Attempt, Suspects
from returns_pipeline.errors import PartitionsLost, TooManyDeliveries
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.testing import MemoryBroker, run
from returns_pipeline.testing._connector_harness import Mortal

if TYPE_CHECKING:
    from collections.abc import Collection

    from returns.result import Result

    from returns_pipeline import ResultStream


class Died(Exception):
    """What ends a process here that would end without one."""


Letter = DeadLetter[TooManyDeliveries]


class World:
    """A broker, processes that read it, and what has become of each message."""

    def __init__(self, poison: Collection[int], count: int, partitions: int = 1) -> None:
        self.poison = {str(number).encode() for number in poison}
        self.all = {str(number).encode() for number in range(count)}
        self.broker = MemoryBroker(partitions)
        self.broker.publish(*(str(number).encode() for number in range(count)))
        self.handled: Counter[bytes] = Counter()
        self.dead: list[Letter] = []
        self.deaths = 0
        self.handling = 0  # messages in windows
        self.in_flight: list[int] = []  # the same, at each death
        self.deliveries: Counter[int] = Counter()
        self.windows: list[int] = []
        self.notes = 0
        self.storage: Storage | None = None
        self.kept: set[bytes] | None = None  # others are filtered out

    async def live(
        self,
        *,
        most: int | None = 3,
        size: int = 10,
        credit: int = 100,
        seconds: float = 60.0,
        apart: bool = False,
    ) -> bool:
        """Read until all is done; return whether the process did not die before."""
        store = None if self.storage is None else StoredPositions(self.storage)
        driver = Mortal(self.broker.driver("group", positions=store))
        source = Source(
            driver,
            max_deliveries=most,
            max_in_flight=credit,
            reconnect=RetryPolicy(attempts=1000, wait=0.1),
            drain_timeout=1.0,
        )

        async def handle(window: list[Message[bytes]]) -> Result[int, Letter]:
            self.windows.append(len(window))
            self.handling += len(window)
            for message in window:
                self.deliveries[message.deliveries] += 1
                await asyncio.sleep(0.001)
                if message.value in self.poison:
                    self.in_flight.append(self.handling)
                    self.handling = 0
                    driver.is_dead = True
                    raise Died
            self.handling -= len(window)
            if store is not None:
                store.commit(window)
            self.handled.update(message.value for message in window)
            return ok(len(window))

        def pipeline(
            messages: ResultStream[Message[bytes], Letter],
        ) -> ResultStream[int, Letter]:
            return (
                messages.tap_failure(self.dead.append)
                .filter(lambda message: self.kept is None or message.value in self.kept)
                .chunks_or_timeout(size, 2.0)
                .bind_async(handle)
            )

        async def read(stream: ResultStream[int, Letter]) -> None:
            with contextlib.suppress(PartitionsLost):
                _ = await stream.run_all()

        async def stop() -> None:
            while self.broker.backlog("group"):
                await asyncio.sleep(0.01)
            source.drain()

        try:
            async with asyncio.timeout(seconds), source, asyncio.TaskGroup() as tasks:
                stopping = tasks.create_task(stop())
                try:
                    if apart:
                        async with asyncio.TaskGroup() as readers:
                            async for partition in source.partitions():
                                readers.create_task(read(pipeline(partition.messages())))
                    else:
                        await read(pipeline(source.messages()))
                finally:
                    stopping.cancel()
        except* Died:
            self.deaths += 1
        self.notes = driver.notes
        return not driver.is_dead

    async def live_on(self, limit: int, **options: Any) -> None:
        for _ in range(limit):
            if await self.live(**options):
                return
        raise AssertionError(f"{self.deaths} processes have died")


@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_a_message_that_kills_its_readers_becomes_a_dead_letter_and_no_other_does(
    most: int,
) -> None:
    async def main() -> None:
        world = World({37}, 60)
        await world.live_on(10, most=most)
        (letter,) = world.dead
        assert letter.message.value == b"37"
        deliveries = max(2, most) + 1  # one delivery cannot tell which message it was
        assert letter.error == TooManyDeliveries(deliveries, most)
        assert world.deaths == max(2, most)
        assert world.in_flight[-1] == 1
        assert set(world.handled) == world.all - world.poison

    run(main())


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    poison=st.sets(st.integers(0, 59), max_size=4),
    partitions=st.integers(1, 3),
    most=st.integers(1, 4),
    size=st.integers(1, 20),
    credit=st.integers(1, 70),
    apart=st.booleans(),
    stored=st.booleans(),
)
def test_only_what_kills_is_a_dead_letter_and_nothing_vanishes(
    poison: set[int],
    partitions: int,
    most: int,
    size: int,
    credit: int,
    *,
    apart: bool,
    stored: bool,
) -> None:
    async def main() -> None:
        world = World(poison, 60, partitions)
        if stored:
            world.storage = Storage()
        limit = len(poison) * max(2, most)
        await world.live_on(limit + 1, most=most, size=size, credit=credit, apart=apart)
        assert {letter.message.value for letter in world.dead} == world.poison
        assert set(world.handled) == world.all - world.poison
        if world.storage is None:  # else a dead letter may come again, as anything without effect
            assert len(world.dead) == len(world.poison)
        else:
            assert Counter(world.storage.effects) == Counter(world.all - world.poison)
        assert world.broker.backlog("group") == 0

    run(main())


@pytest.mark.slow
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    poison=st.sets(st.integers(0, 59), max_size=3),
    most=st.integers(1, 4),
    breaks=st.lists(st.floats(0.0, 3.0), max_size=4),
    apart=st.booleans(),
    size=st.integers(1, 20),
)
def test_nothing_vanishes_if_partitions_move_and_connections_break(
    poison: set[int], most: int, breaks: list[float], size: int, *, apart: bool
) -> None:
    async def main() -> None:
        world = World(poison, 60, 4)

        async def process(after: float) -> None:
            await asyncio.sleep(after)
            while world.broker.backlog("group"):
                await world.live(most=most, size=size, apart=apart)
                await asyncio.sleep(0.5)

        async with asyncio.timeout(600), asyncio.TaskGroup() as tasks:
            for number in range(3):
                tasks.create_task(process(number * 0.7))
            for after in breaks:
                await asyncio.sleep(after)
                world.broker.disconnect()
        dead = {letter.message.value for letter in world.dead}
        # Nobody can tell a connection that is lost from a death, if the partition moves.
        assert dead >= world.poison
        assert breaks or dead == world.poison
        # A message of a partition that moves while it is handled may be handled twice.
        assert {*world.handled, *dead} == world.all
        assert not world.poison & {*world.handled}
        assert world.deaths <= len(poison) * (max(2, most) + len(breaks))

    run(main())


def test_dead_letters_whose_positions_are_not_stored_do_not_kill_again() -> None:
    async def main() -> None:
        world = World({41, 42, 43, 59}, 60)
        world.storage = Storage()
        world.kept = {b"0", b"50"} | world.poison
        await world.live_on(13, most=3, size=5, credit=8)
        assert {letter.message.value for letter in world.dead} == world.poison
        assert sorted(map(str, world.storage.effects)) == ["b'0'", "b'50'"]
        assert world.deaths <= 12

    run(main())


def test_groups_become_smaller_by_the_same_factor() -> None:
    async def main() -> None:
        world = World({400}, 600)
        await world.live_on(4, most=3, size=500, credit=500)
        assert world.in_flight == [500, 23, 1]
        assert len(world.dead) == 1

    run(main())


@pytest.mark.parametrize("apart", [False, True])
def test_nothing_else_is_in_flight_while_a_suspect_is_alone(*, apart: bool) -> None:
    async def main() -> None:
        world = World({0, 31}, 60, partitions=3)
        await world.live_on(7, most=2, apart=apart)
        assert [count for count in world.in_flight if count == 1] == [1, 1]
        assert {letter.message.value for letter in world.dead} == {b"0", b"31"}

    run(main())


def test_without_a_crash_there_is_a_note_when_a_partition_begins_and_one_at_the_end() -> None:
    async def main() -> None:
        world = World((), 300)
        assert await world.live(credit=50)
        assert world.notes == 2
        assert world.deliveries == {1: 300}
        world = World((), 300)
        assert await world.live(credit=50, most=None)
        assert world.notes == 0

    run(main())


def noted(world: World) -> list[Attempt | None]:
    return [Attempt.read(log.note) for log in world.broker._group("group").logs.values()]  # pyright: ignore[reportPrivateUsage]


async def read_and_leave(world: World, *, how: str) -> None:
    """Read three messages, and end in good order, with one of them in flight."""
    source = Source(world.broker.driver("group"), max_deliveries=1)

    async def leave() -> None:
        async with source:
            for _ in range(3):
                assert (await anext(source)).unwrap().deliveries == 1
            source.reached(2)
            if how == "failure":
                raise Died
            if how == "cancellation":
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await asyncio.sleep(1)

    task = asyncio.create_task(leave())
    _ = await asyncio.wait([task])
    assert task.cancelled() == (how == "cancellation")


@pytest.mark.parametrize("how", ["end", "failure", "cancellation"])
def test_an_end_in_good_order_does_not_count(how: str) -> None:
    async def main() -> None:
        world = World((), 6)
        await read_and_leave(world, how=how)
        assert noted(world) == [None]
        assert await world.live(most=1)
        assert world.deliveries == {1: 4}

    run(main())


def test_a_source_that_fails_does_not_count() -> None:
    async def main() -> None:
        world = World((), 6)

        async def flush() -> None:
            raise Died

        with pytest.raises(Died):
            async with Source(
                world.broker.driver("group"), max_deliveries=1, before_ack=flush
            ) as source:
                _ = await anext(source)
                source.reached(1)
                _ = await anext(source)
                await source.settled()
        assert noted(world) == [None]

    run(main())


def test_a_rebalance_and_a_lost_connection_do_not_count() -> None:
    async def main() -> None:
        world = World((), 6, partitions=2)
        async with Source(world.broker.driver("group"), max_deliveries=1) as first:
            for _ in range(4):
                _ = await anext(first)
            first.reached(2)
            await asyncio.sleep(1)
            world.broker.disconnect()
            await asyncio.sleep(5)
            for number in range(2):
                message = (await anext(first)).unwrap()
                assert message.deliveries == 1, number
            first.reached(first.mark())
            async with Source(world.broker.driver("group"), max_deliveries=1) as second:
                await asyncio.sleep(1)
                world.broker.publish(*[b"x"] * 4)
                for source in (first, second):
                    for _ in range(2):
                        assert (await anext(source)).unwrap().deliveries == 1
                    source.reached(source.mark())
        assert noted(world) == [None, None]

    run(main())


def test_suspects_are_remembered_when_their_partition_moves_in_good_order() -> None:
    async def main() -> None:
        world = World({20}, 40)
        assert not await world.live(most=3)
        assert not await world.live(most=3)
        (before,) = noted(world)
        assert before is not None
        assert before.count == 2
        source = Source(world.broker.driver("group"), max_deliveries=3)
        async with source:
            assert (await anext(source)).unwrap().deliveries == 3
        (after,) = noted(world)
        assert after is not None
        assert (after.count, after.width, after.last) == (2, before.width, before.last)
        assert not await world.live(most=3)
        assert await world.live(most=3)
        assert world.in_flight[-1] == 1
        assert [letter.message.value for letter in world.dead] == [b"20"]

    run(main())


def test_what_arrives_after_a_crash_is_not_a_suspect() -> None:
    async def main() -> None:
        world = World({2}, 3)
        assert not await world.live(most=9)
        world.deliveries.clear()
        world.broker.publish(b"3", b"4")
        world.poison.clear()
        assert await world.live(most=9)
        # What was there when the partition was taken may have been read by the one that has died.
        assert world.deliveries == {2: 5}
        world.deliveries.clear()
        world.broker.publish(b"5")
        assert await world.live(most=9)
        assert world.deliveries == {1: 1}

    run(main())


def test_a_note_that_nobody_counts_by_is_taken_back() -> None:
    async def main() -> None:
        world = World({2}, 3)
        assert not await world.live(most=9)
        assert noted(world) != [None]
        world.poison.clear()
        assert await world.live(most=None)
        assert noted(world) == [None]
        assert world.deliveries[2] == 0

    run(main())


def test_a_crash_between_two_trials_is_held_against_no_message() -> None:
    note = Attempt(2, 3, (1,), (4,), by="another").note()
    world = World((), 10)
    log = world.broker._group("group").logs["memory-0"]  # pyright: ignore[reportPrivateUsage]
    log.note, log.committed = note, 5

    async def main() -> None:
        assert await world.live()
        assert world.deliveries == {1: 5}

    run(main())


def test_a_reader_that_knows_no_flush_is_not_kept_waiting_forever() -> None:
    async def main() -> None:
        world = World({5}, 40)
        assert not await world.live(most=2)
        async with Source(world.broker.driver("group"), max_deliveries=2) as source:
            for _ in range(4):
                for _ in range(10):
                    assert (await anext(source)).unwrap().deliveries == 2
                source.reached(source.mark())
            await source.settled()
        assert world.broker.backlog("group") == 0

    run(main())


def test_notes_of_other_programs_are_ignored() -> None:
    for note in ("", "x", "17", "[]", "{}", "null", "[1, 2, 3]", "[1, 2, 3, 4, 5, 6, 7]"):
        assert Attempt.read(note) is None
    attempt = Attempt(3, 5, (0, 1), (7, 8), True, "me", ((1, 2), (3, 4)))
    assert Attempt.read(attempt.note()) == attempt
    assert Attempt.read(Attempt(3, 5).note()) == Attempt(3, 5)
    last = 2**63, 2**63
    assert len(Attempt(10**6, 10**9, last, last, True, "12345678", (last,) * 20).note()) < 2000


def counting(max_deliveries: float | None = 3) -> Ledger:
    return Ledger(
        max_in_flight=9,
        max_bytes=1 << 30,
        positioned=True,
        remembered=0,
        max_deliveries=max_deliveries,
    )


def write(book: Ledger) -> dict[str, str]:
    """Write the notes that are wanted, and return them."""
    notes = book.suspects.wanted()
    book.suspects.noted(notes)
    return notes


def emit(book: Ledger) -> list[tuple[int, int]]:
    """Emit what may be emitted: its positions, and how often each was delivered."""
    found = book.next(100)
    book.emit(len(found))
    return [(each.position[0], each.deliveries) for each in found]


def finish(book: Ledger) -> None:
    """Acknowledge everything that was emitted."""
    _ = book.reach(book.emitted)
    _ = book.take_reached()
    book.acked(0.0)


def test_nothing_is_emitted_of_a_partition_before_its_note_is_written() -> None:
    book = counting()
    _ = book.suspects.begin("p", "", (0,), (9,))
    book.accept([numbered(1), numbered(2)], 0.0)
    assert emit(book) == []
    (note,) = write(book).values()
    attempt = Attempt.read(note)
    assert attempt is not None
    assert (attempt.count, attempt.width, attempt.last) == (1, 9, None)
    assert emit(book) == [(1, 1), (2, 1)]
    finish(book)
    assert write(book) == {}


def test_a_trial_begins_when_nothing_is_in_flight_and_other_notes_are_taken_back() -> None:
    book = counting()
    _ = book.suspects.begin("q", "", (0,), (9,))
    _ = book.suspects.begin("p", Attempt(1, 9, by="dead").note(), (0,), (9,))
    book.accept([numbered(1, "q"), numbered(2, "q")], 0.0)
    assert set(write(book)) == {"q"}
    assert emit(book) == [(1, 1), (2, 1)]
    book.accept([numbered(3, "q"), *[numbered(number, "p") for number in range(1, 7)]], 0.0)
    assert write(book) == {}
    assert emit(book) == []  # what is in flight of the other partition comes first
    assert book.waits_for_reader()
    finish(book)
    notes = write(book)
    assert notes["q"] == ""
    trial = Attempt.read(notes["p"])
    assert trial is not None
    assert (trial.count, trial.width, trial.after, trial.last) == (2, 3, (0,), (3,))
    assert emit(book) == [(1, 2), (2, 2), (3, 2)]
    assert emit(book) == []
    finish(book)
    assert set(write(book)) == {"p"}
    assert emit(book) == [(4, 2), (5, 2), (6, 2)]
    finish(book)
    assert set(write(book)) == {"p", "q"}
    assert emit(book) == [(3, 1)]


def test_a_note_of_the_source_itself_tells_of_no_death() -> None:
    book = counting()
    _ = book.suspects.begin("p", "", (0,), (9,))
    book.accept([numbered(1)], 0.0)
    notes = write(book)
    book.fence(None)
    assert book.suspects.begin("p", notes["p"], (0,), (9,)) is None
    book.accept([numbered(1)], 0.0)
    assert write(book) == {}
    assert emit(book) == [(1, 1)]


def test_a_source_that_does_not_count_takes_an_old_note_back_and_waits_for_nothing() -> None:
    book = counting(None)
    assert book.suspects.begin("p", Attempt(1, 9, by="dead").note(), (0,), (9,)) is None
    book.accept([numbered(1)], 0.0)
    assert emit(book) == [(1, 1)]
    assert write(book) == {"p": ""}


def test_a_partition_is_settled_when_its_last_note_is_written() -> None:
    async def main() -> None:
        driver = ScriptedDriver(positioned=True)
        loop = asyncio.get_running_loop()
        async with Source(driver, max_deliveries=3) as source:
            await asyncio.sleep(0.1)
            assert driver.ownership is not None
            driver.ownership.noted("p", "", (0,), (9,))
            driver.deliver(numbered(1))
            _ = await anext(source)
            assert driver.notes["p"]
            source.reached(1)
            await source.settled()
            driver.latency["note"] = 2.0
            began = loop.time()
            assert await driver.ownership.settled(["p"])
            assert loop.time() == began + 2.0
            assert driver.notes == {"p": ""}

    run(main())


_PARTS = st.one_of(
    st.integers(), st.floats(), st.none(), st.text(max_size=3), st.lists(st.integers(), max_size=3)
)


@given(st.text() | st.lists(_PARTS, min_size=5, max_size=8).map(json.dumps))
@example('[1, -1, null, null, 0, "", []]')
@example("[1, 1e999, null, null, 0, 0, []]")
@example("[" * 100_000)
def test_any_text_of_another_program_is_read_as_a_note_or_as_none(note: str) -> None:
    suspects = Suspects(
        max_in_flight=10,
        max_deliveries=3,
        stores=False,
        buffers=list,
        in_flight=lambda _: 0,
    )
    suspects.begin("p", note, (3,), (9,))
    suspects.arrive("p")
    assert suspects.wanted()["p"] != note
