"""Tests of a pipeline: on virtual time, with faults at each await, and with a broker in memory."""

import asyncio
from contextlib import suppress

from returns.result import Failure, Result, Success

from returns_pipeline import ResultStream, StepContext, to_result
from returns_pipeline.connectors import Message, Source
from returns_pipeline.policies import RetryPolicy, with_retry
from returns_pipeline.telemetry import WindowEmitted
from returns_pipeline.testing import (
    FaultInjector,
    MemoryBroker,
    Recorder,
    Wait,
    inject_everywhere,
    run,
    script,
    timed,
    timeline,
)


# When? `timeline` returns each item with the second at which it arrived.
def test_a_window_waits_for_two_seconds() -> None:
    source = timed("a", "b", Wait(60.0), "c")
    windows = ResultStream.of(source).chunks_or_timeout(500, 2.0).successes()
    assert run(timeline(windows)) == [(2.0, ["a", "b"]), (60.0, ["c"])]


# The same as a drawing: a letter is an item, a dash a second, a bar the end.
def test_a_drawn_source() -> None:
    windows = ResultStream.of(script("ab-----c|")).chunks_or_timeout(500, 2.0).successes()
    assert run(timeline(windows)) == [(2.0, ["a", "b"]), (8.0, ["c"])]


# A wait of an hour between attempts takes no time.
def test_a_step_is_tried_three_times() -> None:
    attempts: list[float] = []

    async def step(_: str) -> Result[str, str]:
        attempts.append(asyncio.get_running_loop().time())
        return Failure("down") if len(attempts) < 3 else Success("up")

    patient = with_retry(step, RetryPolicy(attempts=3, wait=3600.0))
    assert run(to_result(ResultStream.of(timed("a")).bind_async(patient).run())) == Success(1)
    assert attempts == [0.0, 3600.0, 7200.0]


# Whatever fails, and wherever it is cancelled: all or nothing.
def test_a_window_is_written_as_a_whole_or_not_at_all() -> None:
    async def scenario(injector: FaultInjector) -> None:
        rows: list[str] = []

        async def delete(window: list[str]) -> None:
            for row in window:
                if row in rows:
                    rows.remove(row)

        async def write(window: list[str], step: StepContext) -> Result[int, OSError]:
            await step.register(delete, window)
            for row in window:
                await asyncio.sleep(0.1)  # stands for a network
                rows.append(row)
            return Success(len(window))

        async with StepContext("test") as ctx:
            windows = ResultStream.of(timed("a", "b")).chunks_or_timeout(2, 1.0)
            with suppress(OSError, asyncio.CancelledError):
                _ = await injector.run(windows.bind_step(write, ctx).run())
        assert rows in ([], ["a", "b"])

    assert inject_everywhere(scenario) >= 2  # cancelled
    assert inject_everywhere(scenario, OSError) >= 2  # as if the network had failed


# A broker in memory: what is acknowledged, and what is not?
def test_what_is_not_written_is_not_acknowledged() -> None:
    async def write(window: list[Message[int]]) -> Result[int, str]:
        return Failure("disk full") if len(window) == 1 else Success(len(window))

    async def main() -> int:
        broker = MemoryBroker()
        broker.publish(b"1", b"2", b"3")
        async with Source(broker.driver("shop"), decode=int) as source:
            _ = await source.messages().chunks_or_timeout(2, 1.0).bind_async(write).run()
        return broker.backlog("shop")

    assert run(main()) == 1


# Why were windows emitted?
def test_windows_are_full() -> None:
    recorder = Recorder()
    stream = ResultStream.of(timed(1, 2, 3, 4)).observed(recorder).chunks_or_timeout(2, 1.0)
    _ = run(stream.run())
    assert [event.reason for event in recorder.of(WindowEmitted)] == ["size", "size"]


if __name__ == "__main__":  # pytest finds them by their names
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test()
            print("passed:", name)
