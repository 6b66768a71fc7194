"""Which messages may have killed a process, and how the one that did is found.

For brokers that do not count deliveries, whose partitions have owners and positions. Before an
owner emits messages of a partition, it *notes* next to the position that an attempt at them has
begun, and takes that back when it ends in good order. So a note that the next owner finds was left
by a process that died, and what was in flight then is a *suspect*.

A note is written when the messages of a partition begin, and not for each message. So after a
crash all that may have been in flight are suspects, thousands as a rule, and all but one of them
innocent. They are tried in groups, each smaller than before the crash, and alone in the end.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Final

from returns_pipeline.connectors._entries import Entry
from returns_pipeline.connectors._message import Position, with_deliveries

__all__ = ["Attempt", "Suspects"]

_ENDLESS: Final[Position] = (2**63,)
# What a note counts is less than this, or another program has written it.
_LIMIT: Final = 2**31
# How many positions of dead letters a note has at most.
_MOST_CONVICTED: Final = 20


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a note says: these messages were delivered so often, and may be in flight.

    Attributes:
        count: How often, this time included.
        width: How many messages, at most.
        after: They are after this position; by default after what is acknowledged.
        last: None of them is after this position. So a note expires when what it is about has been
            acknowledged.
        is_alone: Whether nothing else was in flight in the process.
        by: The source that has them in flight; empty if none has, and they are only remembered.
        convicted: The positions of dead letters that may be read again.
    """

    count: int
    width: int
    after: Position | None = None
    last: Position | None = None
    is_alone: bool = False
    by: str = ""
    convicted: tuple[Position, ...] = ()

    def note(self) -> str:
        """Return it as a text."""
        facts = [self.count, self.width, self.after, self.last, self.is_alone, self.by]
        return json.dumps([*facts, self.convicted])

    @staticmethod
    def read(note: str) -> Attempt | None:
        """Return what a note says; `None` if it is empty, or another program has written it."""
        try:
            count, width, *ends, is_alone, by, convicted = json.loads(note)
            after, last = (None if end is None else _position(end) for end in ends)
            found = tuple(_position(each) for each in convicted)
            read = Attempt(int(count), int(width), after, last, bool(is_alone), str(by), found)
        except (ValueError, TypeError, OverflowError, RecursionError):
            return None
        return read if 0 <= read.count < _LIMIT and 0 <= read.width < _LIMIT else None


def _position(numbers: Iterable[int]) -> Position:
    return tuple(int(number) for number in numbers)


class _State:
    """What is known of a partition.

    Attributes:
        note: What is noted of it.
        count: How many processes have died while its suspects were in flight.
        expected: How many suspects may still arrive.
        after: Those are after this. What comes before was acknowledged, but its position is not
            stored with effects: it is read again, and is tried with them, to keep the order.
        end: None of them is after this.
        held: How many have arrived, and are not acknowledged.
        group: How many are tried at a time.
        is_convicted: Whether the only suspect was in flight alone when too many of them died.
        convicted: The positions of dead letters that may be read again.
        is_begun: Whether a message has arrived: it has a note from then on.
        is_settling: Whether it is about to be lost: it is left in good order.
    """

    __slots__ = (
        "after",
        "convicted",
        "count",
        "end",
        "expected",
        "group",
        "held",
        "is_begun",
        "is_convicted",
        "is_settling",
        "note",
    )

    def __init__(self, note: str) -> None:
        self.note = note
        self.count = self.expected = self.held = 0
        self.group = 1
        self.after: Position = ()
        self.end: Position = _ENDLESS
        self.convicted: tuple[Position, ...] = ()
        self.is_convicted = self.is_begun = self.is_settling = False

    @property
    def left(self) -> int:
        """How many suspects there are."""
        return self.expected + self.held

    @property
    def is_watched(self) -> bool:
        """Whether what arrives may be a suspect."""
        return self.expected > 0 or bool(self.convicted)

    def rest(self) -> str:
        """Return the note for a time in which nothing of it is in flight."""
        count = self.count if self.left else 0
        if not (count or self.convicted):
            return ""
        last = None if self.end == _ENDLESS else self.end
        return Attempt(
            count, self.left, self.after, last, self.is_convicted, convicted=self.convicted
        ).note()


class _Trial:
    """A group of suspects, which is all that is in flight.

    Attributes:
        name: Their partition.
        note: The note of it while they are in flight.
        left: How many are not emitted yet.
    """

    __slots__ = ("left", "name", "note")

    def __init__(self, name: str, note: str, left: int) -> None:
        self.name, self.note, self.left = name, note, left


