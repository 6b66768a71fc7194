"""`check_journal`: our journals pass it, and each violated claim is reported."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from returns_pipeline._engine.spans import Spans
from returns_pipeline.compensation.protocol import TakenPartition
from returns_pipeline.errors import InvalidArgument, JournalError, LeaseLost
from returns_pipeline.journal import SqliteJournal, StoredAction, StoredSaga, encode_arguments
from returns_pipeline.testing import check_journal, run
from returns_pipeline.testing._journal_contract import CASES, recording

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from returns_pipeline.compensation import Intent
    from returns_pipeline.compensation.protocol import Coverage, HandledPositions
    from returns_pipeline.journal import PostgresJournal


# The shortest journal that keeps its contract; subclasses violate it below.


@dataclass
class Saga:
    id: str
    name: str
    number: int
    owner: str
    epoch: int = 1
    began: float = field(default_factory=time.time)
    actions: dict[str, StoredAction] = field(default_factory=dict)


@dataclass
class Store:
    sagas: dict[str, Saga] = field(default_factory=dict)
    alive: set[str] = field(default_factory=set)
    numbers: Iterable[int] = field(default_factory=itertools.count)
    taken: dict[tuple[str, str], TakenPartition] = field(default_factory=dict)


class MemoryJournal:
    """One owner's journal on a store. Its methods are small: each can be broken separately."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.open()

    def open(self) -> None:
        self.owner = uuid4().hex
        self.store.alive.add(self.owner)
        self.held: dict[str, int] = {}

    async def checkpoint(self) -> None:
        """Yield to other tasks, as real journals do."""
        await asyncio.sleep(0)

    # The decisions of a journal.

    def check(self, saga: Saga) -> None:
        if saga.owner != self.owner or self.held.get(saga.id) != saga.epoch:
            raise LeaseLost("memory", f"saga {saga.id} was taken over")

    def is_alive(self, owner: str) -> bool:
        return owner in self.store.alive

    def text(self, text: str) -> str:
        return text[:1000].encode(errors="backslashreplace").decode()

    def words(self, error: object) -> str:
        try:
            return self.text(repr(error))
        except Exception:
            return object.__repr__(error)

    def saga_of(self, action: str) -> Saga:
        for saga in self.store.sagas.values():
            if action in saga.actions:
                self.check(saga)
                return saga
        raise LeaseLost("memory", f"action {action} is gone")

    def opened(self, saga: str, name: str) -> Saga:
        if saga not in self.store.sagas:
            if saga in self.held:
                raise LeaseLost("memory", f"saga {saga} is gone")
            number = next(iter(self.store.numbers))
            self.store.sagas[saga] = Saga(saga, self.text(name), number, self.owner)
            self.held[saga] = 1
        found = self.store.sagas[saga]
        self.check(found)
        return found

    def drop(self, saga: Saga) -> None:
        if not saga.actions:
            del self.store.sagas[saga.id]
            del self.held[saga.id]

    def change(self, action: str, **columns: object) -> None:
        saga = self.saga_of(action)
        saga.actions[action] = replace(saga.actions[action], **columns)  # type: ignore[arg-type]

    # For scopes.

    def stored(self, intent: Intent) -> StoredAction:
        arguments = encode_arguments(intent)
        names = (self.text(intent.path), intent.key, intent.undo.name, intent.undo.version)
        return StoredAction(intent.id, intent.position, *names, arguments, "pending", 0, 0.0, "")

    async def record(self, intent: Intent, /) -> None:
        stored = self.stored(intent)
        if any(intent.id in saga.actions for saga in self.store.sagas.values()):
            raise JournalError("memory", "this id is taken")
        self.opened(intent.saga, intent.saga_name).actions[intent.id] = stored
        await self.checkpoint()

    async def forget(
        self, ids: Sequence[str], /, positions: Sequence[HandledPositions] = ()
    ) -> None:
        found = [(self.saga_of(action), action) for action in ids]
        for each in positions:
            self.check_taken(each)
        for each in positions:
            self.cover(each)
        for saga, action in found:
            del saga.actions[action]
        for saga in {id(saga): saga for saga, _ in found}.values():
            self.drop(saga)
        await self.checkpoint()

    # For a source.

    coverage: Coverage | None = None

    def attach(self, coverage: Coverage, /) -> None:
        self.coverage = coverage

    def detach(self) -> None:
        self.coverage = None

    async def take(self, source: str, partitions: Sequence[str], /) -> Mapping[str, TakenPartition]:
        taken = self.store.taken
        for name in partitions:
            epoch, spans = taken.get((source, name), (0, Spans()))
            taken[source, name] = TakenPartition(epoch + 1, spans)
        await self.checkpoint()
        return {name: taken[source, name] for name in partitions}

    def check_taken(self, each: HandledPositions) -> None:
        if self.store.taken[each.source, each.partition].epoch != each.epoch:
            raise LeaseLost("memory", f"{each.name} was taken over")

    def cover(self, each: HandledPositions) -> None:
        spans = self.store.taken[each.source, each.partition].spans.with_all(each.stretches)
        self.store.taken[each.source, each.partition] = TakenPartition(each.epoch, spans)

    def forget_later(
        self, ids: Sequence[str], on_lost: Callable[[JournalError], object], /
    ) -> None:
        for saga in list(self.store.sagas.values()):
            if saga.owner == self.owner and self.held.get(saga.id) == saga.epoch:
                for action in ids:
                    if self.is_open(saga.actions.get(action)):
                        del saga.actions[action]
                self.drop(saga)
            elif saga.actions.keys() & ids:
                on_lost(LeaseLost("memory", "taken over"))

    def is_open(self, action: StoredAction | None) -> bool:
        return action is not None and action.state in {"pending", "deferred"}

    async def flush(self) -> None:
        await self.checkpoint()

    def move(self, ids: Sequence[str], /, *, saga: str, name: str, prefix: str) -> None:
        try:
            found = [(self.saga_of(action), action) for action in ids]
        except LeaseLost:
            return
        target = self.opened(saga, name)
        for old, action in found:
            moved = old.actions.pop(action)
            target.actions[action] = replace(moved, position=self.placed(moved, prefix))
        for old in {id(old): old for old, _ in found}.values():
            self.drop(old)

    def placed(self, action: StoredAction, prefix: str) -> str:
        return prefix + action.position

    def abandon(self, ids: Sequence[str], /) -> None:
        for old in list(self.store.sagas.values()):
            left = {action: old.actions[action] for action in ids if action in old.actions}
            if left and old.owner == self.owner and self.held.get(old.id) == old.epoch:
                number = next(iter(self.store.numbers))
                new = self.store.sagas[f"{number}"] = Saga(f"{number}", old.name, number, "")
                new.actions.update(left)
                for action in left:
                    del old.actions[action]
                self.drop(old)

    def mark(self, action: str, /) -> Mark:
        return Mark(self, action)

    # For recovery.

    def claimable(
        self, besides: AbstractSet[str], known: Mapping[str, int] | None = None
    ) -> list[Saga]:
        """Return what may be claimed, the best first."""
        found = [
            saga
            for saga in self.store.sagas.values()
            if saga.id not in besides and not self.is_alive(saga.owner) and self.has_work(saga)
        ]
        if known is not None:
            found = [saga for saga in found if not self.passes_over(saga, known)]
        return sorted(found, key=lambda saga: -saga.number)

    def has_work(self, saga: Saga) -> bool:
        return any(self.is_open(action) for action in saga.actions.values())

    def passes_over(self, saga: Saga, known: Mapping[str, int]) -> bool:
        open_ = [action for action in saga.actions.values() if self.is_open(action)]
        newest = max(open_, key=lambda action: action.position)
        return newest.state == "deferred" and known.get(newest.name, -1) < newest.version

    async def claim(
        self, *, besides: AbstractSet[str], known: Mapping[str, int] | None = None
    ) -> StoredSaga | None:
        found = self.claimable(besides, known)
        given = self.take_over(found[0]) if found else None
        await self.checkpoint()
        return given

    def take_over(self, saga: Saga) -> StoredSaga:
        saga.owner = self.owner
        saga.epoch += 1
        self.held[saga.id] = saga.epoch
        return self.seen(saga)

    async def release(self, saga: str) -> None:
        if saga not in self.store.sagas:
            raise LeaseLost("memory", f"saga {saga} is gone")
        self.check(self.store.sagas[saga])
        self.store.sagas[saga].owner = ""
        await self.checkpoint()

    async def defer(self, action: str, reason: str) -> None:
        self.change(action, state="deferred", error=self.text(reason))
        await self.checkpoint()

    async def postpone(self, action: str, error: object, until: float) -> None:
        self.change(action, error=self.words(error), next_attempt=until)
        await self.checkpoint()

    # For people.

    def sorted(self, actions: Iterable[StoredAction]) -> list[StoredAction]:
        return sorted(actions, key=lambda action: action.position, reverse=True)

    def seen(self, saga: Saga) -> StoredSaga:
        alive = self.is_alive(saga.owner)
        actions = tuple(self.sorted(saga.actions.values()))
        return StoredSaga(saga.id, saga.name, saga.began, saga.owner, alive, actions)

    async def sagas(self, *, done: bool = True) -> list[StoredSaga]:
        await self.checkpoint()
        sagas = sorted(self.store.sagas.values(), key=lambda saga: -saga.number)
        seen = [self.seen(saga) for saga in sagas]
        return [saga for saga in seen if done or {a.state for a in saga.actions} != {"done"}]

    def given_up(self, saga: str) -> list[StoredAction]:
        if saga not in self.store.sagas:
            return []
        found = self.store.sagas[saga]
        states = {"stuck"} if self.is_alive(found.owner) else {"stuck", "deferred"}
        return [action for action in found.actions.values() if action.state in states]

    async def retry(self, saga: str) -> int:
        found = self.given_up(saga)
        for action in found:
            again = replace(action, state="pending", attempts=0, next_attempt=0.0)
            self.retried(self.store.sagas[saga], action.id)[action.id] = again
        await self.checkpoint()
        return len(found)

    def retried(self, saga: Saga, action: str) -> dict[str, StoredAction]:
        if not self.is_alive(saga.owner):
            return saga.actions
        del saga.actions[action]
        made = Saga(uuid4().hex, saga.name, next(iter(self.store.numbers)), "")
        self.store.sagas[made.id] = made
        return made.actions

    async def discard(self, saga: str, reason: str) -> int:
        found = self.given_up(saga)
        for action in found:
            over = replace(action, state="done", error=f"discarded: {self.text(reason)}")
            self.store.sagas[saga].actions[action.id] = over
        await self.checkpoint()
        return len(found)

    async def close(self) -> None:
        self.store.alive.discard(self.owner)
        await self.checkpoint()
        self.open()


