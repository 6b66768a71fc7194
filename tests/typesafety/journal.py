# mypy: disable-error-code="unused-awaitable"
"""What the checkers must say about journals and recovery."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import timedelta
from typing import TYPE_CHECKING, assert_type

from returns_pipeline.compensation import (
    ActionRecord,
    CompensationEntry,
    CompensationRegistry,
    CompensationScope,
    Intent,
    Journal,
    Upcast,
)
from returns_pipeline.compensation.protocol import StoredPositions
from returns_pipeline.context import StepContext
from returns_pipeline.errors import (
    AlreadyCommitted,
    ArgumentsNotRecordable,
    JournalCorrupt,
    JournalError,
    JournalUnavailable,
    LeaseLost,
    UnregisteredCompensation,
)
from returns_pipeline.journal import (
    PostgresJournal,
    RecoverableJournal,
    RecoveryReport,
    SqliteJournal,
    StoredAction,
    StoredSaga,
    encode_arguments,
    recover,
    recovering,
)

if TYPE_CHECKING:
    from pathlib import Path

    from returns_pipeline.compensation.protocol import DurableJournal, OperableJournal


async def takes_any(journal: Journal, intent: Intent) -> None:
    """Any journal will do for a scope."""
    CompensationScope("a", journal=journal)
    StepContext("a", journal=journal)
    await journal.record(intent)
    assert_type(await journal.flush(), None)
    await journal.flush("a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    scope = CompensationScope("a", journal=journal)
    assert_type(await scope.flush(), None)
    await scope.flush("a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await journal.record("intent")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    CompensationScope("a", journal="j.db")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def of_ones_own(journal: RecoverableJournal, mark: ActionRecord, intent: Intent) -> None:
    """A journal of one's own has what it needs."""
    assert_type(encode_arguments(intent), str)
    encode_arguments(intent.args)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await journal.claim(besides={"saga"}), StoredSaga | None)
    assert_type(journal.mark("action"), ActionRecord)
    assert_type(await journal.release("saga"), None)
    assert_type(await journal.defer("action", "unknown name"), None)
    assert_type(await journal.postpone("action", OSError(), 1.0), None)
    assert_type(await mark.begin(), None)
    assert_type(await mark.done(), None)
    assert_type(await mark.give_up(OSError()), None)
    other: RecoverableJournal = mark  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    none: ActionRecord = journal  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    await recover(other, CompensationRegistry())
    await none.begin("action")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await none.done("action")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await none.give_up()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def by_people(journal: OperableJournal) -> None:
    """The command line looks, retries and discards."""
    assert_type(await journal.sagas(), list[StoredSaga])
    assert_type(await journal.retry("saga"), int)
    assert_type(await journal.discard("saga", "why"), int)
    stored = await journal.stored_positions()
    assert_type(stored, list[StoredPositions])
    assert_type(stored[0].spans.mark is None, bool)
    assert_type(await journal.forget_positions("kafka orders/billing", ["orders-3"]), list[str])
    assert_type(await journal.close(), None)
    await journal.sagas(1)  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]
    await journal.retry()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await journal.discard("saga")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await journal.stored_positions(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await journal.forget_positions("kafka orders/billing", 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    StoredPositions("kafka orders/billing")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await journal.close(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    none: OperableJournal = "journal"  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    await none.close()


async def check(path: Path, registry: CompensationRegistry) -> None:
    """A journal is one, and recovery tells what it did."""
    SqliteJournal(path, lazy_commits="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async with SqliteJournal(path, retention=3600.0, lazy_commits=True) as journal:
        await takes_any(journal, Intent("i", "s", "n", "p", "p", "k", registry["undo"], (), {}))
        reports = await recover(journal, registry)
        assert_type(reports, list[RecoveryReport])
        assert_type(reports[0].stuck, tuple[CompensationEntry, ...])
        sagas = await journal.sagas()
        assert_type(sagas, list[StoredSaga])
        assert_type(sagas[0].actions, tuple[StoredAction, ...])
        await recover(registry, journal)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        assert_type(await journal.retry("saga"), int)
        assert_type(await journal.discard("saga", "done by hand"), int)
        assert_type(await journal.flush(), None)
        await journal.flush("a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        assert_type(reports[0].error, JournalError | None)
        await recover(journal, registry, timeout=60.0, concurrency=4)
        await recover(journal, registry, concurrency="4")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        async with recovering(journal, registry, every=timedelta(minutes=1), on_report=print):
            pass
        recovering(journal)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        await with_every_request(journal)
        assert_type(await journal.close(), None)
        await journal.retry()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        await journal.discard("saga")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        assert_type(await journal.sagas(done=False), list[StoredSaga])
        assert_type(await journal.stored_positions(), list[StoredPositions])
        assert_type(await journal.forget_positions("nats orders/billing"), list[str])
        await journal.stored_positions(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        await journal.forget_positions("nats orders/billing", 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await journal.sagas("all")  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]
        await journal.close(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    SqliteJournal(path, mode=0o660, patience=timedelta(seconds=3))
    SqliteJournal(path, mode="0660")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    SqliteJournal(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def token() -> str:
    """Return a password that is good for a while."""
    return "a"


async def check_postgres(registry: CompensationRegistry) -> None:
    """One in a database is used in the same way."""
    async with PostgresJournal("postgresql://host/db", liveness="lease", lease=9.0) as journal:
        await takes_any(journal, Intent("i", "s", "n", "p", "p", "k", registry["undo"], (), {}))
        assert_type(await recover(journal, registry), list[RecoveryReport])
        assert_type(await journal.sagas(), list[StoredSaga])
        assert_type(await journal.retry("saga"), int)
        assert_type(await journal.discard("saga", "done by hand"), int)
        assert_type(await journal.stored_positions(), list[StoredPositions])
        assert_type(await journal.forget_positions("nats orders/billing"), list[str])
        await journal.stored_positions(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        await journal.forget_positions(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        assert_type(await journal.flush(), None)
        await journal.flush("all")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        await journal.record("i")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await with_every_request(journal)
    PostgresJournal(lambda: "postgresql://host/db", password=token, create=False)
    PostgresJournal("", password=lambda: 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    PostgresJournal(dsn=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    PostgresJournal("", liveness="clock")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def with_every_request(journal: DurableJournal) -> None:
    """The author of a journal can read from the protocol what each request takes and returns."""
    assert_type(journal.forget(["action"]), Awaitable[None])
    await journal.forget([1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    assert_type(journal.mark("action"), ActionRecord)
    journal.mark(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    journal.move(["action"], saga="saga", name="job", prefix="1/")
    journal.forget_later(["action"], print)
    journal.forget_later(1, print)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    journal.abandon(["action"])
    journal.abandon(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    journal.move(["action"], "saga")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(await journal.claim(besides=frozenset()), StoredSaga | None)
    await journal.claim()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(await journal.release("saga"), None)
    await journal.release(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await journal.defer("action", "unknown name"), None)
    await journal.defer("action")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(await journal.postpone("action", OSError(), 1.0), None)
    await journal.postpone("action", OSError())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def tell(error: JournalError) -> str:
    """Each kind is one of them, with the same facts."""
    for kind in (
        AlreadyCommitted,
        ArgumentsNotRecordable,
        JournalCorrupt,
        JournalUnavailable,
        LeaseLost,
        UnregisteredCompensation,
    ):
        assert_type(kind("journal", "reason").journal, str)
    print(error.code)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]
    return error.reason


def refuse(saga: StoredSaga, action: StoredAction, report: RecoveryReport) -> None:
    """Facts are there by name, and cannot be changed."""
    saga.owner = "me"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    action.state = "done"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    report.done = ()  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    StoredSaga("id")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    StoredAction("id")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    RecoveryReport()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Intent("id")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    JournalError("journal")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    AlreadyCommitted("journal")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ArgumentsNotRecordable("journal")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    JournalCorrupt("journal")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    JournalUnavailable("journal")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    LeaseLost("journal")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    UnregisteredCompensation("journal")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def bring_up(registry: CompensationRegistry, upcast: Upcast) -> None:
    """A function for old arguments takes and returns them by name."""
    registry.compensation("a", version=2, upcast={1: upcast})
    wrong: Upcast = str.upper  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    registry.compensation("b", upcast={1: wrong})
