"""What a source holds: which messages are buffered, in flight, reached or being acknowledged.

The `Ledger` is a state machine without tasks, time or input and output. So its rules can be tested
one by one, and by random programs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from operator import attrgetter
from typing import Final

from returns_pipeline.connectors._coverage import LedgerCoverage
from returns_pipeline.connectors._entries import Entry, Key, PartitionState, Raw, RecentKeys, key_of
from returns_pipeline.connectors._message import Message
from returns_pipeline.connectors._shares import Shares
from returns_pipeline.connectors._suspects import Suspects

__all__ = ["Ledger"]

# Bytes that a message is expected to have, until the first ones have come.
_FIRST_GUESS: Final = 65_536
_by_number: Final = attrgetter("number")


class Ledger:
    """All messages that a source holds, from their arrival to their acknowledgement.

    The life of an entry::

        accept --> buffered --emit--> in flight --take_reached--> being acknowledged --acked--> gone
                      |                  |  ^                          |
                      |                  |  '-------- not_acked -------'
                      '---- nack, fence -'------------ fence ----------'------------------> gone

    Invariants:

    1. Entries are emitted once, in the order of their arrival, and numbered from 1.
    2. An entry is taken to be acknowledged only if its number is at most the one reached, and in
       each partition in the order of emission. So what is acknowledged of a partition is a prefix
       of what was emitted of it, apart from what was returned by `nack`.
    3. `count` and `size` are those of all entries that are not gone.
    4. A message that is held, or was acknowledged lately, is not accepted a second time.

    A ledger that is *split* has a buffer for each partition, which are emitted and reached apart:
    "up to a number" is then said of one partition. Each has the same share of the room.

    Attributes:
        count: How many messages are held.
        size: The bytes of their values.
        emitted: How many were emitted so far: the number of the last one.
        reached: The greatest number up to which everything has been handled.
        acknowledged: How many were acknowledged.
        acked_at: When the last of them were; not counting what has come again.
        redelivered: How many were delivered again, and not emitted again.
        fenced: How many were in flight when their partition was lost.
        fences: How often partitions were lost.
        refused: How many acknowledgements were refused: another process owns the partition.
        returned: How many were given back.
        lag: How many messages of each partition were not fetched yet, as far as that is known.
        coverage: What is stored of the positions, if they are to be.
        suspects: Counts deliveries, if there are positions: the broker does not.
    """

    def __init__(
        self,
        *,
        max_in_flight: int,
        max_bytes: int,
        positioned: bool,
        remembered: int,
        name: str = "",
        stores: bool = False,
        max_deliveries: float | None = None,
    ) -> None:
        self._max_in_flight = max_in_flight
        self._max_bytes = max_bytes
        self._positioned = positioned
        self._partitions: dict[str, PartitionState] = {}
        self.coverage: LedgerCoverage | None = None
        if stores:
            self.coverage = LedgerCoverage(name, self._partitions)
        self.suspects: Suspects = Suspects(
            max_in_flight=max_in_flight,
            max_deliveries=max_deliveries,
            stores=stores,
            buffers=self._buffers,
            in_flight=self._busy,
        )
        self._buffer: deque[Entry] = deque()
        self._acking: list[Entry] = []
        self._again: list[Entry] = []  # acknowledged lately, and delivered again
        self._to_return: deque[tuple[Entry, float]] = deque()
        # Of a driver without positions: what is held, and what was acknowledged lately.
        self._held: dict[Key, Entry] = {}
        self._recent = RecentKeys(remembered)
        self._mean_size: float = _FIRST_GUESS
        self._shares: Shares | None = None
        self._on_fence: Callable[[Collection[str] | None], object] | None = None
        self.count: int = 0
        self.size: int = 0
        self.emitted: int = 0
        self.reached = 0
        self.acknowledged: int = 0
        self.acked_at: float = float("-inf")
        self.redelivered: int = 0
        self.fenced: int = 0
        self.fences: int = 0
        self.refused: int = 0
        self.returned: int = 0
        self.lag: dict[str, int] = {}

    # Arrival.

    @property
    def buffered(self) -> int:
        """How many messages wait for the reader."""
        return sum(map(len, self._buffers()))

    def room(self) -> int:
        """Return how many messages may be fetched now."""
        if self._shares is not None:
            return self._shares.room()
        room = self._max_in_flight - self.count
        if not self.count:
            return max(1, min(room, int(self._max_bytes / self._mean_size)))
        left = self._max_bytes - self.size
        return max(0, min(room, int(left / self._mean_size) if left > 0 else 0))

    def wants_more(self) -> bool:
        """Return whether to fetch: not one message for each that is acknowledged."""
        room = self.room()
        if self._shares is not None:
            return room > 0
        return room > 0 and (not self._buffer or 4 * room >= self._max_in_flight)

    # One flat loop, for its speed.
    def accept(self, messages: Sequence[Raw], now: float) -> None:  # noqa: C901
        """Buffer messages, except those that are held, or were acknowledged lately."""
        if not messages:
            return
        arrived, coverage, suspects = 0, self.coverage, self.suspects
        is_watched = suspects.have_arrived = False
        # Those of the message before: most are of one partition.
        name, partition = None, PartitionState(self._buffer)
        for message in messages:
            if message.partition != name:
                name = message.partition
                partition = self._partition(name)
                is_watched = suspects.arrive(name)
            if partition.settling:
                continue  # its next owner gets it
            size = len(message.value)
            queue: deque[Entry] | list[Entry] = partition.buffer
            if self._positioned:
                if partition.newest is not None and message.position <= partition.newest:
                    self.redelivered += 1
                    continue
                entry = Entry(message, now, partition)
                if coverage is not None:
                    coverage.place(entry)
                    self.redelivered += entry.is_skipped
                if is_watched:
                    suspects.examine(entry)
                partition.newest = message.position
                arrived += size
            else:
                key = key_of(message)
                held = self._held.get(key)
                if held is not None:
                    held.message = message
                    self.redelivered += 1
                    continue
                entry = self._held[key] = Entry(message, now, partition, key)
                if key in self._recent:
                    self.redelivered += 1
                    queue = self._again
                else:
                    arrived += size
            queue.append(entry)
            self.count += 1
            self.size += size
            if self._shares is not None:
                partition.count += 1
                partition.size += size
        mean = max(1.0, arrived / len(messages))
        # Cautious: it grows at once, and shrinks slowly.
        self._mean_size = max(mean, (self._mean_size + mean) / 2)
        if self._shares is not None:
            self._shares.mean_size = self._mean_size
        elif suspects.have_arrived:
            ordered = sorted(self._buffer, key=suspects.order)
            self._buffer.clear()
            self._buffer.extend(ordered)
        suspects.update()

    def _partition(self, name: str) -> PartitionState:
        found = self._partitions.get(name)
        if found is None:
            found = PartitionState(self._buffer if self._shares is None else deque())
            self._partitions[name] = found
        return found

    def _buffers(self) -> list[deque[Entry]]:
        parts = self._partitions.values()
        return [self._buffer] if self._shares is None else [each.buffer for each in parts]

    def _drop(self, entries: Iterable[Entry]) -> None:
        count = size = 0
        for entry in entries:
            if entry.gone:
                continue
            entry.gone = True
            length = len(entry.message.value)
            count += 1
            size += length
            if entry.key is not None:
                del self._held[entry.key]
            elif self._shares is not None:
                entry.partition.count -= 1
                entry.partition.size -= length
        self.count -= count
        self.size -= size

    # Emission.

    def _buffer_of(self, name: str | None) -> deque[Entry]:
        return self._buffer if name is None else self._partitions[name].buffer

    def next(self, limit: int, name: str | None = None) -> list[Raw]:
        """Return the messages that are to be emitted next, at most ``limit``.

        There are none before one that is to be passed over, see `skip`.
        """
        found: list[Raw] = []
        for entry in islice(self._buffer_of(name), self.suspects.may_emit(limit, name)):
            if entry.is_skipped or entry.gone:
                break
            found.append(entry.message)
        return found

    def skip(self, name: str | None = None) -> bool:
        """Pass over messages that were handled earlier; return whether there were any next."""
        skipped = False
        buffer = self._buffer_of(name)
        while buffer and (buffer[0].gone or buffer[0].is_skipped):
            entry = buffer.popleft()
            if entry.gone:
                continue
            # After everything of it that was emitted so far: a prefix is acknowledged.
            queue = entry.partition.in_flight
            entry.number = queue[-1].number if queue else 0
            queue.append(entry)
            skipped = True
        return skipped

    def emit(self, count: int = 1, name: str | None = None) -> None:
        """Record that the first ``count`` messages that `next` returned were emitted."""
        take, stores = self._buffer_of(name).popleft, self.coverage is not None
        for number in range(self.emitted + 1, self.emitted + count + 1):
            entry = take()
            entry.number = number
            partition = entry.partition
            partition.in_flight.append(entry)
            if stores:
                partition.emitted[entry.message.position] = entry
        self.emitted += count
        self.suspects.emitted(count)

    def reach(self, number: int, name: str | None = None) -> bool:
        """Record that everything emitted up to a number was handled; return whether that is new."""
        it = self if name is None else self._partitions[name]
        if number <= it.reached:
            return False
        it.reached = number
        return True

    # Acknowledgement.

    def has_reached(self) -> bool:
        """Return whether there is something to acknowledge, or being acknowledged."""
        if self._acking or self._again:
            return True
        return any(self._head(each) <= self._reached(each) for each in self._partitions.values())

    def _reached(self, of: PartitionState) -> int:
        return self.reached if self._shares is None else of.reached

    def _head(self, partition: PartitionState) -> float:
        """Return the number of the first entry in flight; infinity if there is none."""
        queue = partition.in_flight
        while queue and queue[0].gone:
            _ = queue.popleft()
        return queue[0].number if queue else float("inf")

    def take_reached(self) -> list[Raw]:
        """Return the messages to acknowledge now, in order. `acked` or `not_acked` must follow."""
        assert not self._acking, "one acknowledgement at a time"
        batch = [entry for entry in self._again if not entry.gone]
        self._again = []
        for partition in self._partitions.values():
            queue, reached = partition.in_flight, self._reached(partition)
            while queue and (queue[0].number <= reached or queue[0].gone):
                entry = queue.popleft()
                if not entry.gone:
                    batch.append(entry)
        batch.sort(key=_by_number)
        self._acking = batch
        return [entry.message for entry in batch]

    def acked(self, now: float) -> None:
        """Record that the messages taken last are acknowledged."""
        batch, self._acking = self._acking, []
        self.acked_at = now if batch and batch[-1].number else self.acked_at
        batch = [entry for entry in batch if not entry.gone]
        self._drop(batch)
        self.acknowledged += len(batch)
        if self.suspects.held:
            self.suspects.acquit(batch)
        for entry in batch if self._shares is not None else ():
            entry.partition.acked_at = now
        if self.coverage is not None:
            self.coverage.acknowledged(batch)
        elif not self._positioned:
            for entry in batch:
                assert entry.key is not None
                self._recent.add(entry.key)

    def not_acked(self) -> None:
        """Record that it is not known whether they are: they are to be acknowledged again."""
        batch, self._acking = self._acking, []
        for entry in reversed(batch):
            if not entry.gone:
                entry.partition.in_flight.appendleft(entry)

    def refuse(self, partitions: Collection[str]) -> None:
        """Record that an acknowledgement was refused: other processes own these partitions."""
        self.refused += sum(
            not entry.gone and entry.message.partition in partitions for entry in self._acking
        )
        self.fence(partitions)
        self.not_acked()

    def held(self, since: float) -> list[Raw]:
        """Return the messages to keep alive: those that arrived at ``since`` or later."""
        return [entry.message for entry in self._entries() if entry.since >= since]

    def oldest(self) -> float | None:
        """Return when the oldest message arrived that is held, if one is."""
        return min((entry.since for entry in self._entries()), default=None)

    def _entries(self) -> Iterator[Entry]:
        queues = [each.in_flight for each in self._partitions.values()]
        for queue in [self._acking, self._again, *queues, *self._buffers()]:
            for entry in queue:
                if not entry.gone:
                    yield entry

    def in_flight(self, partitions: Collection[str] | None = None) -> int:
        """Return how many messages were emitted and are not acknowledged."""
        count = 0
        for name, partition in self._partitions.items():
            if partitions is None or name in partitions:
                count += sum(not entry.gone for entry in partition.in_flight)
        return count + sum(
            not entry.gone
            for entry in self._acking
            if partitions is None or entry.message.partition in partitions
        )

    def _busy(self, partitions: Collection[str] | None) -> int:
        """Return how many messages may be handled now, as far as that is known."""
        held = self.in_flight(partitions)
        if partitions is not None or self.is_split:
            return held
        # The reader may still have some of partitions that were lost.
        return held + self.emitted - self.reached

    def unreached(self, name: str | None = None) -> int:
        """Return how many messages were emitted, are held, and were not reached."""
        if name is not None:
            partition = self._partitions[name]
            return sum(entry.number > partition.reached for entry in partition.in_flight)
        return sum(entry.number > self.reached for entry in self._entries())

    def waits_for_reader(self) -> bool:
        """Return whether nothing can be emitted until the reader reaches more."""
        if self.suspects.is_waiting:
            return self.reached < self.emitted and not self.has_reached()
        return self.count > 0 and self.room() == 0 and not self._buffer and not self.has_reached()

    # Giving back.

    def find(self, message: Message[object]) -> Entry | None:
        """Return the entry of a message that was emitted and is not acknowledged."""
        found = self._held.get(key_of(message))
        return found if found is not None and found.number else None

    def nack(self, entry: Entry, delay: float) -> None:
        """Take an entry out: it is to be given back to the broker."""
        self._drop([entry])
        self.returned += 1
        self._to_return.append((entry, delay))

    def take_returned(self) -> tuple[Raw, float] | None:
        """Return the next message to give back, if there is one, with its delay in seconds."""
        if not self._to_return:
            return None
        entry, delay = self._to_return.popleft()
        return entry.message, delay

    def release(self, delay: float) -> None:
        """Take out everything: it is to be given back; what was emitted, after a delay."""
        for entry in list(self._entries()):
            self.nack(entry, delay if entry.number else 0.0)
        for buffer in self._buffers():
            buffer.clear()

    # Partitions.

    def settle(self, partitions: Collection[str]) -> None:
        """Accept and emit nothing more of these partitions; what was emitted stays in flight."""
        for name in partitions:
            self._partition(name).settling = True
        self.suspects.settle(partitions)
        for buffer in self._buffers():
            self._drop(entry for entry in buffer if entry.message.partition in partitions)
        self._sweep()

    def _sweep(self) -> None:
        """Take out of the buffers what is gone."""
        for buffer in self._buffers():
            kept = [entry for entry in buffer if not entry.gone]
            buffer.clear()
            buffer.extend(kept)

    def fence(self, partitions: Collection[str] | None) -> None:
        """Forget everything about partitions, or about all."""
        if self._on_fence is not None:
            _ = self._on_fence(partitions)
        self.fences += partitions is None or len(partitions) > 0
        for entry in list(self._entries()):
            if partitions is None or entry.message.partition in partitions:
                self.fenced += entry.number > 0 and not entry.is_skipped
                self._drop([entry])
        self._sweep()
        self._to_return = deque(
            each
            for each in self._to_return
            if partitions is not None and each[0].message.partition not in partitions
        )
        names = {*self._partitions, *self.lag} if partitions is None else partitions
        self.suspects.fence(names)
        for name in names:
            lost = self._partitions.pop(name, None)
            if lost is not None and self.coverage is not None:
                self.coverage.lost(name, lost)
            _ = self.lag.pop(name, None)
        self._recent.forget(partitions)

    # Partitions that are read apart.

    def split(self, on_fence: Callable[[Collection[str] | None], object]) -> None:
        """Read partitions apart: each has a buffer and a share of its own.

        Args:
            on_fence: Is called before something is forgotten about partitions, or about all.

        Raises:
            RuntimeError: It is split, or something was accepted.
        """
        if self._partitions or self._shares is not None:
            raise RuntimeError("partitions are read apart from the start, and by one reader")
        self._on_fence = on_fence
        most = self._max_in_flight, self._max_bytes
        self._shares = Shares(self._partitions, *most, self._mean_size)

    @property
    def is_split(self) -> bool:
        """Whether each partition has a buffer of its own."""
        return self._shares is not None

    @property
    def leaves_out(self) -> bool:
        """Whether there may be partitions to be read, although there is no room."""
        return self._shares is not None and self._shares.are_kept

    def own(self, partitions: Iterable[str]) -> None:
        """Record that partitions are going to be read: each has its share from now on."""
        for name in partitions:
            _ = self._partition(name)

    def paused(self) -> frozenset[str]:
        """Return the partitions of which nothing more is to be fetched now."""
        return frozenset() if self._shares is None else self._shares.paused()

    def waiting(self) -> list[str]:
        """Return the partitions of which messages are buffered."""
        return [name for name, partition in self._partitions.items() if partition.buffer]

    def is_settling(self, name: str) -> bool:
        """Return whether nothing more of a partition is emitted."""
        return self._partitions[name].settling

    def is_starved(self, name: str) -> bool:
        """Return whether nothing of a partition can be fetched until its reader reaches more."""
        partition = self._partitions[name]
        assert self._shares is not None
        if not partition.count or self._head(partition) <= partition.reached:
            return False
        if any(entry.message.partition == name for entry in self._acking):
            return False
        if self.suspects.is_waiting:
            return bool(partition.in_flight)
        if partition.buffer:
            return False
        return self._shares.is_paused(partition)

    def stalled(self, now: float) -> dict[str, float]:
        """Return for how long each partition has waited for its next acknowledgement."""
        waits: dict[str, float] = {}
        for entry in self._entries() if self.is_split else ():
            name, begun = entry.message.partition, max(entry.since, entry.partition.acked_at)
            if self.suspects.is_waiting:  # for those of any partition
                begun = max(begun, self.acked_at)
            waits[name] = max(waits.get(name, 0.0), now - begun)
        return waits
