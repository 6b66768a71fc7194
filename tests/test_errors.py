"""The tree of errors: each is of the package, reads well, is equal by value and can be pickled."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass

import pytest

from returns_pipeline import errors
from returns_pipeline.errors import (
    AllFailed,
    AlreadyCommitted,
    ArgumentsNotRecordable,
    BufferOverflow,
    BulkheadFull,
    ChannelClosed,
    CircuitOpen,
    CompensationFailed,
    ConnectionLost,
    DecodeError,
    InvalidArgument,
    ItemError,
    ItemsRefused,
    JournalCorrupt,
    JournalError,
    JournalUnavailable,
    LeaseLost,
    MissingExtra,
    NotHandled,
    PartitionReplaced,
    PartitionsLost,
    PipelineError,
    PublishError,
    RetriesExhausted,
    ScopeBusy,
    ScopeClosed,
    StepTimeout,
    StreamEmpty,
    TooManyDeliveries,
    UnevenSources,
    UnregisteredCompensation,
)

SAMPLES: list[tuple[PipelineError, dict[str, object], str]] = [
    (
        ChannelClosed("item"),
        {"item": "item"},
        "the channel is closed: the item was not accepted",
    ),
    (InvalidArgument("n must be at least 1"), {}, "n must be at least 1"),
    (StreamEmpty(), {}, "the stream ended without an item"),
    (
        BufferOverflow(1, 64),
        {"branch": 1, "limit": 64},
        "branch 1 was not read while 64 items waited for it",
    ),
    (ItemsRefused("k"), {"key": "k"}, "the worker of key 'k' ended without taking an item"),
    (UnevenSources((0, 2)), {"ended": (0, 2)}, "source 0, 2 ended before the others"),
    (
        StepTimeout("persist", 2.5),
        {"step": "persist", "limit": 2.5},
        "step 'persist' took longer than 2.5 s",
    ),
    (
        RetriesExhausted((StepTimeout("a", 1), StreamEmpty())),
        {"errors": (StepTimeout("a", 1), StreamEmpty()), "attempts": 2},
        "2 attempt(s) failed, the last with StreamEmpty()",
    ),
    (
        ItemError(3, "odd"),
        {"item": 3, "error": "odd"},
        "'odd' for 3",
    ),
    (
        AllFailed(("a", "b")),
        {"errors": ("a", "b")},
        "2 step(s) failed: 'a', 'b'",
    ),
    (
        CircuitOpen("db", 30.0),
        {"name": "db", "retry_after": 30.0},
        "circuit 'db' is open: try again in 30 s",
    ),
    (
        BulkheadFull("db", 3, 5),
        {"name": "db", "limit": 3, "queue": 5},
        "bulkhead 'db' is full: 3 running, 5 waiting",
    ),
    (
        CompensationFailed("job", ("undo a() was not run",)),
        {"scope": "job", "actions": ("undo a() was not run",)},
        "1 undo action(s) of 'job' did not succeed: undo a() was not run",
    ),
    (
        ScopeClosed("job/part", "committed"),
        {"scope": "job/part", "state": "committed"},
        "scope 'job/part' has been committed",
    ),
    (
        ScopeBusy("job"),
        {"context": "job"},
        "context 'job' already runs a step; use child() for steps side by side",
    ),
    (
        JournalError("j.db", "full"),
        {"journal": "j.db", "reason": "full"},
        "journal j.db: full",
    ),
    (
        ArgumentsNotRecordable("j.db", "full"),
        {"journal": "j.db", "reason": "full"},
        "journal j.db: full",
    ),
    (
        JournalCorrupt("j.db", "full"),
        {"journal": "j.db", "reason": "full"},
        "journal j.db: full",
    ),
    (
        JournalUnavailable("j.db", "full"),
        {"journal": "j.db", "reason": "full"},
        "journal j.db: full",
    ),
    (
        LeaseLost("j.db", "full"),
        {"journal": "j.db", "reason": "full"},
        "journal j.db: full",
    ),
    (
        AlreadyCommitted("j.db", "full"),
        {"journal": "j.db", "reason": "full"},
        "journal j.db: full",
    ),
    (
        UnregisteredCompensation("j.db", "full"),
        {"journal": "j.db", "reason": "full"},
        "journal j.db: full",
    ),
    (NotHandled(7), {"item": 7}, "the stream ended before it had handled the item"),
    (
        ConnectionLost("nats orders", "refused"),
        {"source": "nats orders", "reason": "refused"},
        "nats orders: refused",
    ),
    (
        PartitionsLost("kafka orders", ("orders-0", "orders-1")),
        {"source": "kafka orders", "partitions": ("orders-0", "orders-1")},
        "kafka orders: other processes own orders-0, orders-1 now",
    ),
    (
        PartitionReplaced("kafka orders", "orders-0 ends too soon"),
        {"source": "kafka orders", "reason": "orders-0 ends too soon"},
        "kafka orders: orders-0 ends too soon",
    ),
    (
        DecodeError("Order", "it is empty"),
        {"wanted": "Order", "reason": "it is empty"},
        "a message cannot be read as Order: it is empty",
    ),
    (
        PublishError("nats orders", "too large", 3, (1,), (0,)),
        {
            "target": "nats orders",
            "reason": "too large",
            "count": 3,
            "refused": (1,),
            "unconfirmed": (0,),
        },
        "nats orders: 1 of 3 messages were confirmed: too large",
    ),
    (
        TooManyDeliveries(6, 5),
        {"deliveries": 6, "limit": 5},
        "a message was delivered 6 times, more than 5",
    ),
    (
        MissingExtra("cron", "cronsim"),
        {"extra": "cron", "package": "cronsim"},
        'cronsim is missing: pip install "returns-pipeline[cron]"',
    ),
]
IDS = [type(sample[0]).__name__ for sample in SAMPLES]


@pytest.mark.parametrize(("error", "facts", "text"), SAMPLES, ids=IDS)
def test_an_error_says_what_happened_and_is_a_value(
    error: PipelineError, facts: dict[str, object], text: str
) -> None:
    assert isinstance(error, PipelineError)
    assert str(error) == text
    for name, value in facts.items():
        assert getattr(error, name) == value
    error.add_note("in window 3")
    for copied in pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error):
        assert copied is not error
        assert type(copied) is type(error)
        assert copied == error
        assert hash(copied) == hash(error)
        assert str(copied) == text
        assert copied.__notes__ == ["in window 3"]
        for name, value in facts.items():
            assert getattr(copied, name) == value


def test_the_samples_above_are_all_there_are() -> None:
    known = {name for name in errors.__all__ if name != "PipelineError"}
    assert {type(error).__name__ for error, *_ in SAMPLES} == known
    for name in errors.__all__:
        assert f"{name} " in str(errors.__doc__) or name == "PipelineError"  # drawn in the tree


@pytest.mark.parametrize(("error", "facts", "text"), SAMPLES, ids=IDS)
def test_errors_with_other_facts_or_of_another_kind_differ(
    error: PipelineError, facts: dict[str, object], text: str
) -> None:
    assert error != ValueError(*error.args)
    assert error != text
    assert [other == error for other, *_ in SAMPLES].count(True) == 1

    made = type("Narrower", (type(error),), {})(*error.args)
    assert made != error


def test_facts_tell_errors_of_a_kind_apart() -> None:
    assert StepTimeout("a", 1) != StepTimeout("a", 2)
    assert InvalidArgument("a") != InvalidArgument("b")
    unhashable = RetriesExhausted(([1],))
    assert hash(unhashable) == hash(RetriesExhausted(([2],)))
    assert len({StepTimeout("a", 1), StepTimeout("a", 1), StepTimeout("b", 1)}) == 2


class Refused(Exception):
    """An error of a user's, whose facts are not among its arguments."""

    def __init__(self, *, item: object = None) -> None:
        super().__init__()
        self.item = item


