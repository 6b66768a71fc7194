"""Find out where a pipeline waits, and what to change."""

import asyncio
from collections import Counter

from returns.result import Result, Success

from returns_pipeline import ResultStream
from returns_pipeline.sources import from_iterable
from returns_pipeline.telemetry import Backpressure, WindowEmitted
from returns_pipeline.testing import Recorder, run


async def look_up(number: int) -> Result[int, str]:
    await asyncio.sleep(0.002)
    return Success(number)


async def write(window: list[int]) -> Result[int, str]:
    await asyncio.sleep(0.004 + len(window) / 10_000)  # a round trip, and something for each row
    return Success(len(window))


async def measure(size: int, concurrency: int) -> None:
    recorder = Recorder()
    stream = (
        ResultStream.of(from_iterable(range(400)))
        .observed(recorder)
        .bind_async(look_up, concurrency=concurrency)
        .chunks_or_timeout(size, 0.05)
        .bind_async(write)
    )
    began = asyncio.get_running_loop().time()
    _ = await stream.run()
    took = asyncio.get_running_loop().time() - began
    reasons = Counter(event.reason for event in recorder.of(WindowEmitted))
    waits = dict[str, float]()
    for event in recorder.of(Backpressure):
        waits[event.stage] = waits.get(event.stage, 0.0) + event.waited
    shown = {stage: f"{seconds:.1f} s" for stage, seconds in sorted(waits.items())}
    print(f"size {size}, concurrency {concurrency}: {took:.2f} s", dict(reasons), shown)


async def main() -> None:
    await measure(10, 1)
    await measure(10, 16)
    await measure(100, 16)


if __name__ == "__main__":
    run(main())  # on virtual time: the numbers are exact
