"""What a journal promises: each a function, named by the words that report it when it is broken."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import decimal
import enum
import math
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeAlias
from uuid import uuid4

from returns_pipeline.compensation import CompensationScope, current_key
from returns_pipeline.errors import JournalError, LeaseLost
from returns_pipeline.journal import recover
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.testing._journal_harness import (
    Trial,
    cancelled_after,
    expect,
    name_of,
    names_in,
    refused,
    states_of,
    together,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from returns_pipeline.compensation.protocol import (
        ActionRecord,
        DurableJournal,
        Intent,
        StoredSaga,
    )

__all__ = ["MANY", "PROMISES", "ROBBED"]

# Actions of a big saga.
MANY = 2_000
_ODD: Final = "naïve “quotes” '; DROP TABLE action; -- \\ % {x} ☃ 🐍 \u202eright-to-left\n\ttab"
_UNSTORABLE: Final = "half a pair \ud800 and \0 a zero"

Look: TypeAlias = Callable[[Trial], Awaitable[None]]
PROMISES: dict[str, Look] = {}


def promise(name: str) -> Callable[[Look], Look]:
    def register(look: Look) -> Look:
        PROMISES[name] = look
        return look

    return register


# Recording and committing.


@promise("an action is on record, with all it has, before record() returns")
async def _record(trial: Trial) -> None:
    journal, saga = trial.process(), uuid4().hex
    intent = trial.intent(saga, "first", saga_name="job", path="job/part")
    before = time.time()
    await journal.record(intent)
    found = await trial.found(saga)
    if found is None:
        raise AssertionError("another process does not see what record() has returned from")
    expect("the saga's name", found.name, "job")
    expect("its owner is alive", (found.alive, found.owner != ""), (True, True))
    if not before - 3600 < found.began < time.time() + 3600:
        raise AssertionError(f"it began at {found.began!r}, which is not now: {before!r}")
    (action,) = found.actions
    seen = dataclasses.asdict(action)
    wanted = {
        "id": intent.id,
        "position": intent.position,
        "path": "job/part",
        "key": intent.key,
        "name": "note",
        "version": 1,
        "arguments": '{"name": "first"}',
        "state": "pending",
        "attempts": 0,
        "next_attempt": 0.0,
        "error": "",
    }
    expect("the action", seen, wanted)
    await journal.forget([intent.id])


@promise("an id is recorded once")
async def _duplicate(trial: Trial) -> None:
    journal, saga = trial.process(), uuid4().hex
    intent = trial.intent(saga, "first")
    await journal.record(intent)
    again = dataclasses.replace(intent, args=("second",), position="9")
    await refused("a second action of the same id", journal.record(again))
    elsewhere = dataclasses.replace(again, saga=uuid4().hex)
    await refused("one in another saga", journal.record(elsewhere))
    await refused("one of another process", trial.process().record(elsewhere))
    expect("on record", await trial.names(saga), ["first"])
    await journal.forget([intent.id])


@promise("what was committed is gone, and a saga with nothing in it")
async def _forget(trial: Trial) -> None:
    journal, saga = trial.process(), uuid4().hex
    first, second = await trial.record(journal, saga, "first", "second")
    await journal.forget([first])
    await journal.flush()
    expect("on record", await trial.names(saga), ["second"])
    await journal.forget([second])
    await journal.flush()
    expect("the saga", await trial.found(saga), None)
    await journal.forget([])
    (third,) = await trial.record(journal, saga, "third")
    expect("on record in the same saga, later", await trial.names(saga), ["third"])
    await journal.forget([third])
    await journal.close()
    expect("to be undone", await trial.claim(trial.process()), [])


@promise("a commit is all or nothing")
async def _all_or_nothing(trial: Trial) -> None:
    journal, one, other = trial.process(), uuid4().hex, uuid4().hex
    ids = await trial.record(journal, one, "a", "b")
    ids += await trial.record(journal, other, "c")
    await refused("a commit with an unknown id", journal.forget([*ids, uuid4().hex]))
    await refused("a commit with an unknown id in front", journal.forget([uuid4().hex, *ids]))
    await journal.flush()
    seen = await trial.names(one) + await trial.names(other)
    expect("on record after a commit that was refused", seen, ["b", "a", "c"])
    await journal.forget(ids)
    await journal.flush()
    expect("on record after one over two sagas", await trial.listed(), [])


@promise("an id that does not exist is refused, and nothing changes")
async def _unknown(trial: Trial) -> None:
    journal, saga = trial.process(), uuid4().hex
    (id_,) = await trial.record(journal, saga, "x")
    nobody = uuid4().hex
    mark = journal.mark(nobody)
    requests: dict[str, Callable[[], Awaitable[object]]] = {
        "forget()": lambda: journal.forget([nobody]),
        "mark().begin()": mark.begin,
        "mark().done()": mark.done,
        "mark().give_up()": lambda: mark.give_up(OSError("no")),
        "defer()": lambda: journal.defer(nobody, "no"),
        "postpone()": lambda: journal.postpone(nobody, OSError("no"), 1.0),
        "release()": lambda: journal.release(nobody),
    }
    for what, request in requests.items():
        await refused(f"{what} of an unknown id", request())
    expect("retry() of an unknown saga", await journal.retry(nobody), 0)
    expect("discard() of an unknown saga", await journal.discard(nobody, "no"), 0)
    expect("the action", states_of(await trial.found(saga)), [("x", "pending")])
    await journal.forget([id_])


@promise("requests that come together: one that is refused does not take the others along")
async def _group(trial: Trial) -> None:
    journal = trial.process()
    taken = trial.intent(uuid4().hex, "taken")
    await journal.record(taken)
    intents = [trial.intent(uuid4().hex, str(n)) for n in range(60)]
    intents[30] = dataclasses.replace(taken, saga=intents[30].saga)
    outcomes = await together(journal.record(intent) for intent in intents)
    refused = [n for n, outcome in enumerate(outcomes) if outcome is not None]
    expect("which of 60 were refused", refused, [30])
    expect("how", isinstance(outcomes[30], JournalError), True)
    listed = {saga.id for saga in await trial.listed()}
    expect("on record", len(listed), 60)
    good = [[intent.id] for intent in intents if intent.id != taken.id]
    good[30:30] = [[taken.id, uuid4().hex]]
    outcomes = await together(journal.forget(ids) for ids in good)
    refused = [n for n, outcome in enumerate(outcomes) if outcome is not None]
    expect("which of 60 commits were refused", refused, [30])
    await journal.flush()
    expect("on record", [saga.id for saga in await trial.listed()], [taken.saga])
    await journal.forget([taken.id])


@promise("a saga may be big")
async def _big(trial: Trial) -> None:
    journal, saga = trial.process(), uuid4().hex
    intents = [trial.intent(saga, str(n)) for n in range(MANY)]
    outcomes = await together(journal.record(intent) for intent in intents)
    expect("refused", [outcome for outcome in outcomes if outcome is not None], [])
    newest_first = [str(n) for n in reversed(range(MANY))]
    expect("on record", await trial.names(saga), newest_first)
    await journal.close()
    journal = trial.process()
    claimed = await journal.claim(besides=set())
    expect("claimed", None if claimed is None else names_in(claimed), newest_first)
    ids = [intent.id for intent in intents]
    await refused("a commit of all and one more", journal.forget([*ids, uuid4().hex]))
    expect("on record after it", len(await trial.names(saga)), MANY)
    await journal.forget(ids)
    await journal.flush()
    expect("on record after the commit", await trial.names(saga), [])


@promise(
    "names are any text; what cannot be stored is refused or spelt otherwise, and harms nobody"
)
async def _unicode(trial: Trial) -> None:
    journal, saga = trial.process(), uuid4().hex
    undo = trial.registry.compensation(_ODD)(trial.undo.func)
    fair = trial.intent(saga, undo=undo, saga_name=_ODD, path=f"{_ODD}/{_ODD}", args=(_ODD,))
    await journal.record(fair)
    found = await trial.found(saga)
    seen = found and (found.name, found.actions[0].path, found.actions[0].name)
    expect("names", seen, (_ODD, f"{_ODD}/{_ODD}", _ODD))
    odd = [
        trial.intent(uuid4().hex, saga_name=_UNSTORABLE),
        trial.intent(uuid4().hex, path=_UNSTORABLE),
        trial.intent(uuid4().hex, args=(_UNSTORABLE,)),
        trial.intent(uuid4().hex, "fine"),
    ]
    outcomes = await together(journal.record(intent) for intent in odd)
    wrong = [it for it in outcomes if it is not None and not isinstance(it, JournalError)]
    expect("errors that are none of a journal", wrong, [])
    expect("what came along with them", outcomes[-1], None)
    kept = [it.saga for it, outcome in zip(odd, outcomes, strict=True) if outcome is None]
    expect("on record", {s.id for s in await trial.listed()}, {saga, *kept})
    await journal.close()
    reports = await trial.recover()
    expect("undone", {report.saga for report in reports if report.done}, {saga, *kept})
    expect("the oldest with", trial.undone[-1], _ODD)


class _Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass(frozen=True)
class _Point:
    x: float
    seen: datetime.datetime
    colours: tuple[_Colour, ...]


@promise("an undo is called with arguments equal to those it was registered with, and the same key")
async def _arguments(trial: Trial) -> None:
    called: list[tuple[object, ...]] = []

    @trial.registry.compensation("arguments")
    async def undo(
        n: int,
        price: decimal.Decimal,
        point: _Point,
        raw: bytes,
        deep: dict[str, list[float | None]],
        *,
        text: str,
    ) -> None:
        called.append((n, price, point, raw, deep, text, current_key()))

    now = datetime.datetime.now(datetime.UTC)
    values = (
        2**63 - 1,
        decimal.Decimal("12345678901234567890.10"),
        _Point(-0.1, now, (_Colour.RED,)),
        bytes(range(256)),
        {_ODD: [1e-300, None, math.inf], "": []},
    )
    intent = trial.intent(uuid4().hex, undo=undo, args=values, kwargs={"text": _ODD * 50})
    journal = trial.process()
    await journal.record(intent)
    await journal.close()
    (report,) = await trial.recover()
    expect("stuck", report.stuck, ())
    expect("called with", called, [(*values, _ODD * 50, intent.key)])


# The order.


@dataclasses.dataclass
class _Tape:
    """A journal that only notes what scopes ask for, to be asked of another."""

    calls: list[Callable[[DurableJournal], Awaitable[None]]] = dataclasses.field(
        default_factory=list[Callable[["DurableJournal"], Awaitable[None]]]
    )

    async def record(self, intent: Intent, /) -> None:
        self.calls.append(lambda journal: journal.record(intent))

    async def forget(self, ids: Sequence[str], /) -> None:
        self.calls.append(lambda journal: journal.forget(ids))

    async def flush(self) -> None: ...

    def move(self, ids: Sequence[str], /, *, saga: str, name: str, prefix: str) -> None:
        async def move(journal: DurableJournal) -> None:
            journal.move(ids, saga=saga, name=name, prefix=prefix)

        self.calls.append(move)

    def mark(self, _: str, /) -> ActionRecord:
        return self

    async def begin(self) -> None: ...

    async def done(self) -> None: ...

    async def give_up(self, error: object) -> None: ...


@promise("actions come back the last registered first, whatever order they were recorded in")
async def _order(trial: Trial) -> None:
    journal, saga = trial.process(), uuid4().hex
    intents = [trial.intent(saga, str(n)) for n in range(12)]
    for intent in intents[::2] + intents[::-1][::2]:
        await journal.record(intent)
    newest_first = [str(n) for n in reversed(range(12))]
    expect("listed", await trial.names(saga), newest_first)
    await journal.close()
    _ = await trial.recover()
    expect("undone", trial.undone, newest_first)


@promise("what scopes absorb is undone in the order in which they would undo it themselves")
async def _absorbed(trial: Trial) -> None:
    tape = _Tape()
    root, one, two = (CompensationScope(name, journal=tape) for name in ("root", "one", "two"))
    for scope, name in [(root, "a"), (one, "b"), (two, "c"), (one, "d"), (root, "e")]:
        await scope.register(trial.undo, name)
    three = CompensationScope("three", journal=tape)
    four = three.child("four")
    for scope, name in [(three, "f"), (four, "g"), (two, "h"), (three, "i"), (four, "j")]:
        await scope.register(trial.undo, name)
    root.absorb(two, as_one=True)
    root.absorb(one)
    await root.register(trial.undo, "k")
    three.absorb(four, as_one=True)
    root.absorb(three, as_one=True)
    outer = CompensationScope("outer", journal=tape)
    outer.absorb(root, as_one=True)
    await outer.register(trial.undo, "l")
    _ = await outer.compensate()
    wanted = trial.undone.copy()
    trial.undone.clear()
    journal = trial.process()
    for call in tape.calls:
        await call(journal)
    trial.sagas.add(outer.saga)
    expect("listed", await trial.names(outer.saga), wanted)
    await journal.close()
    reports = await trial.recover()
    expect("undone", trial.undone, wanted)
    expect("together, as", [report.name for report in reports], ["outer"])


@promise("a move takes its turn: a commit behind it finds the actions, and its old saga is gone")
async def _move(trial: Trial) -> None:
    journal, old, new = trial.process(), uuid4().hex, uuid4().hex
    ids = await trial.record(journal, old, "a", "b")
    trial.sagas.add(new)
    journal.move(ids[:1], saga=new, name="new", prefix="5.")
    journal.move(ids[1:], saga=new, name="new", prefix="4.")
    (third,) = await trial.record(journal, new, "c")
    (found,) = await trial.listed()
    expect("the saga", (found.id, found.name), (new, "new"))
    positions = sorted([action.position for action in found.actions], reverse=True)
    expect("positions, which sort", [action.position for action in found.actions], positions)
    expect("listed", names_in(found), ["a", "b", "c"])
    journal.move([third], saga=old, name="old", prefix="")
    await journal.forget([third, *ids])
    await journal.flush()
    expect("on record", await trial.listed(), [])


# Owners.


@promise("an owner that lives is not robbed")
async def _alive(trial: Trial) -> None:
    journal, saga = trial.process(), uuid4().hex
    ids = await trial.record(journal, saga, "x")
    expect("claimed by another", await trial.claim(trial.process()), [])
    expect("claimed by itself", await trial.claim(journal), [])
    ids += await trial.record(journal, saga, "y")
    await journal.mark(ids[1]).begin()
    await journal.forget(ids)
    await journal.close()


@promise("what a process that is no more had open is taken over, the newest saga first")
async def _dead(trial: Trial) -> None:
    sagas = [await trial.dead("x") for _ in range(3)]
    journal = trial.process()
    listed = [(saga.id, saga.alive) for saga in await trial.listed()]
    expect("listed", listed, [(saga, False) for saga in reversed(sagas)])
    skipped = await trial.claim(journal, besides=[sagas[1]])
    expect("claimed besides the second", skipped, [sagas[2], sagas[0]])
    expect("claimed by another", await trial.claim(trial.process()), [sagas[1]])
    owners = {saga.owner for saga in await trial.listed()}
    expect("how many owners there are", len(owners), 2)


@promise("sagas claimed by a process that is no more are taken over in their turn")
async def _dead_again(trial: Trial) -> None:
    saga = await trial.dead("x")
    for attempt in range(3):
        journal = trial.process()
        expect(f"claimed, time {attempt + 1}", await trial.claim(journal), [saga])
        await journal.close()


@promise("several recoverers share the work")
async def _shared(trial: Trial) -> None:
    both = asyncio.Barrier(2)

    @trial.registry.compensation("meet")
    async def meet(name: str) -> None:
        async with asyncio.timeout(10.0):
            _ = await both.wait()  # there must be two at work
        trial.undone.append(name)

    for _ in range(2):
        journal = trial.process()
        await journal.record(trial.intent(uuid4().hex, undo=meet))
        await journal.close()
    recoverers = [trial.recover() for _ in range(2)]
    reports = await asyncio.gather(*recoverers)
    expect("sagas undone by each", [[len(it.done) for it in own] for own in reports], [[1], [1]])


@promise("no two recoverers run an action, nor two of one saga")
async def _exclusive(trial: Trial) -> None:
    running: set[str] = set()
    clashes: list[str] = []

    @trial.registry.compensation("slow")
    async def slow(name: str) -> None:
        saga = name.partition(".")[0]
        if saga in running:
            clashes.append(name)
        running.add(saga)
        for _ in range(3):
            await asyncio.sleep(0)
        running.discard(saga)
        trial.undone.append(name)

    journal = trial.process()
    for n in range(8):
        saga = uuid4().hex
        for k in range(3):
            await journal.record(trial.intent(saga, f"{n}.{k}", undo=slow))
    await journal.close()
    recoverers = [trial.recover() for _ in range(4)]
    _ = await asyncio.gather(*recoverers)
    expect("undone while another of the saga was", clashes, [])
    wanted = sorted(f"{n}.{k}" for n in range(8) for k in range(3))
    expect("undone", sorted(trial.undone), wanted)
    each = [[name for name in trial.undone if name.startswith(f"{n}.")] for n in range(8)]
    expect("the order in each", each, [[f"{n}.{k}" for k in (2, 1, 0)] for n in range(8)])


@promise("a saga that was let go of can be claimed, and nothing about it is lost")
async def _released(trial: Trial) -> None:
    saga = await trial.dead("a", "b")
    journal, other = trial.process(), trial.process()
    expect("claimed", await trial.claim(journal), [saga])
    expect("claimed by another", await trial.claim(other), [])
    await journal.release(saga)
    found = await trial.found(saga)
    expect("alive", found and found.alive, False)
    expect("claimed when it was let go of", await trial.claim(other), [saga])
    expect("states", states_of(await trial.found(saga)), [("b", "pending"), ("a", "pending")])


@promise("who let go of a saga, or was closed, gets LeaseLost and changes nothing")
async def _fenced(trial: Trial) -> None:
    first, second, third = trial.process(), trial.process(), trial.process()
    saga = uuid4().hex
    ids = await trial.record(first, saga, "a", "b")
    await first.release(saga)
    expect("claimed", await trial.claim(second), [saga])
    await _check_fenced(trial, first, saga, ids, "the first owner")
    await second.release(saga)
    expect("claimed", await trial.claim(third), [saga])
    await _check_fenced(trial, second, saga, ids, "the second owner")
    await third.close()
    expect("claimed", await trial.claim(trial.process()), [saga])


ROBBED: Final = "who was robbed without knowing gets LeaseLost and changes nothing"


@promise(ROBBED)
async def _robbed(trial: Trial) -> None:
    saga, elsewhere = uuid4().hex, uuid4().hex
    first, second = trial.process(), trial.process()
    ids = await trial.record(first, saga, "a", "b")
    await trial.silence(first)
    expect("claimed", await trial.claim(second), [saga])
    await _check_fenced(trial, first, saga, ids, "who was robbed")
    kept = trial.intent(elsewhere, "mine")
    with contextlib.suppress(LeaseLost):  # it may be another owner by now
        await first.record(kept)
        await first.forget([kept.id])
    for id_ in reversed(ids):
        await second.mark(id_).done()


async def _check_fenced(
    trial: Trial, zombie: DurableJournal, saga: str, ids: list[str], who: str
) -> None:
    before = await trial.found(saga)
    mark, target = zombie.mark(ids[0]), uuid4().hex
    trial.sagas.add(target)
    requests: dict[str, Callable[[], Awaitable[object]]] = {
        "record()": lambda: zombie.record(trial.intent(saga, "late")),
        "forget()": lambda: zombie.forget(ids),
        "mark().begin()": mark.begin,
        "mark().done()": mark.done,
        "mark().give_up()": lambda: mark.give_up(OSError("no")),
        "defer()": lambda: zombie.defer(ids[0], "no"),
        "postpone()": lambda: zombie.postpone(ids[0], OSError("no"), 1.0),
        "release()": lambda: zombie.release(saga),
    }
    for what, request in requests.items():
        await refused(f"{what} by {who}", request(), LeaseLost)
    zombie.move(ids, saga=target, name="stolen", prefix="0.")
    await refused(f"forget() behind move() by {who}", zombie.forget(ids), LeaseLost)
    expect(f"the saga, after all that {who} tried", await trial.found(saga), before)
    expect("what it would have moved it to", await trial.found(target), None)


# States.


@promise("what became of an action is on record: done, stuck, deferred, postponed")
async def _marks(trial: Trial) -> None:
    names = ("a", "b", "c", "d", "e")
    saga, journal = await trial.dead(*names), trial.process()
    (found,) = [await journal.claim(besides=set())]
    ids = {name_of(action): action.id for action in (found.actions if found else ())}
    expect("claimed", sorted(ids), list(names))
    for name in "abcd":
        await journal.mark(ids[name]).begin()
    await journal.mark(ids["a"]).begin()
    await journal.mark(ids["a"]).done()
    await journal.mark(ids["b"]).give_up(OSError("poison"))
    await journal.defer(ids["c"], "unknown name")
    await journal.postpone(ids["d"], OSError("not yet"), 12345.5)
    wanted = {
        "a": ("done", 2, 0.0, ""),
        "b": ("stuck", 1, 0.0, "poison"),
        "c": ("deferred", 1, 0.0, "unknown name"),
        "d": ("pending", 1, 12345.5, "not yet"),
        "e": ("pending", 0, 0.0, ""),
    }
    await _check_marks(trial, saga, wanted)
    await journal.close()
    await _check_marks(trial, saga, wanted)
    again = trial.process()
    claimed = await again.claim(besides=set())
    expect("claimed by the next", claimed and claimed.id, saga)
    expect("as", claimed and claimed.actions, (await _found(trial, saga)).actions)


async def _check_marks(
    trial: Trial, saga: str, wanted: dict[str, tuple[str, int, float, str]]
) -> None:
    actions = {name_of(action): action for action in (await _found(trial, saga)).actions}
    expect("listed", sorted(actions), sorted(wanted))
    for name, (state, attempts, due, error) in wanted.items():
        action = actions[name]
        seen = (action.state, action.attempts, action.next_attempt)
        expect(f"state, attempts and next attempt of {name!r}", seen, (state, attempts, due))
        if error not in action.error or (action.error and not error):
            raise AssertionError(f"the error of {name!r}: expected {error!r}, saw {action.error!r}")


async def _found(trial: Trial, saga: str) -> StoredSaga:
    found = await trial.found(saga)
    if found is None:
        raise AssertionError(f"saga {saga} is not on record any more")
    return found


@promise("a saga is claimed as long as something in it is pending or deferred, and no longer")
async def _claimable(trial: Trial) -> None:
    saga = await trial.dead("a", "b", "c")
    for name, what in [("c", "done"), ("b", "stuck"), ("a", "deferred")]:
        journal = trial.process()
        expect(f"claimed before {name} is {what}", await trial.claim(journal), [saga])
        id_ = next(it.id for it in (await _found(trial, saga)).actions if name_of(it) == name)
        if what == "done":
            await journal.mark(id_).done()
        elif what == "stuck":
            await journal.mark(id_).give_up("poison")
        else:
            await journal.defer(id_, "unknown")
        await journal.close()
    journal = trial.process()
    expect("claimed when one is deferred", await trial.claim(journal), [saga])
    await journal.close()
    expect("discarded", await trial.process().discard(saga, "no"), 2)
    expect("claimed when all is over", await trial.claim(trial.process()), [])
    states = states_of(await trial.found(saga))
    expect("still listed", states, [("c", "done"), ("b", "done"), ("a", "done")])


@promise("what is stuck or deferred can be retried or discarded, and nothing else")
async def _people(trial: Trial) -> None:
    saga, journal = await trial.dead("a", "b", "c", "d"), trial.process()
    found = await journal.claim(besides=set())
    ids = [action.id for action in (found.actions if found else ())]
    for id_ in ids[:3]:
        await journal.mark(id_).begin()
    await journal.postpone(ids[1], OSError("no"), 99.0)
    await journal.mark(ids[0]).done()
    await journal.mark(ids[1]).give_up(OSError("poison"))
    await journal.defer(ids[2], "unknown")
    await journal.close()
    person = trial.process()
    expect("retried", await person.retry(saga), 2)
    seen = [(it.state, it.attempts, it.next_attempt) for it in (await _found(trial, saga)).actions]
    wanted = [("done", 1, 0.0), ("pending", 0, 0.0), ("pending", 0, 0.0), ("pending", 0, 0.0)]
    expect("state, attempts and next attempt", seen, wanted)
    expect("retried again", await person.retry(saga), 0)
    journal = trial.process()
    expect("claimed", await trial.claim(journal), [saga])
    await journal.mark(ids[1]).give_up(OSError("poison"))
    await journal.close()
    expect("discarded", await person.discard(saga, f"by hand: {_ODD}"), 1)
    actions = (await _found(trial, saga)).actions
    expect("states", [it.state for it in actions], ["done", "done", "pending", "pending"])
    if _ODD not in actions[1].error:
        raise AssertionError(f"the reason {_ODD!r} is not on record: {actions[1].error!r}")


@promise("any error can be put on record, however long and whatever is in it")
async def _errors(trial: Trial) -> None:
    errors: list[tuple[str, object]] = [
        ("odd", OSError(_ODD)),
        ("unstorable", OSError(_UNSTORABLE)),
        ("long", OSError("y" * 1_000_000)),
        ("a text", _UNSTORABLE),
        ("none", None),
        ("unspeakable", _Unspeakable()),
    ]
    saga = await trial.dead(*(name for name, _ in errors))
    journal, ids = await _claimed(trial, saga)
    for name, error in errors:
        await journal.postpone(ids[name], error, 0.0)
        await journal.mark(ids[name]).give_up(error)
    await journal.close()
    for reason in (_ODD, _UNSTORABLE, "y" * 1_000_000):
        actions = (await _found(trial, saga)).actions
        expect("without a word", [name_of(it) for it in actions if not it.error], [])
        expect("retried", await trial.process().retry(saga), len(errors))
        journal, ids = await _claimed(trial, saga)
        for id_ in ids.values():
            await journal.defer(id_, reason)
        await journal.close()
    expect("discarded", await trial.process().discard(saga, _UNSTORABLE), len(errors))


async def _claimed(trial: Trial, saga: str) -> tuple[DurableJournal, dict[str, str]]:
    """Give a process that has taken a saga over, and the ids of its actions."""
    journal = trial.process()
    expect("claimed", await trial.claim(journal), [saga])
    return journal, {name_of(it): it.id for it in (await _found(trial, saga)).actions}


class _Unspeakable(Exception):
    def __repr__(self) -> str:
        raise ValueError("no words")

    __str__ = __repr__


@promise("attempts and waits count on when a recoverer is replaced by another")
async def _attempts(trial: Trial) -> None:
    tried: list[str] = []

    @trial.registry.compensation("flaky", retry=RetryPolicy(attempts=3, wait=0.0))
    async def flaky(name: str) -> None:
        tried.append(name)
        raise OSError(f"attempt {len(tried)}")

    journal, saga = trial.process(), uuid4().hex
    await journal.record(trial.intent(saga, undo=flaky))
    await journal.close()
    first = trial.process()
    found = await first.claim(besides=set())
    for action in found.actions if found else ():
        await first.mark(action.id).begin()
        await first.postpone(action.id, OSError("attempt 0"), 0.0)
    await first.close()
    (report,) = await trial.recover()
    expect("attempts left of three", len(tried), 2)
    expect("stuck", [entry.name for entry in report.stuck], ["flaky"])
    (action,) = (await _found(trial, saga)).actions
    expect("state and attempts", (action.state, action.attempts), ("stuck", 3))


# Callers that do not wait, and the end.


@promise("a caller that is cancelled harms nobody: requests are carried out whole, or not at all")
async def _cancelled(trial: Trial) -> None:
    journal = trial.process()
    for turns in range(6):
        saga = uuid4().hex
        intent = trial.intent(saga, "x")
        beside = trial.intent(uuid4().hex, "beside")
        other = asyncio.ensure_future(journal.record(beside))
        _ = await cancelled_after(turns, journal.record(intent))
        await other
        await journal.forget([beside.id])
        try:
            await journal.forget([intent.id])
        except JournalError:
            await journal.flush()
            expect("on record, after a commit was refused", await trial.names(saga), [])
        _ = await cancelled_after(turns, journal.sagas())
    expect("on record", await trial.listed(), [])


@promise("a recovery that is cancelled lets go of what it took over")
async def _cancelled_recovery(trial: Trial) -> None:
    journal = trial.process()
    _ = await journal.claim(besides=set())  # open it first
    for turns in range(8):
        saga = await trial.dead("x")
        _ = await cancelled_after(turns, recover(journal, trial.registry))
        reports = await trial.recover()
        listed = states_of(await trial.found(saga))
        expect(
            f"states, after {turns} turns of the loop and another recovery", listed, [("x", "done")]
        )
        expect("undone", trial.undone, ["x"])
        trial.undone.clear()
        expect("how often", len(reports), min(len(reports), 1))


@promise("what was given up can be retried while its owner lives, and recovered by others")
async def _retried_alive(trial: Trial) -> None:
    journal, saga = trial.process(), uuid4().hex
    stuck, kept = await trial.record(journal, saga, "stuck", "kept")
    await journal.mark(stuck).begin()
    await journal.mark(stuck).give_up(OSError("poison"))
    person = trial.process()
    expect("retried", await person.retry(saga), 1)
    trial.sagas.update(it.id for it in await person.sagas() for a in it.actions if a.id == stuck)
    reports = await trial.recover()
    done = [name for report in reports for entry in report.done for name in entry.args]
    expect("undone by others", done, ["stuck"])
    await journal.forget([kept])


@promise("closing twice, or what was never used, does nothing")
async def _closed(trial: Trial) -> None:
    unused, journal = trial.process(), trial.process()
    await unused.close()
    await unused.close()
    saga = uuid4().hex
    _ = await trial.record(journal, saga, "x")
    await journal.close()
    await journal.close()
    found = await _found(trial, saga)
    expect("alive", found.alive, False)
    expect("claimed", await trial.claim(trial.process()), [saga])


@promise("what waits when a journal is closed is carried out")
async def _closed_at_work(trial: Trial) -> None:
    journal, sagas = trial.process(), [uuid4().hex for _ in range(20)]
    intents = [trial.intent(saga) for saga in sagas]
    requests = [asyncio.ensure_future(journal.record(intent)) for intent in intents]
    await asyncio.sleep(0)
    await journal.close()
    outcomes = await together(requests)
    wrong = [it for it in outcomes if it is not None and not isinstance(it, JournalError)]
    expect("errors that are none of a journal", wrong, [])
    kept = [saga for saga, outcome in zip(sagas, outcomes, strict=True) if outcome is None]
    await _check_claimed(trial, kept)


async def _check_claimed(trial: Trial, sagas: Collection[str]) -> None:
    claimed = await trial.claim(trial.process())
    expect("claimed, of what was told to be on record", sorted(claimed), sorted(sagas))
