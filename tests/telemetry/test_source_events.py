"""What sources and workers report: batches, acknowledgements, connections, partitions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from returns_pipeline import ResultStream, to_result
from returns_pipeline.connectors import Source
from returns_pipeline.telemetry import (
    Acknowledged,
    Backpressure,
    Disconnected,
    Fetched,
    LagMeasured,
    Reconnected,
    Redelivered,
    Revoked,
    StepEnded,
    WindowEmitted,
    WorkerDraining,
    WorkerEnded,
    WorkerStarted,
)
from returns_pipeline.testing import MemoryBroker, Recorder, run, timed
from returns_pipeline.worker import run_worker

if TYPE_CHECKING:
    from returns_pipeline import StepContext
    from returns_pipeline.connectors import Message


def test_a_source_reports_what_it_fetches_and_acknowledges() -> None:
    recorder = Recorder()
    broker = MemoryBroker()
    broker.publish(b"1", b"2", b"3")

    async def main() -> None:
        async with Source(broker.driver("sums"), decode=int, observer=recorder) as source:
            asyncio.get_running_loop().call_later(5.0, source.drain)
            await source.messages().run()

    run(main())
    fetched, acknowledged = recorder.of(Fetched), recorder.of(Acknowledged)
    assert sum(e.messages for e in fetched) == sum(e.messages for e in acknowledged) == 3
    assert fetched[0].in_flight == 3
    assert {(e.system, e.source) for e in fetched} == {("memory", "sums")}
    assert all(e.duration >= 0 for e in acknowledged)
    assert [e.lag for e in recorder.of(LagMeasured)][-1:] in ([0], [])
    assert recorder.of(Redelivered) == []
    assert recorder.of(Disconnected) == []


def test_a_lost_connection_is_reported_once_and_when_it_is_made_again() -> None:
    recorder = Recorder()
    broker = MemoryBroker()

    async def main() -> None:
        async with Source(broker.driver("sums"), decode=int, observer=recorder) as source:
            loop = asyncio.get_running_loop()
            loop.call_later(1.0, broker.disconnect)
            loop.call_later(60.0, source.drain)
            await source.messages().run()

    run(main())
    (lost,), (again,) = recorder.of(Disconnected), recorder.of(Reconnected)
    assert lost.at == 1.0
    assert again.attempts >= 1
    assert again.duration == again.at - lost.at > 0


def test_partitions_that_move_are_reported_with_whether_they_were_settled() -> None:
    recorder = Recorder()
    broker = MemoryBroker(partitions=2)

    async def main() -> None:
        async with Source(broker.driver("sums"), decode=int, observer=recorder) as source:
            reading = asyncio.create_task(to_result(source.messages().run()))
            await asyncio.sleep(1.0)
            async with Source(broker.driver("sums"), decode=int) as other:
                await asyncio.sleep(5.0)
                other.drain()
            source.drain()
            await reading

    run(main())
    revoked = recorder.of(Revoked)
    assert [e.settled for e in revoked[:1]] == [True]
    assert revoked[0].partitions


def summed(messages: ResultStream[Message[int], Any], ctx: StepContext) -> ResultStream[int, Any]:
    async def add(batch: list[int], step: StepContext) -> Any:
        from returns.result import Success

        return Success(sum(batch))

    values = messages.map(lambda message: message.value)
    return values.chunks_or_timeout(2, 1.0).bind_step(add, ctx)


@pytest.mark.parametrize("end", ["stop", "raise"])
def test_a_worker_reports_its_life_and_all_that_runs_in_it(end: str) -> None:
    recorder = Recorder()
    broker = MemoryBroker()
    broker.publish(b"1", b"2", b"3")

    async def main() -> None:
        pipeline: Any = summed
        if end == "raise":

            def pipeline(messages: Any) -> Any:
                return messages.map(lambda _: 1 // 0)

        source = Source(broker.driver("sums"), decode=int)
        await run_worker(source, pipeline, name="adder", stop=asyncio.sleep(9.0), observer=recorder)

    if end == "raise":
        with pytest.raises(ZeroDivisionError):
            run(main())
    else:
        run(main())
    assert {e.pipeline for e in recorder.events} == {"adder"}
    (started,), (ended,) = recorder.of(WorkerStarted), recorder.of(WorkerEnded)
    assert started.at == 0.0
    assert ended.duration == ended.at
    assert recorder.events[-1] is ended
    if end == "raise":
        assert (ended.reason, ended.handled) == ("ZeroDivisionError", 0)
        return
    assert (ended.reason, ended.handled, ended.dead, ended.at) == ("stop", 2, 0, 9.0)
    assert [(e.at, e.reason) for e in recorder.of(WorkerDraining)] == [(9.0, "stop")]
    assert [(e.size, e.reason) for e in recorder.of(WindowEmitted)] == [(2, "size"), (1, "time")]
    assert [e.stage for e in recorder.of(StepEnded)] == ["add", "add", "adder"]
    assert sum(e.messages for e in recorder.of(Acknowledged)) == 3


@pytest.mark.parametrize("stage", ["bind", "prefetch", "merge"])
def test_stages_that_wait_for_a_slow_reader_report_once_a_second_and_the_rest_at_the_end(
    stage: str,
) -> None:
    recorder = Recorder()

    async def handled(_: object) -> None:
        await asyncio.sleep(0.25)

    async def same(value: int) -> int:
        return value

    async def main() -> None:
        s = ResultStream.of(timed(*range(20)))
        if stage == "bind":
            s = s.map_async(same, concurrency=2)
        elif stage == "prefetch":
            s = s.prefetch(2)
        else:
            s = s.merge(ResultStream.of(timed(*range(20))))
        await s.observed(recorder, name="shop").tap_async(handled).run()

    run(main())
    waits = recorder.of(Backpressure)
    assert 2 <= len(waits) <= 12
    assert all(e.pipeline == "shop" and e.waited > 0 and e.in_flight >= 1 for e in waits)
    assert sum(e.waited for e in waits) <= 2 * waits[-1].at
    assert sum(e.waits for e in waits) >= len(waits)
    names = {"bind": ("same", "map_async"), "prefetch": ("prefetch",) * 2, "merge": ("merge",) * 2}
    assert {(e.stage, e.operator) for e in waits} == {names[stage]}