@dataclass
class Mark:
    journal: MemoryJournal
    action: str

    async def begin(self) -> None:
        attempts = self.journal.saga_of(self.action).actions[self.action].attempts
        self.journal.change(self.action, attempts=attempts + 1)
        await self.journal.checkpoint()

    async def done(self) -> None:
        self.journal.change(self.action, state="done")
        await self.journal.checkpoint()

    async def give_up(self, error: object) -> None:
        self.journal.change(self.action, state="stuck", error=self.journal.words(error))
        await self.journal.checkpoint()


async def silence(journal: MemoryJournal) -> None:
    journal.store.alive.discard(journal.owner)


# Journals that violate one claim each, by the claim.

BROKEN: dict[str, type[MemoryJournal]] = {}


def breaks(words: str) -> Callable[[type[MemoryJournal]], type[MemoryJournal]]:
    """Register a journal under the claim that it violates, by a few words of the claim."""
    (claim,) = [claim for claim in CASES if words in claim]

    def register(broken: type[MemoryJournal]) -> type[MemoryJournal]:
        BROKEN[f"{claim} #{broken.__name__}"] = broken
        return broken

    return register


@breaks("on record, with all its data")
class Late(MemoryJournal):
    """Records only after it has returned."""

    async def record(self, intent: Intent, /) -> None:
        self.task = asyncio.ensure_future(self.later(intent))

    async def later(self, intent: Intent) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        await super().record(intent)


