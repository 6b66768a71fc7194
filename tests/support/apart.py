"""Two workers with a pipeline for each partition: one is stuck, and another worker joins."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Protocol

from returns_pipeline.connectors import Source
from returns_pipeline.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from returns_pipeline import ResultStream
    from returns_pipeline.connectors import Driver, Message

COUNT = 200


class Queue(Protocol):
    """A queue with four partitions."""

    def driver(self) -> Driver: ...
    async def publish(self, values: Sequence[bytes], /) -> None: ...


async def join_while_one_is_stuck(queue: Queue) -> None:
    """Check that no other partition waits, that all moves in order, and that nothing is lost.

    The first window of the last partition is stuck in the first worker, until it is taken away.
    """
    done: dict[str, list[tuple[int, ...]]] = defaultdict(list)
    seen: set[int] = set()
    stuck: list[str] = []

    async def write(window: list[Message[int]]) -> int:
        (name,) = {each.partition for each in window}
        if not stuck and name.endswith("-3"):
            stuck.append(name)
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(0.002)
        done[name] += [each.position for each in window]
        seen.update(each.value for each in window)
        return len(window)

    def pipeline(messages: ResultStream[Message[int], Any]) -> ResultStream[int, Any]:
        return messages.chunks_or_timeout(5, 0.05).map_async(write)

    def start() -> tuple[asyncio.Task[Any], asyncio.Event]:
        source = Source(queue.driver(), decode=int, max_in_flight=80, settle_timeout=2.0)
        stop = asyncio.Event()
        worker = Worker(source, pipeline, per_partition=True)
        return asyncio.create_task(worker.run(stop)), stop

    async def until(condition: Callable[[], bool], *working: asyncio.Task[Any]) -> None:
        while not condition():
            assert not any(task.done() for task in working)
            await asyncio.sleep(0.02)

    await queue.publish([str(number).encode() for number in range(COUNT)])
    first, stop_first = start()
    await until(lambda: bool(stuck), first)
    last = stuck[0]
    # All but what is in the partition that is stuck, which takes turns with the others.
    await until(lambda: len(seen) >= COUNT // 2, first)
    await until(lambda: len(done) == 3, first)
    assert done[last] == []
    second, stop_second = start()
    await queue.publish([str(number).encode() for number in range(COUNT, 2 * COUNT)])
    await until(lambda: len(seen) == 2 * COUNT, first, second)
    for stop in (stop_first, stop_second):
        stop.set()
    reports = [await first, await second]
    assert [report.exit_code for report in reports] == [0, 0]
    assert reports[0].statistics.fenced  # what was stuck was taken away by a rebalance
    for positions in done.values():
        news = [each for place, each in enumerate(positions) if each not in positions[:place]]
        assert news == sorted(news)
    async with Source(queue.driver()) as rest:
        asyncio.get_running_loop().call_later(2, rest.drain)
        assert [received async for received in rest] == []
