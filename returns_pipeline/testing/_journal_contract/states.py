"""Cases of the journal contract: the states of an action, its attempts and its errors."""

from __future__ import annotations

from uuid import uuid4

from returns_pipeline.compensation.protocol import DurableJournal
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.testing._journal_harness import (
    ODD,
    UNSTORABLE,
    Check,
    Harness,
    case,
    expect,
    name_of,
    states_of,
)

__all__ = ["CASES"]

CASES: dict[str, Check] = {}


@case(CASES, "the state of an action is on record: done, stuck, deferred, postponed")
async def _marks(harness: Harness) -> None:
    names = ("a", "b", "c", "d", "e")
    saga, journal = await harness.dead(*names), harness.process()
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
    await _check_marks(harness, saga, wanted)
    await journal.close()
    await _check_marks(harness, saga, wanted)
    again = harness.process()
    claimed = await again.claim(besides=set())
    expect("claimed by the next", claimed and claimed.id, saga)
    expect("as", claimed and claimed.actions, (await harness.stored(saga)).actions)


async def _check_marks(
    harness: Harness, saga: str, wanted: dict[str, tuple[str, int, float, str]]
) -> None:
    actions = {name_of(action): action for action in (await harness.stored(saga)).actions}
    expect("listed", sorted(actions), sorted(wanted))
    for name, (state, attempts, due, error) in wanted.items():
        action = actions[name]
        seen = (action.state, action.attempts, action.next_attempt)
        expect(f"state, attempts and next attempt of {name!r}", seen, (state, attempts, due))
        if error not in action.error or (action.error and not error):
            raise AssertionError(f"the error of {name!r}: expected {error!r}, saw {action.error!r}")


@case(
    CASES, "a saga can be claimed as long as an action in it is pending or deferred, and no longer"
)
async def _claimable(harness: Harness) -> None:
    saga = await harness.dead("a", "b", "c")
    for name, what in [("c", "done"), ("b", "stuck"), ("a", "deferred")]:
        journal = harness.process()
        expect(f"claimed before {name} is {what}", await harness.claim(journal), [saga])
        id_ = next(it.id for it in (await harness.stored(saga)).actions if name_of(it) == name)
        if what == "done":
            await journal.mark(id_).done()
        elif what == "stuck":
            await journal.mark(id_).give_up("poison")
        else:
            await journal.defer(id_, "unknown")
        await journal.close()
    journal = harness.process()
    expect("claimed when one is deferred", await harness.claim(journal), [saga])
    await journal.close()
    expect("discarded", await harness.process().discard(saga, "no"), 2)
    expect("claimed when nothing is left to do", await harness.claim(harness.process()), [])
    states = states_of(await harness.found(saga))
    expect("still listed", states, [("c", "done"), ("b", "done"), ("a", "done")])


@case(CASES, "a saga whose newest open action was deferred is passed over by a process without it")
async def _passed_over(harness: Harness) -> None:
    saga, first = await harness.dead("a", "b"), harness.process()
    expect("claimed before", await harness.claim(first, known={}), [saga])
    (id_, _) = [action.id for action in (await harness.stored(saga)).actions]
    await first.defer(id_, "unknown")
    await first.close()
    unknown: tuple[dict[str, int], ...] = ({}, {"other": 1}, {"note": 0})
    for known in unknown:
        expect(f"claimed knowing {known}", await harness.claim(harness.process(), known=known), [])
    for knows in (None, {"note": 1, "other": 1}, {"note": 2}):
        journal = harness.process()
        expect(f"claimed knowing {knows}", await harness.claim(journal, known=knows), [saga])
        await journal.close()
    expect("discarded", await harness.process().discard(saga, "no"), 1)
    expect("claimed after", await harness.claim(harness.process(), known={}), [saga])


@case(CASES, "a saga that is not done is listed without those that are, and no other")
async def _not_done(harness: Harness) -> None:
    saga = await harness.dead("a", "b")
    for name in ("b", "a"):
        journal = harness.process()
        expect("claimed", await harness.claim(journal), [saga])
        ids = {name_of(it): it.id for it in (await harness.stored(saga)).actions}
        record = journal.mark(ids[name])
        await (record.give_up("poison") if name == "b" else record.done())
        await journal.close()
        both = await harness.listed(done=False), await harness.listed()
        expect(f"listed after {name}", *both)
    expect("discarded", await harness.process().discard(saga, "no"), 1)
    expect("listed when all is done", await harness.listed(done=False), [])
    expect("listed with what is done", len(await harness.listed()), 1)