@breaks("on record, with all its data")
class Keyless(MemoryJournal):
    def stored(self, intent: Intent) -> StoredAction:
        return replace(super().stored(intent), key="")


@breaks("an id is recorded once")
class Overwriting(MemoryJournal):
    async def record(self, intent: Intent, /) -> None:
        with suppress(LeaseLost):
            await self.forget([intent.id])
        await super().record(intent)


@breaks("a committed action is gone")
class Hoarding(MemoryJournal):
    """Keeps empty sagas."""

    def drop(self, saga: Saga) -> None:
        pass


@breaks("a committed action is gone")
class Once(MemoryJournal):
    """Believes that it has lost a saga which it still has."""

    def drop(self, saga: Saga) -> None:
        if not saga.actions:
            del self.store.sagas[saga.id]


@breaks("a commit that is left to the journal")
class Lazy(MemoryJournal):
    """Leaves a refused commit to the next process."""

    def forget_later(self, ids: Sequence[str], *_: object) -> None:
        pass


@breaks("a commit that is left to the journal")
class Thorough(MemoryJournal):
    """Deletes what was undone as well."""

    def is_open(self, action: StoredAction | None) -> bool:
        return action is not None


@breaks("an owner that released a saga")
class Presumptuous(MemoryJournal):
    """Commits what is not its own any more."""

    def forget_later(self, ids: Sequence[str], *_: object) -> None:
        for saga in list(self.store.sagas.values()):
            for action in ids:
                saga.actions.pop(action, None)


