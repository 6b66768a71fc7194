"""The ledger of a source: by random programs against a short model, and its memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted_driver import message

from returns_pipeline.connectors._entries import RecentKeys
from returns_pipeline.connectors._ledger import Ledger

if TYPE_CHECKING:
    from returns_pipeline.connectors import Message


def ledger(**options: object) -> Ledger:
    defaults = {"max_in_flight": 10, "max_bytes": 1 << 30, "positioned": False, "remembered": 100}
    return Ledger(**(defaults | options))  # type: ignore[arg-type]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["deliver", "redeliver", "emit", "reach", "take", "acked", "lost", "fence", "nack"]
        ),
        st.integers(0, 5),
    ),
    max_size=60,
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # a loaded machine is slow, not wrong
@given(steps=STEPS, positioned=st.booleans())
def test_each_message_is_emitted_once_and_acknowledged_after_it_was_reached(
    steps: list[tuple[str, int]], *, positioned: bool
) -> None:
    book = ledger(positioned=positioned)
    delivered: list[Message[bytes]] = []
    emitted: list[Message[bytes]] = []
    acked: list[Message[bytes]] = []
    given_back: list[Message[bytes]] = []
    fenced: set[str] = set()
    taken: list[Message[bytes]] | None = None
    for step, number in steps:
        match step:
            case "deliver":
                new = [message(len(delivered) + 1, f"p{number % 3}") for _ in range(1)]
                new = [each for each in new if each.partition not in fenced]
                if len(new) <= book.room():
                    delivered += new
                    book.accept(new, 0.0)
            case "redeliver":
                again = [each for each in delivered if each.partition not in fenced]
                again = [each for each in again if each not in given_back]
                book.accept(again[-number:] if number else [], 0.0)
            case "emit":
                if found := book.next(number):
                    assert len(found) <= number
                    book.emit(len(found))
                    emitted += found
            case "reach":
                _ = book.reach(min(book.emitted, book.reached + number))
            case "take":
                if taken is None:
                    taken = book.take_reached()
            case "acked":
                if taken is not None:
                    acked += [each for each in taken if each.partition not in fenced]
                    book.acked(0.0)
                    taken = None
            case "lost":
                if taken is not None:
                    book.not_acked()
                    taken = None
            case "fence":
                fenced.add(f"p{number % 3}")
                book.fence([f"p{number % 3}"])
            case _:
                entry = book.find(emitted[-1]) if emitted else None
                if entry is not None and taken is None:
                    book.nack(entry, 0.0)
                    given_back.append(emitted[-1])
        # Once each, in the order of delivery.
        assert emitted == sorted(emitted, key=delivered.index)
        assert len({each.position for each in emitted}) == len(emitted)
        # Only what was reached.
        assert all(each in emitted[: book.reached] for each in acked)
        # A prefix of each partition, apart from what was given back.
        for name in ("p0", "p1", "p2"):
            ours = [each for each in emitted if each.partition == name and each not in given_back]
            first = [each for index, each in enumerate(acked) if each not in acked[:index]]
            done = [each for each in first if each.partition == name]
            assert done == ours[: len(done)]
        assert 0 <= book.count <= 10 + 6
    while found := book.next(2):
        book.emit(len(found))
    if taken is not None:
        book.not_acked()
    _ = book.reach(book.emitted)
    _ = book.take_reached()
    book.acked(0.0)
    assert not book.has_reached()
    assert (book.count, book.size, book.in_flight()) == (0, 0, 0)


SPLIT_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["own", "deliver", "emit", "reach", "take", "acked", "lost", "fence"]),
        st.integers(0, 2),
        st.integers(0, 5),
    ),
    max_size=60,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(steps=SPLIT_STEPS)
def test_partitions_of_a_split_ledger_are_emitted_reached_and_bounded_apart(
    steps: list[tuple[str, int, int]],
) -> None:
    book = ledger(positioned=True, max_in_flight=12)
    book.split(lambda _: None)
    delivered: dict[str, int] = dict.fromkeys(("p0", "p1", "p2"), 0)
    known: set[str] = set()
    emitted: dict[str, list[int]] = {name: [] for name in delivered}
    numbers: dict[str, list[int]] = {name: [] for name in delivered}
    reached: dict[str, int] = dict.fromkeys(delivered, 0)
    acked: dict[str, int] = dict.fromkeys(delivered, 0)
    taken: list[Message[bytes]] | None = None
    for step, which, count in steps:
        name = f"p{which}"
        match step:
            case "own":
                book.own([name])
                known.add(name)
            case "deliver" if name in known and name not in book.paused():
                room = book.room()
                assert room > 0
                new = [message(delivered[name] + each, name) for each in range(min(count, room))]
                delivered[name] += len(new)
                book.accept(new, 0.0)
                # Nobody holds more than a share, unless that has shrunk.
                held = len(book._partitions[name].buffer) + book.in_flight({name})
                assert held <= 12
            case "emit" if name in known:
                found = book.next(count, name)
                book.emit(len(found), name)
                emitted[name] += [each.position[0] for each in found]
                numbers[name] += range(book.emitted - len(found) + 1, book.emitted + 1)
            case "reach" if numbers[name] and name in known:
                number = numbers[name][min(count, len(numbers[name]) - 1)]
                _ = book.reach(number, name)
                reached[name] = max(reached[name], number)
            case "take" if taken is None:
                taken = book.take_reached()
                for each in taken:
                    place = emitted[each.partition].index(each.position[0])
                    assert numbers[each.partition][place] <= reached[each.partition]
            case "acked" if taken is not None:
                for each in taken:
                    if each.partition in known and each.position[0] in emitted[each.partition]:
                        acked[each.partition] += 1
                book.acked(0.0)
                taken = None
            case "lost" if taken is not None:
                book.not_acked()
                taken = None
            case "fence" if name in known and taken is None:
                book.fence([name])
                known.discard(name)
                emitted[name], numbers[name], reached[name], acked[name] = [], [], 0, 0
            case _:
                pass
        for ours in known:
            assert emitted[ours] == sorted(emitted[ours])
            partition = book._partitions[ours]
            acking = sum(each.partition == ours for each in taken or ())
            assert partition.count == len(partition.buffer) + len(partition.in_flight) + acking
            assert book.in_flight({ours}) == len(emitted[ours]) - acked[ours]
        assert book.count == sum(each.count for each in book._partitions.values())
    for ours in known:
        found = book.next(1000, ours)
        book.emit(len(found), ours)
        _ = book.reach(book.emitted, ours)
    if taken is not None:
        book.not_acked()
    _ = book.take_reached()
    book.acked(0.0)
    assert (book.count, book.size, book.in_flight(), book.has_reached()) == (0, 0, 0, False)


def test_one_partition_can_never_take_the_room_of_the_others() -> None:
    book = ledger(positioned=True, max_in_flight=40)
    book.split(lambda _: None)
    book.own(["a", "b"])
    assert book.paused() == frozenset()
    while (room := book.room()) and "a" not in book.paused():
        book.accept([message(book.count + each, "a") for each in range(room)], 0.0)
    assert (book.count, book.paused(), book.room()) == (20, frozenset({"a"}), 20)
    # Not one for each that is acknowledged.
    book.emit(len(book.next(4, "a")), "a")
    _ = book.reach(4, "a")
    _ = book.take_reached()
    book.acked(0.0)
    assert book.paused() == {"a"}
    book.emit(len(book.next(1, "a")), "a")
    _ = book.reach(5, "a")
    _ = book.take_reached()
    book.acked(0.0)
    assert (book.paused(), book.room()) == (frozenset(), 5)
    # Of a partition that comes later, too, although less than its share is left.
    book.accept([message(20 + each, "a") for each in range(5)], 0.0)
    book.own(["c", "d", "e", "f", "g", "h"])
    assert (book.paused(), book.room()) == (frozenset({"a"}), 5)


def test_memory_is_flat_over_a_million_messages() -> None:
    book = ledger(remembered=50)
    for number in range(100_000):
        book.accept([message(2 * number), message(2 * number + 1)], 0.0)
        book.emit(len(book.next(9)))
        _ = book.reach(book.emitted)
        _ = book.take_reached()
        book.acked(0.0)
    assert book.acknowledged == 200_000
    assert len(book._recent) <= 100
    assert len(book._held) == 0
    assert book.oldest() is None


def test_recent_keys_are_the_last_ones_at_least() -> None:
    recent = RecentKeys(10)
    for number in range(1000):
        recent.add(("p", (number,), None))
        assert all(("p", (each,), None) in recent for each in range(max(0, number - 9), number + 1))
        assert len(recent) <= 20
    recent.discard(("p", (999,), None))
    assert ("p", (999,), None) not in recent


def test_the_reader_is_waited_for_only_if_nothing_can_be_acknowledged() -> None:
    book = ledger(max_in_flight=2)
    book.accept([message(1), message(2)], 0.0)
    assert not book.waits_for_reader()
    book.emit(len(book.next(9)))
    assert book.waits_for_reader()
    _ = book.reach(1)
    assert not book.waits_for_reader()
    assert book.take_reached() == [message(1)]
    assert not book.waits_for_reader()
    book.acked(0.0)
    assert not book.waits_for_reader()


def test_an_acknowledgement_that_is_repeated_is_not_progress() -> None:
    book = ledger()
    book.accept([message(1), message(2)], 0.0)
    book.emit(len(book.next(9)))
    _ = book.reach(1)
    book.take_reached()
    book.acked(3.0)
    book.accept([message(1)], 4.0)
    assert book.take_reached() == [message(1)]
    book.acked(5.0)
    assert book.acked_at == 3.0