@case(CASES, "stuck and deferred actions can be retried or discarded, and no others")
async def _people(harness: Harness) -> None:
    saga, journal = await harness.dead("a", "b", "c", "d"), harness.process()
    found = await journal.claim(besides=set())
    ids = [action.id for action in (found.actions if found else ())]
    for id_ in ids[:3]:
        await journal.mark(id_).begin()
    await journal.postpone(ids[1], OSError("no"), 99.0)
    await journal.mark(ids[0]).done()
    await journal.mark(ids[1]).give_up(OSError("poison"))
    await journal.defer(ids[2], "unknown")
    await journal.close()
    person = harness.process()
    expect("retried", await person.retry(saga), 2)
    seen = [(it.state, it.attempts, it.next_attempt) for it in (await harness.stored(saga)).actions]
    wanted = [("done", 1, 0.0), ("pending", 0, 0.0), ("pending", 0, 0.0), ("pending", 0, 0.0)]
    expect("state, attempts and next attempt", seen, wanted)
    expect("retried again", await person.retry(saga), 0)
    journal = harness.process()
    expect("claimed", await harness.claim(journal), [saga])
    await journal.mark(ids[1]).give_up(OSError("poison"))
    await journal.close()
    expect("discarded", await person.discard(saga, f"by hand: {ODD}"), 1)
    actions = (await harness.stored(saga)).actions
    expect("states", [it.state for it in actions], ["done", "done", "pending", "pending"])
    if ODD not in actions[1].error:
        raise AssertionError(f"the reason {ODD!r} is not on record: {actions[1].error!r}")


@case(CASES, "any error can be put on record, however long, whatever its text")
async def _errors(harness: Harness) -> None:
    errors: list[tuple[str, object]] = [
        ("odd", OSError(ODD)),
        ("unstorable", OSError(UNSTORABLE)),
        ("long", OSError("y" * 1_000_000)),
        ("a text", UNSTORABLE),
        ("none", None),
        ("unspeakable", _Unspeakable()),
    ]
    saga = await harness.dead(*(name for name, _ in errors))
    journal, ids = await _claimed(harness, saga)
    for name, error in errors:
        await journal.postpone(ids[name], error, 0.0)
        await journal.mark(ids[name]).give_up(error)
    await journal.close()
    for reason in (ODD, UNSTORABLE, "y" * 1_000_000):
        actions = (await harness.stored(saga)).actions
        expect("without an error", [name_of(it) for it in actions if not it.error], [])
        expect("retried", await harness.process().retry(saga), len(errors))
        journal, ids = await _claimed(harness, saga)
        for id_ in ids.values():
            await journal.defer(id_, reason)
        await journal.close()
    expect("discarded", await harness.process().discard(saga, UNSTORABLE), len(errors))


async def _claimed(harness: Harness, saga: str) -> tuple[DurableJournal, dict[str, str]]:
    """Return a process that has claimed the saga, and the ids of its actions."""
    journal = harness.process()
    expect("claimed", await harness.claim(journal), [saga])
    return journal, {name_of(it): it.id for it in (await harness.stored(saga)).actions}


class _Unspeakable(Exception):
    def __repr__(self) -> str:
        raise ValueError("no words")

    __str__ = __repr__


@case(CASES, "attempts and waits are kept when another recoverer takes over")
async def _attempts(harness: Harness) -> None:
    tried: list[str] = []

    @harness.registry.compensation("flaky", retry=RetryPolicy(attempts=3, wait=0.0))
    async def flaky(name: str) -> None:
        tried.append(name)
        raise OSError(f"attempt {len(tried)}")

    journal, saga = harness.process(), uuid4().hex
    await journal.record(harness.intent(saga, undo=flaky))
    await journal.close()
    first = harness.process()
    found = await first.claim(besides=set())
    for action in found.actions if found else ():
        await first.mark(action.id).begin()
        await first.postpone(action.id, OSError("attempt 0"), 0.0)
    await first.close()
    (report,) = await harness.recover()
    expect("attempts left of three", len(tried), 2)
    expect("stuck", [entry.name for entry in report.stuck], ["flaky"])
    (action,) = (await harness.stored(saga)).actions
    expect("state and attempts", (action.state, action.attempts), ("stuck", 3))