@breaks("an owner that released a saga")
class Secretive(MemoryJournal):
    """Does not tell that a late commit is lost."""

    def forget_later(self, ids: Sequence[str], *_: object) -> None:
        super().forget_later(ids, bool)


@breaks("a commit is all or nothing")
class Piecemeal(MemoryJournal):
    async def forget(self, ids: Sequence[str], /, positions: object = ()) -> None:
        for action in ids:
            await super().forget([action])


@breaks("positions are stored with the commit")
class Replacing(MemoryJournal):
    """Keeps the positions of the last commit only."""

    def cover(self, each: HandledPositions) -> None:
        taken = self.store.taken
        taken[each.source, each.partition] = TakenPartition(each.epoch, Spans(each.stretches))


@breaks("a commit of a partition that another process has taken")
class Takeable(MemoryJournal):
    def check_taken(self, each: HandledPositions) -> None:
        pass


@breaks("a commit of a partition that another process has taken")
class Halfway(MemoryJournal):
    """Stores the positions of one partition, and refuses those of another."""

    async def forget(
        self, ids: Sequence[str], /, positions: Sequence[HandledPositions] = ()
    ) -> None:
        for each in positions:
            await super().forget([], [each])
        await super().forget(ids)


@breaks("an id that does not exist")
class Indifferent(MemoryJournal):
    async def forget(self, ids: Sequence[str], /, positions: object = ()) -> None:
        with suppress(LeaseLost):
            await super().forget(ids)


@breaks("of requests made together")
class OneForAll(MemoryJournal):
    """Carries out the requests of one turn of the loop together, and refuses them together."""

    batch: list[Intent]

    def open(self) -> None:
        super().open()
        self.batch = []
        self.failed: dict[int, Exception] = {}

    async def record(self, intent: Intent, /) -> None:
        batch = self.batch
        batch.append(intent)
        await asyncio.sleep(0)
        if batch is self.batch:
            self.batch = []
            try:
                for each in batch:
                    await super().record(each)
            except JournalError as error:
                self.failed[id(batch)] = error
        await asyncio.sleep(0)
        if id(batch) in self.failed:
            raise self.failed[id(batch)]


@breaks("thousands of actions")
class Small(MemoryJournal):
    """Has a statement with a limited number of variables."""

    async def forget(self, ids: Sequence[str], /, positions: object = ()) -> None:
        if len(ids) > 999:
            raise JournalError("memory", "too many variables")
        await super().forget(ids)


@breaks("names are any text")
class English(MemoryJournal):
    def text(self, text: str) -> str:
        return super().text(text).encode("ascii", "replace").decode()


@breaks("names are any text")
class Strict(MemoryJournal):
    """Fails with an error that is not a journal's, on text that cannot be stored."""

    async def record(self, intent: Intent, /) -> None:
        _ = (intent.saga_name + intent.path).encode()
        await super().record(intent)