class Suspects:
    """Counts the deliveries of messages, and finds out which of them kills its readers.

    Three modes:

    1. *Flowing*, while no suspects have arrived. Everything may be emitted of partitions that have
       a note.
    2. *Draining*, when some have: nothing is emitted until nothing is in flight.
    3. *A trial*: a group of suspects of one partition is emitted. When they are acknowledged, the
       next group is, until there are no suspects left.

    Before each trial the notes of the other partitions are taken back: nothing of them is in
    flight. So the next crash is held against the messages of the trial only. If that was one
    message, and ``max_deliveries`` processes have died of it, it is convicted.

    Between the first delivery and the last one, which is alone, the groups become smaller by the
    same factor each time: of 5000 messages with three deliveries, 71 are in the second.

    Args:
        max_in_flight: How many messages may be in flight.
        max_deliveries: How often each may be delivered; ``None`` if that is not counted.
        stores: Whether positions are stored with effects: then what is acknowledged may be read
            again.
        buffers: Returns the queues of messages that wait to be emitted.
        in_flight: Returns how many are in flight, of partitions, or of all.

    Attributes:
        allowed: How many messages may be emitted now.
        is_waiting: Whether nothing more is emitted before what is in flight is acknowledged.
        have_arrived: Whether suspects have arrived since this was set to false.
        held: How many have arrived, and are not acknowledged.
    """

    def __init__(
        self,
        *,
        max_in_flight: int,
        max_deliveries: float | None,
        stores: bool,
        buffers: Callable[[], Iterable[Iterable[Entry]]],
        in_flight: Callable[[Collection[str] | None], int],
    ) -> None:
        self._max_in_flight = max_in_flight
        self._most = max_deliveries
        self._stores = stores
        self._buffers = buffers
        self._in_flight = in_flight
        self._me = secrets.token_hex(4)
        self._states: dict[str, _State] = {}
        self._trial: _Trial | None = None
        self._is_draining = False
        self._is_given_up = False
        self._is_stopped = False
        self._wanted: dict[str, str] = {}
        self._is_calm = True  # nothing changes but by what arrives
        self.allowed: float = math.inf
        self.have_arrived: bool = False
        self.held: int = 0

    @property
    def is_waiting(self) -> bool:
        return self._is_draining or self._trial is not None

    # Arrival.

    def begin(self, name: str, note: str, after: Position, end: Position) -> Attempt | None:
        """Begin with a partition; return what was attempted by a process that has died.

        Args:
            name: The partition.
            note: What is noted of it.
            after: The position that its group has acknowledged.
            end: The end of the partition: what comes after it was not in flight before.
        """
        if name in self._states:  # the connection was lost, and the partition was not
            self._states[name].note = note
            self._is_calm = False
            return None
        state = self._states[name] = _State(note)
        self._is_calm = False
        attempt = Attempt.read(note)
        if attempt is None or self._most is None:
            return None
        state.convicted = attempt.convicted
        if attempt.by == self._me:  # it has not died
            attempt = replace(attempt, count=attempt.count - 1, is_alone=False)
        if not attempt.count:
            state.group = self._max_in_flight
            return None
        state.count, state.expected = attempt.count, attempt.width
        state.after = after if attempt.after is None else attempt.after
        state.end = end if attempt.last is None else min(end, attempt.last)
        state.is_convicted = attempt.is_alone and attempt.count >= self._most
        trials = self._most - attempt.count  # and the last of them is alone
        if trials > 1:
            state.group = math.ceil(attempt.width ** ((trials - 1) / trials))
        return attempt if attempt.by != self._me else None

    def arrive(self, name: str) -> bool:
        """Record that messages of a partition arrive; return whether to `examine` each.

        A note is needed before they are emitted.
        """
        state = self._states.get(name)
        if state is None:
            return False
        if not state.is_begun:
            state.is_begun = True
            self._is_calm = False
        return state.is_watched

    def examine(self, entry: Entry) -> None:
        """Record that a message has arrived: it may be a suspect."""
        message = entry.message
        state = self._states.get(message.partition)
        if state is None or not state.is_watched:
            return
        position = message.position
        floor = max((state.after if state.expected else (), *state.convicted))
        is_new = position > state.after and state.expected > 0
        if position > floor and (position > state.end or not state.expected):
            self._is_calm = self._is_calm and not state.expected
            state.expected = 0
            return
        self._is_calm = False
        state.expected -= is_new
        if entry.is_skipped:  # it was handled
            return
        assert self._most is not None
        entry.is_suspect = True
        self.have_arrived = True
        state.held += 1
        self.held += 1
        deliveries = state.count + 1
        if position in state.convicted:
            deliveries = int(self._most) + 1
        elif not (state.is_convicted and is_new):
            deliveries = int(min(deliveries, self._most))
        entry.message = with_deliveries(message, deliveries)

    def order(self, entry: Entry) -> tuple[Any, ...]:
        """Return where an entry belongs in a buffer: suspects first, each partition together."""
        if not entry.is_suspect:
            return (2,)
        name = entry.message.partition
        return (self._trial is None or name != self._trial.name, name)

    # Emission, and what comes after it.

    def may_emit(self, limit: int, name: str | None) -> int:
        """Return how many messages may be emitted, of a partition that is read apart."""
        trial = self._trial
        if trial is not None and name not in {None, trial.name}:
            return 0
        return limit if self.allowed == math.inf else min(limit, int(self.allowed))

    def emitted(self, count: int) -> None:
        """Record that messages were emitted."""
        if self._trial is not None:
            self._trial.left -= count
            self.allowed -= count

    def acquit(self, entries: Iterable[Entry]) -> None:
        """Record that messages are acknowledged."""
        for entry in entries:
            state = self._states.get(entry.message.partition) if entry.is_suspect else None
            if state is None:
                continue
            state.held -= 1
            self.held -= 1
            self._is_calm = False
            message = entry.message
            state.after = max(state.after, message.position)
            if self._stores and self._most is not None and message.deliveries > self._most:
                known = {*state.convicted, message.position}
                state.convicted = tuple(sorted(known)[-_MOST_CONVICTED:])

    def settle(self, partitions: Iterable[str]) -> None:
        """Record that nothing more of these partitions is emitted."""
        for name in partitions:
            if name in self._states:
                self._states[name].is_settling = True
                self._is_calm = False
                if self._trial is not None and self._trial.name == name:
                    self._trial.left = 0  # what is in flight of it is still alone

    def fence(self, partitions: Iterable[str]) -> None:
        """Forget partitions."""
        for name in partitions:
            if (state := self._states.pop(name, None)) is not None:
                self.held -= state.held
                self._is_calm = False
                if self._trial is not None and self._trial.name == name:
                    self._trial = None

    def give_up(self) -> None:
        """End the trial, and emit everything until nothing is in flight."""
        self._is_given_up = self.is_waiting
        self._is_calm = False

    def stop(self) -> None:
        """Begin no other trial: nothing more is emitted."""
        self._is_stopped = True
        self._is_calm = False

    # Notes.

    def update(self) -> None:
        """Decide what may be emitted, and what is to be noted before."""
        if self._is_calm:
            return
        is_busy = self._in_flight(None) > 0
        self._is_given_up = self._is_given_up and is_busy
        if self._trial is not None and (self._is_given_up or not (self._trial.left or is_busy)):
            self._trial = None
        self._is_draining = False
        if self._trial is None and not (self._is_given_up or self._is_stopped):
            group = self._next_group()
            if group and is_busy:
                self._is_draining = True
            elif group:
                self._trial = self._try(group)
        wants = {name: self._note_for(name, state) for name, state in self._states.items()}
        self._wanted = {
            name: note for name, note in wants.items() if note != self._states[name].note
        }
        is_noted = self._most is None or all(
            self._states[name].is_settling for name in self._wanted
        )
        flow = math.inf if self._trial is None else self._trial.left
        self.allowed = 0 if self._is_draining or not is_noted else flow
        self._is_calm = not (self._wanted or self.is_waiting or self._is_given_up)
        if any(state.is_settling for state in self._states.values()):
            self._is_calm = False

    def _next_group(self) -> list[Entry]:
        """Return the suspects that are to be tried next, as many of them as have arrived."""
        for buffer in self._buffers():
            waiting = (entry for entry in buffer if not (entry.gone or entry.is_skipped))
            suspects = takewhile(lambda entry: entry.is_suspect, waiting)
            first = next(suspects, None)
            if first is None:
                continue
            name = first.message.partition
            size = self._states[name].group
            group = [first]
            for entry in suspects:
                if len(group) == size or entry.message.partition != name:
                    break
                group.append(entry)
            return group
        return []

    def _try(self, group: list[Entry]) -> _Trial:
        first, last = group[0].message, group[-1].message
        state, size = self._states[last.partition], len(group)
        attempt = Attempt(
            state.count + 1,
            size,
            (*first.position[:-1], first.position[-1] - 1),
            last.position,
            is_alone=size == 1,
            by=self._me,
            convicted=state.convicted,
        )
        return _Trial(last.partition, attempt.note(), size)

    def _note_for(self, name: str, state: _State) -> str:
        """Return what is to be noted of a partition now."""
        if not state.is_begun:
            return state.note
        if self._most is None:
            return ""
        if state.is_settling:
            return state.note if self._in_flight([name]) else state.rest()
        if self._trial is not None:
            return self._trial.note if self._trial.name == name else state.rest()
        if self._is_draining or self._is_stopped:
            return state.note
        if state.left and not self._is_given_up:
            return state.rest()
        count = state.count if state.left else 0
        width, known = self._max_in_flight, state.convicted
        return Attempt(count + 1, width, by=self._me, convicted=known).note()

    def wanted(self) -> dict[str, str]:
        """Return the notes that are to be written now; `noted` must follow."""
        self.update()
        return self._wanted.copy()

    def is_owed(self, partitions: Collection[str]) -> bool:
        """Return whether notes of partitions that are about to be lost are not written yet."""
        self.update()
        return any(name in self._wanted for name in partitions)

    def last_notes(self) -> dict[str, str]:
        """Return the notes of an end in good order."""
        last = {name: state.rest() for name, state in self._states.items() if state.is_begun}
        return {name: note for name, note in last.items() if note != self._states[name].note}

    def noted(self, notes: Mapping[str, str]) -> None:
        """Record that notes are written."""
        for name, note in notes.items():
            if name in self._states:
                self._states[name].note = note
        self.update()
