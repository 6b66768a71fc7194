"""`chunks_or_timeout` against a model that has no tasks, no timers and no loop: only arithmetic."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from hypothesis import given, reject
from hypothesis import strategies as st
from returns.result import Failure, Result, Success

from returns_pipeline import ResultStream, chunks_or_timeout
from returns_pipeline.testing import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

T = TypeVar("T")

# Times are sums of powers of two, so that the loop's and the model's are equal to the last bit.
gaps = st.sampled_from([0.0, 0.0, 0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 8.0, 16.0])
pauses = st.sampled_from([0.0, 0.0, 0.0625, 0.6875, 1.5625, 4.3125, 20.1875])
sizes = st.integers(1, 5)
timeouts = st.sampled_from([0.03125, 1.03125, 2.53125, 6.03125, math.inf])


@dataclass(frozen=True, slots=True)
class Step:
    """What the source does: wait, then emit a value or, if it ``fails``, a failure."""

    gap: float
    fails: bool = False


class Model:
    """The rules of the docstring, applied to numbers.

    The source begins its next wait when the pump asks for more: at once, or when there is room.
    A window is emitted when it is full, due, flushed or the last; the reader may come later.
    """

    def __init__(self, steps: Sequence[Step], n: int, timeout: float) -> None:
        self.steps = steps
        self.n = n
        self.timeout = timeout
        self.read = 0  # steps that the source has made
        self.held: list[int] = []
        self.due = math.inf  # the open window's deadline
        self.closed_at: float | None = None  # when it was full or flushed: the source waits
        self.alone: int | None = None  # the failure that flushed it
        self.next_at: float | None = None  # when the source makes its next step; None: it waits

    def ask(self, asked: float) -> tuple[float, list[int] | int] | None:
        """Return what a read that begins at a time gets, and when; None at the end."""
        if self.next_at is None and self.closed_at is None and self.read == 0:
            self._resume(asked)  # the first read opens the source
        while True:
            at = self._available()
            if at is not None:
                at = max(at, asked)
            if self.next_at is None:
                break
            if at is not None and self.next_at == at:
                reject()  # two things happen at once, and either may come first
            if at is not None and at < self.next_at:
                break
            self._step()
        return None if at is None else (at, self._take(at))

    def _available(self) -> float | None:
        if self.closed_at is not None:
            return self.closed_at
        if not self.held:
            return None
        if self.read == len(self.steps) and self.next_at is None:
            return min(self.due, self.ended_at)
        return self.due if self.due < math.inf else None

    def _step(self) -> None:
        assert self.next_at is not None
        now, self.next_at = self.next_at, None
        if self.read == len(self.steps):
            self.ended_at = now
            return
        if self.steps[self.read].fails:
            self.alone = self.read
            self.closed_at = now
        else:
            if not self.held:
                self.due = now + self.timeout
            self.held.append(self.read)
            if len(self.held) == self.n:
                self.closed_at = now
        self.read += 1
        if self.closed_at is None:
            self._resume(now)

    def _resume(self, now: float) -> None:
        self.next_at = now + (self.steps[self.read].gap if self.read < len(self.steps) else 0.0)

    def _take(self, now: float) -> list[int] | int:
        given: list[int] | int
        if self.held:
            given, self.held = self.held, []
            self.due = math.inf
        else:
            assert self.alone is not None
            given, self.alone = self.alone, None
        if self.closed_at is not None and self.alone is None:
            self.closed_at = None
            self._resume(now)
        return given


def foretell(
    steps: Sequence[Step], n: int, timeout: float, pauses: Sequence[float]
) -> list[tuple[float, list[int] | int]]:
    """Return what a reader gets, and when, that pauses so long after each window."""
    model = Model(steps, n, timeout)
    told: list[tuple[float, list[int] | int]] = []
    asked = 0.0
    while (given := model.ask(asked)) is not None:
        told.append(given)
        asked = given[0] + pauses[(len(told) - 1) % len(pauses)]
    return told


async def play(steps: Sequence[Step]) -> AsyncIterator[int]:
    for index, step in enumerate(steps):
        if step.gap:
            await asyncio.sleep(step.gap)
        yield index


async def watch(reading: AsyncIterator[T], pauses: Sequence[float]) -> list[tuple[float, T]]:
    loop = asyncio.get_running_loop()
    seen: list[tuple[float, T]] = []
    async for item in reading:
        seen.append((loop.time(), item))
        if pause := pauses[(len(seen) - 1) % len(pauses)]:
            await asyncio.sleep(pause)
    return seen


@given(
    steps=st.lists(st.builds(Step, gaps), max_size=25),
    n=sizes,
    timeout=timeouts,
    pauses=st.lists(pauses, min_size=1, max_size=6),
)
def test_each_window_is_emitted_at_its_time_with_its_items(
    steps: list[Step], n: int, timeout: float, pauses: list[float]
) -> None:
    """Under any arrivals and any reader: nothing lost, in order, not empty, to the moment."""
    expected = foretell(steps, n, timeout, pauses)
    assert run(watch(chunks_or_timeout.raw(play(steps), n, timeout), pauses)) == expected
    given_out = [window for _, window in expected if isinstance(window, list)]
    assert [index for window in given_out for index in window] == [*range(len(steps))]


@given(
    steps=st.lists(st.builds(Step, gaps, st.booleans()), max_size=25),
    n=sizes,
    timeout=timeouts,
    pauses=st.lists(pauses, min_size=1, max_size=6),
)
def test_on_results_a_failure_flushes_and_keeps_its_place(
    steps: list[Step], n: int, timeout: float, pauses: list[float]
) -> None:
    """The same for the method, whose windows are of values, and end before each failure."""
    expected = foretell(steps, n, timeout, pauses)

    async def results() -> AsyncIterator[Result[int, int]]:
        async for index in play(steps):
            yield Failure(index) if steps[index].fails else Success(index)

    async def main() -> list[tuple[float, list[int] | int]]:
        s = ResultStream.from_results(results()).chunks_or_timeout(n, timeout)
        plain: list[tuple[float, list[int] | int]] = []
        async with s.stream() as reading:
            for at, item in await watch(reading, pauses):
                plain.append((at, item.unwrap() if isinstance(item, Success) else item.failure()))
        return plain

    assert run(main()) == expected


@given(
    steps=st.lists(st.builds(Step, gaps), max_size=15),
    n=sizes,
    timeout=timeouts,
    patience=st.lists(st.sampled_from([0.0, 0.125, 0.625, 1.1875, 3.0625]), min_size=1, max_size=5),
)
def test_reads_that_are_cut_off_at_any_time_lose_nothing(
    steps: list[Step], n: int, timeout: float, patience: list[float]
) -> None:
    async def main() -> list[list[int]]:
        reading = chunks_or_timeout.raw(play(steps), n, timeout)
        windows: list[list[int]] = []
        tries = 0
        while True:
            tries += 1
            # at last as much as the longest silence, or it would never end
            limit = patience[tries % len(patience)] + tries / 8
            try:
                async with asyncio.timeout(limit):
                    windows.append(await anext(reading))
            except TimeoutError:
                continue
            except StopAsyncIteration:
                return windows

    windows = run(main())
    assert [index for window in windows for index in window] == [*range(len(steps))]
    assert all(1 <= len(window) <= n for window in windows)