def test_exceptions_of_others_among_the_facts_are_compared_by_what_they_say() -> None:
    def failed() -> AllFailed[Exception]:
        grouped = ExceptionGroup("both", [ValueError("a"), Refused(item=[1])])
        return AllFailed((KeyError("k"), OSError(2, "no such file", "a.txt"), grouped))

    assert failed() == failed()
    assert hash(failed()) == hash(failed())
    assert pickle.loads(pickle.dumps(failed())) == failed()
    noted = failed()
    noted.errors[0].add_note("in window 3")
    assert noted == failed()

    for told in (
        (KeyError("k"),),
        (KeyError("l"), *failed().errors[1:]),
        (LookupError("k"), *failed().errors[1:]),
        (KeyError("k"), OSError(2, "no such file", "b.txt"), failed().errors[2]),
        (*failed().errors[:2], ExceptionGroup("both", [ValueError("a"), Refused(item=[2])])),
        (*failed().errors[:2], ExceptionGroup("both", [ValueError("a")])),
    ):
        assert AllFailed(told) != failed()
    assert RetriesExhausted(([ValueError("a")],)) != RetriesExhausted(((ValueError("a"),),))


@dataclass(frozen=True, slots=True)
class Rejected(Exception):
    """An error of a user's, which says itself what it is equal to, and shows nothing else."""

    item: int


def test_exceptions_that_say_themselves_what_they_are_equal_to_are_believed() -> None:
    assert AllFailed((Rejected(item=1),)) == AllFailed((Rejected(item=1),))
    assert AllFailed((Rejected(item=1),)) != AllFailed((Rejected(item=2),))


def test_errors_are_what_a_caller_catches() -> None:
    assert isinstance(InvalidArgument("n"), ValueError)
    assert isinstance(MissingExtra("cron", "cronsim"), ImportError)
    assert not isinstance(StepTimeout("a", 1), TimeoutError)  # that one is asyncio's own
