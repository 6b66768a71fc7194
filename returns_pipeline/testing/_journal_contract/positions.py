"""Cases: positions of messages, which are stored with the commits that cover them."""

from __future__ import annotations

from uuid import uuid4

from returns_pipeline._engine.spans import BEGINNING, Place, Stretch
from returns_pipeline.compensation.protocol import DurableJournal, HandledPositions
from returns_pipeline.errors import LeaseLost
from returns_pipeline.testing._journal_harness import Check, Harness, case, expect

__all__ = ["CASES"]

CASES: dict[str, Check] = {}


class _Partition:
    """A partition, as one process has taken it."""

    def __init__(self, source: str, name: str, epoch: int) -> None:
        self._source = source
        self._name = name
        self._epoch = epoch

    def handled(self, *stretches: Stretch) -> HandledPositions:
        return HandledPositions(self._source, self._name, self._name, self._epoch, stretches)


def _upto(last: int, *, after: Place = BEGINNING) -> Stretch:
    return Stretch(after, (last, 1), last / 4)


async def _taken(journal: DurableJournal, source: str, *names: str) -> list[_Partition]:
    taken = await journal.take(source, names)
    expect("the partitions that were taken", sorted(taken), sorted(names))
    return [_Partition(source, name, taken[name].epoch) for name in names]


async def _spans(harness: Harness, source: str, name: str) -> list[Stretch]:
    """Return what is stored, as the next process that takes the partition sees it."""
    taken = await harness.process().take(source, [name])
    return list(taken[name].spans)


@case(CASES, "positions are stored with the commit that covers them, and merged with the others")
async def _stored(harness: Harness) -> None:
    journal, saga, source = harness.process(), uuid4().hex, f"source {uuid4().hex}"
    one, two = await _taken(journal, source, "p-1", "p-2")
    first, second, third = await harness.record(journal, saga, "a", "b", "c")
    await journal.forget([second], [one.handled(_upto(9, after=(5, 1)))])
    await journal.forget([first], [one.handled(_upto(3)), two.handled(_upto(7))])
    expect("actions that are left", await harness.names(saga), ["c"])
    await journal.forget([], [one.handled(_upto(5, after=(3, 1)), _upto(12, after=(10, 1)))])
    await journal.forget([third])
    await journal.close()
    expect("of one", await _spans(harness, source, "p-1"), [_upto(9), _upto(12, after=(10, 1))])
    expect("of the other", await _spans(harness, source, "p-2"), [_upto(7)])
    expect("of another source", await _spans(harness, f"{source}!", "p-1"), [])


@case(CASES, "a commit of a partition that another process has taken is refused as a whole")
async def _refused(harness: Harness) -> None:
    zombie, other, source = harness.process(), harness.process(), f"source {uuid4().hex}"
    lost, kept = await _taken(zombie, source, "p-1", "p-2")
    saga = uuid4().hex
    first, second = await harness.record(zombie, saga, "a", "b")
    (mine,) = await _taken(other, source, "p-1")
    try:
        await zombie.forget([first], [kept.handled(_upto(4)), lost.handled(_upto(4))])
    except LeaseLost:
        pass
    else:
        raise AssertionError("the commit of a partition that was taken over was not refused")
    expect("actions that are still there", await harness.names(saga), ["b", "a"])
    await zombie.forget([second], [kept.handled(_upto(2))])
    await other.forget([], [mine.handled(_upto(1))])
    expect("of the new owner", await _spans(harness, source, "p-1"), [_upto(1)])
    expect("of the other", await _spans(harness, source, "p-2"), [_upto(2)])