@breaks("an undo is called with arguments equal")
class Rounding(MemoryJournal):
    """Stores the arguments as different JSON."""

    def stored(self, intent: Intent) -> StoredAction:
        made = super().stored(intent)
        return replace(made, arguments=json.dumps(json.loads(made.arguments, parse_int=float)))


@breaks("an undo is called with arguments equal")
class Forgetful(MemoryJournal):
    def stored(self, intent: Intent) -> StoredAction:
        return replace(super().stored(intent), key=uuid4().hex)


@breaks("the last registered first, in whatever order")
class AsTheyCame(MemoryJournal):
    def sorted(self, actions: Iterable[StoredAction]) -> list[StoredAction]:
        return list(actions)[::-1]


@breaks("actions that scopes absorbed")
class Placeless(MemoryJournal):
    def placed(self, action: StoredAction, prefix: str) -> str:
        return action.position


@breaks("a move is carried out in its turn")
class Copying(MemoryJournal):
    """Keeps a saga from which all actions were moved."""

    def move(self, ids: Sequence[str], /, *, saga: str, name: str, prefix: str) -> None:
        super().move(ids, saga=saga, name="", prefix=prefix)


@breaks("a live owner are not taken over")
class Robber(MemoryJournal):
    def is_alive(self, owner: str) -> bool:
        return owner == self.owner


@breaks("a live owner are not taken over")
class RobsItself(MemoryJournal):
    def is_alive(self, owner: str) -> bool:
        return owner != self.owner and super().is_alive(owner)


@breaks("a dead process are taken over")
class OldestFirst(MemoryJournal):
    def claimable(
        self, besides: AbstractSet[str], known: Mapping[str, int] | None = None
    ) -> list[Saga]:
        return super().claimable(besides, known)[::-1]


@breaks("taken over when it dies, too")
class Grasping(MemoryJournal):
    """Keeps its claims after its end."""

    async def close(self) -> None:
        for saga in self.store.sagas.values():
            if saga.owner == self.owner and saga.epoch > 1:
                saga.owner = "nobody"
        self.store.alive.add("nobody")
        await super().close()


@breaks("several recoverers share the work")
class Greedy(MemoryJournal):
    """Takes all over at once."""

    def take_over(self, saga: Saga) -> StoredSaga:
        for other in self.claimable({saga.id}):
            other.owner = self.owner
        return super().take_over(saga)


@breaks("no two recoverers run one action")
class Shared(MemoryJournal):
    """Takes over a saga that another owner has just taken over."""

    def take_over(self, saga: Saga) -> StoredSaga:
        before = saga.owner
        given = super().take_over(saga)
        asyncio.get_running_loop().call_soon(setattr, saga, "owner", before)
        return given


@breaks("a released saga can be claimed")
class Clinging(MemoryJournal):
    async def release(self, saga: str) -> None:
        pass


@breaks("an owner that released a saga")
class Unfenced(MemoryJournal):
    def check(self, saga: Saga) -> None:
        pass


@breaks("an owner that released a saga")
class Thief(MemoryJournal):
    """Moves actions that are not its own any more."""

    def move(self, ids: Sequence[str], /, *, saga: str, name: str, prefix: str) -> None:
        for old in list(self.store.sagas.values()):
            if set(ids) & old.actions.keys():
                old.owner, self.held[old.id] = self.owner, old.epoch
        super().move(ids, saga=saga, name=name, prefix=prefix)


@breaks("lost its lease unnoticed")
class Trusting(MemoryJournal):
    """Believes that it still has every saga it once had."""

    def check(self, saga: Saga) -> None:
        if saga.id not in self.held:
            raise LeaseLost("memory", f"saga {saga.id} was taken over")

    async def release(self, saga: str) -> None:
        await super().release(saga)
        del self.held[saga]


@breaks("the state of an action")
class Reset(MemoryJournal):
    """Forgets attempts with the process."""

    async def close(self) -> None:
        for saga in self.store.sagas.values():
            for id_, action in saga.actions.items():
                saga.actions[id_] = replace(action, next_attempt=0.0)
        await super().close()


@breaks("as long as an action in it is pending or deferred")
class Impatient(MemoryJournal):
    def has_work(self, saga: Saga) -> bool:
        return any(action.state == "pending" for action in saga.actions.values())


