"""A sink that refuses a window, as another process has its partition: the worker reads on."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Result, Success
from stored_positions import Storage, StoredPositions

from returns_pipeline import CompensationRegistry, ResultStream, StepContext
from returns_pipeline.compensation.protocol import TakenPartition
from returns_pipeline.connectors import Message, Source
from returns_pipeline.testing import MemoryBroker, run
from returns_pipeline.worker import StoppedBy, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

COUNT = 40


class Shop:
    """Stores windows with their positions.

    Attributes:
        took: At these numbers another process has taken the partition meanwhile.
        undone: What the steps that were refused have undone.
        contexts: The names of the contexts that pipelines got.
    """

    def __init__(self, *took: int) -> None:
        self.broker = MemoryBroker(partitions=2)
        self.broker.publish(*[str(number).encode() for number in range(COUNT)])
        self.storage = Storage()
        self.store = StoredPositions(self.storage)
        self.took = {*took}
        self.undone: list[int] = []
        self.contexts: list[str] = []
        self.remove = CompensationRegistry().compensation("remove")(self._remove)

    async def _remove(self, numbers: list[int]) -> None:
        self.undone += numbers

    async def persist(self, window: list[Message[int]], step: StepContext) -> Result[int, str]:
        numbers = [message.value for message in window]
        await step.register(self.remove, numbers)
        await asyncio.sleep(0.1)
        if self.took & {*numbers}:
            self.took -= {*numbers}
            for name, (epoch, spans) in [*self.storage.taken.items()]:
                self.storage.taken[name] = TakenPartition(epoch + 1, spans)
        self.store.commit(window)
        return Success(len(window))

    def pipeline(
        self, messages: ResultStream[Message[int], Any], ctx: StepContext
    ) -> ResultStream[object, Any]:
        self.contexts.append(ctx.name)
        windows = messages.chunks_or_timeout(4, 0.5)
        return windows.bind_step(self.persist, ctx, concurrency=2)

    def worker(self, **how: Any) -> Worker[Any]:
        driver = self.broker.driver("shop", positions=self.store)
        return Worker(Source(driver, decode=int), self.pipeline, **how)

    def is_done(self) -> bool:
        return self.broker.backlog("shop") == 0


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # of a broker, or a list
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("per_partition", [False, True])
def test_what_was_refused_is_undone_and_what_is_still_owned_is_read_again(
    *, per_partition: bool
) -> None:
    async def main() -> None:
        shop = Shop(5, 21, 22)
        report = await shop.worker(per_partition=per_partition).run(stop=until(shop.is_done))
        assert (report.exit_code, report.stopped_by) == (0, StoppedBy.STOP)
        assert Counter(shop.storage.effects) == Counter(range(COUNT))
        assert {5, 21, 22} <= {*shop.undone}
        assert report.statistics.connections > 1

    run(main())


def test_what_is_refused_while_it_drains_is_undone_and_left_to_others() -> None:
    async def main() -> None:
        shop = Shop(18)
        report = await shop.worker().run(stop=until(lambda: len(shop.storage.effects) > 0))
        assert report.exit_code == 0
        left = [number for number in range(COUNT) if number not in shop.storage.effects]
        assert 18 in left
        assert shop.contexts == ["pipeline", "pipeline"]
        _ = await shop.worker().run(stop=until(shop.is_done))
        assert Counter(shop.storage.effects) == Counter(range(COUNT))

    run(main())