@breaks("is listed without those that are")
class Dismissive(MemoryJournal):
    """Treats a saga as done if `recover` has nothing to undo in it."""

    async def sagas(self, *, done: bool = True) -> list[StoredSaga]:
        open_ = {"pending", "deferred"}
        found = await super().sagas()
        return [saga for saga in found if done or {a.state for a in saga.actions} & open_]


@breaks("as long as an action in it is pending or deferred")
class Restless(MemoryJournal):
    def has_work(self, saga: Saga) -> bool:
        return True


@breaks("stuck and deferred actions can be retried")
class Generous(MemoryJournal):
    """Retries done actions, too."""

    def given_up(self, saga: str) -> list[StoredAction]:
        found = self.store.sagas.get(saga)
        return [] if found is None else [it for it in found.actions.values() if it.attempts]


@breaks("any error can be put on record")
class Literal(MemoryJournal):
    def words(self, error: object) -> str:
        return repr(error)


@breaks("any error can be put on record")
class Encoding(MemoryJournal):
    async def defer(self, action: str, reason: str) -> None:
        _ = reason.encode()
        await super().defer(action, reason)


@breaks("is passed over")
class Tireless(MemoryJournal):
    """Takes over again and again what is known nowhere."""

    def passes_over(self, saga: Saga, known: Mapping[str, int]) -> bool:
        return False


@breaks("is passed over")
class Shortsighted(MemoryJournal):
    """Looks at the names alone."""

    def passes_over(self, saga: Saga, known: Mapping[str, int]) -> bool:
        return super().passes_over(saga, dict.fromkeys(known, 9))


@breaks("is passed over")
class GivesUp(MemoryJournal):
    """Passes over a saga with any deferred action."""

    def passes_over(self, saga: Saga, known: Mapping[str, int]) -> bool:
        return any(action.error == "unknown" for action in saga.actions.values())


@breaks("attempts and waits are kept")
class FreshStart(MemoryJournal):
    def take_over(self, saga: Saga) -> StoredSaga:
        for id_, action in saga.actions.items():
            if action.state == "pending":
                saga.actions[id_] = replace(action, attempts=0)
        return super().take_over(saga)


@breaks("a cancelled caller")
class Locking(MemoryJournal):
    """Keeps its lock when the caller that holds it is cancelled."""

    def open(self) -> None:
        super().open()
        self.lock = asyncio.Lock()

    async def record(self, intent: Intent, /) -> None:
        await self.lock.acquire()
        await asyncio.sleep(0)
        await super().record(intent)
        self.lock.release()


@breaks("a cancelled recovery")
class Silent(MemoryJournal):
    """Does not release the sagas that it has worked on."""

    async def release(self, saga: str) -> None:
        if any(action.attempts for action in self.store.sagas[saga].actions.values()):
            raise JournalError("memory", "no")
        await super().release(saga)

    async def claim(
        self, *, besides: AbstractSet[str], known: Mapping[str, int] | None = None
    ) -> StoredSaga | None:
        found = await super().claim(besides=besides, known=known)
        for action in found.actions if found else ():
            if action.state == "pending":
                self.change(action.id, attempts=action.attempts + 1)
        return found


@breaks("can be retried while its owner lives")
class Patient(MemoryJournal):
    """Retried actions wait until their owner is gone."""

    def retried(self, saga: Saga, action: str) -> dict[str, StoredAction]:
        return saga.actions


@breaks("closing twice")
class Fragile(MemoryJournal):
    closed = False

    async def close(self) -> None:
        if self.closed:
            raise JournalError("memory", "closed already")
        self.closed = True
        await super().close()


@breaks("requests that wait when a journal is closed")
class Careless(MemoryJournal):
    """Answers that an action is recorded, and is closed before it is."""

    shut = False

    async def record(self, intent: Intent, /) -> None:
        await asyncio.sleep(0)
        if not self.shut:
            await super().record(intent)

    async def close(self) -> None:
        self.shut = True
        await super().close()
        self.shut = False


def found(make: Callable[[], MemoryJournal]) -> list[str]:
    """Return the claims that a journal is reported to violate."""
    group: ExceptionGroup[Exception] | None = None
    try:
        run(check_journal(make, silence=silence, timeout=20.0))
    except ExceptionGroup as error:
        group = error
    if group is None:
        return []
    told = re.findall(r"^  - (.*?): ", group.message, flags=re.MULTILINE)
    assert len(told) == len(group.exceptions)
    claims = [claim for line in told for claim in CASES if claim.startswith(line)]
    notes = [error.__notes__[0] for error in group.exceptions]
    assert notes == [f"violated claim: {claim}" for claim in claims]
    return claims


@pytest.fixture
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MANY", 1_000)


def test_a_journal_in_memory_keeps_its_contract() -> None:
    store = Store()
    assert found(lambda: MemoryJournal(store)) == []


@pytest.mark.slow
@pytest.mark.usefixtures("_few")
@pytest.mark.parametrize("claim", BROKEN)
def test_a_violated_claim_is_reported(claim: str) -> None:
    store = Store()
    assert claim.partition(" #")[0] in found(lambda: BROKEN[claim](store))


def test_each_claim_is_violated_by_some_journal_here() -> None:
    assert {claim.partition(" #")[0] for claim in BROKEN} == set(CASES)


@pytest.mark.usefixtures("_few")
def test_the_report_has_all_violated_claims_each_with_what_was_seen() -> None:
    store = Store()
    with pytest.raises(ExceptionGroup) as caught:
        run(check_journal(lambda: Keyless(store)))
    assert "are violated:\n  - an action is on record" in caught.value.message
    assert "the action: expected {" in caught.value.message
    assert len(caught.value.exceptions) > 1


@pytest.mark.usefixtures("_few")
def test_a_journal_that_hangs_is_reported_too() -> None:
    class Hanging(MemoryJournal):
        async def retry(self, saga: str) -> int:
            await asyncio.sleep(1e9)
            return 0

    store = Store()
    with pytest.raises(ExceptionGroup, match=r"retried or discarded.*: TimeoutError"):
        run(check_journal(lambda: Hanging(store), timeout=5.0))


@pytest.mark.usefixtures("_few")
def test_without_a_way_to_silence_an_owner_the_lost_lease_is_left_out() -> None:
    store = Store()
    run(check_journal(lambda: Trusting(store)))


def test_bad_arguments_are_refused() -> None:
    store = Store()
    one = MemoryJournal(store)
    with pytest.raises(InvalidArgument, match="new journal each time"):
        run(check_journal(lambda: one))
    with pytest.raises(InvalidArgument, match="above 0 seconds"):
        run(check_journal(lambda: MemoryJournal(store), timeout=0))


# Ours.


@pytest.mark.parametrize(
    "runner", [pytest.param(asyncio.run, marks=pytest.mark.slow), run], ids=["real", "virtual"]
)
def test_the_sqlite_journal_keeps_its_contract(tmp_path: Path, runner: Callable[..., None]) -> None:
    def make() -> SqliteJournal:
        return SqliteJournal(tmp_path / "journal.db")

    async def silence(journal: SqliteJournal) -> None:
        lock, journal._store._owner_lock = journal._store._owner_lock, None
        assert lock is not None
        lock.release()

    runner(check_journal(make, silence=silence))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("journal")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("liveness", "runner"), [("session", run), ("lease", asyncio.run)], ids=["session", "lease"]
)
def test_the_postgres_journal_keeps_its_contract(
    postgres_dsn: str, liveness: Any, runner: Callable[..., None]
) -> None:
    asyncpg = pytest.importorskip("asyncpg", reason="needs the package asyncpg")
    from returns_pipeline.journal import PostgresJournal

    (schema,) = re.findall(r"test_\w+", postgres_dsn)

    def make() -> PostgresJournal:
        return PostgresJournal(postgres_dsn, schema=schema, liveness=liveness)

    async def silence(journal: PostgresJournal) -> None:
        if liveness == "session":
            journal._writer.reconnect = lambda: None  # type: ignore[method-assign]
            journal._writer.delivery.connection._on_lost = lambda: None
            await journal._writer.delivery.connection.close()
            return
        connection = await asyncpg.connect(postgres_dsn)
        ended = "UPDATE owner SET expires = now() - interval '1 hour' WHERE id = $1"
        await connection.execute(ended, journal._writer.delivery.owner)
        await connection.close()

    runner(check_journal(make, silence=silence))
