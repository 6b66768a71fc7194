"""`restarting`: a source that is opened again when it has failed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from returns_pipeline.errors import InvalidArgument
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.sources import restarting
from returns_pipeline.testing import FaultInjector, Wait, run, timed, timeline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


def scripted(*steps: Callable[[], AsyncIterator[Any]] | Any) -> Callable[[], Any]:
    """Return a factory that opens these, one after the other."""
    left = list(steps)

    def open_next() -> Any:
        made = left.pop(0)
        if isinstance(made, Exception):
            raise made
        return made

    return open_next


def test_a_source_is_opened_again_after_the_wait_and_its_items_follow() -> None:
    sources = [
        timed("a", Wait(1), "b", OSError("one")),
        timed(OSError("two")),
        timed("c", Wait(1), "d"),
    ]
    policy = RetryPolicy(attempts=3, wait=5.0)
    assert run(timeline(restarting(scripted(*sources), policy))) == [
        (0.0, "a"),
        (1.0, "b"),
        (11.0, "c"),
        (12.0, "d"),
    ]
    assert [source.closed for source in sources] == [1, 1, 1]


def test_an_item_begins_the_count_again() -> None:
    def failing_after(*items: int) -> Any:
        return timed(*items, OSError(*items))

    policy = RetryPolicy(attempts=2, wait=1.0)
    factory = scripted(failing_after(1), failing_after(2), failing_after(3), timed(4))
    assert [n for _, n in run(timeline(restarting(factory, policy)))] == [1, 2, 3, 4]


@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_the_last_error_is_raised_after_so_many_in_a_row(attempts: int) -> None:
    async def main() -> None:
        sources: list[Any] = [timed(OSError(number)) for number in range(attempts)]
        policy = RetryPolicy(attempts=attempts, wait=1.0)
        with pytest.raises(OSError, match=str(attempts - 1)) as raised:
            await timeline(restarting(scripted(*sources), policy))
        assert asyncio.get_running_loop().time() == attempts - 1
        notes = getattr(raised.value, "__notes__", [])
        assert any(f"failed {attempts} times in a row" in note for note in notes) is (attempts > 1)

    run(main())


def test_only_errors_of_the_policy_open_it_again() -> None:
    async def main() -> None:
        policy = RetryPolicy(attempts=9, wait=1.0, retry_on=ConnectionError)
        factory = scripted(timed(ConnectionError()), timed(ValueError("a bug")), timed(1))
        with pytest.raises(ValueError, match="a bug"):
            await timeline(restarting(factory, policy))
        by_function = RetryPolicy(
            attempts=9, wait=1.0, retry_on=lambda error: "again" in str(error)
        )
        factory = scripted(timed(OSError("again")), timed(OSError("never")))
        with pytest.raises(OSError, match="never"):
            await timeline(restarting(factory, by_function))

    run(main())


def test_a_factory_that_raises_counts_as_a_source_that_does() -> None:
    policy = RetryPolicy(attempts=3, wait=1.0)
    factory = scripted(OSError(), OSError(), timed("a"))
    assert run(timeline(restarting(factory, policy))) == [(2.0, "a")]


def test_the_total_time_counts_from_the_first_failure_in_a_row() -> None:
    async def main() -> None:
        policy = RetryPolicy(attempts=99, wait=2.0, total_timeout=5.0)
        failures: list[Any] = [timed(OSError()) for _ in range(99)]
        with pytest.raises(OSError):  # noqa: PT011  # it has no text
            await timeline(restarting(scripted(timed(1, Wait(50), OSError()), *failures), policy))
        assert asyncio.get_running_loop().time() == 54

    run(main())


def test_on_retry_is_called_for_each_failure() -> None:
    seen = []

    async def note(event: Any) -> None:
        seen.append((event.attempt, str(event.error), event.delay))

    policy = RetryPolicy(attempts=3, wait=2.0, on_retry=note)
    factory = scripted(timed(OSError("x")), timed("a", OSError("y")), timed())
    assert [item for _, item in run(timeline(restarting(factory, policy)))] == ["a"]
    assert seen == [(1, "x", 2.0), (1, "y", 2.0)]


def test_a_failed_clean_up_is_a_note_and_that_of_an_ended_source_is_raised() -> None:
    class Unclean:
        def __init__(self, *fails: bool) -> None:
            self.fails = list(fails)

        def __aiter__(self) -> Unclean:
            return self

        async def __anext__(self) -> int:
            if self.fails.pop():
                raise ConnectionError
            raise StopAsyncIteration

        async def aclose(self) -> None:
            raise ValueError("in the clean-up")

    async def main() -> None:
        policy = RetryPolicy(attempts=2, wait=1.0, retry_on=ConnectionError)
        with pytest.raises(ConnectionError) as raised:
            await timeline(restarting(scripted(Unclean(True), Unclean(True)), policy))
        assert any("in the clean-up" in note for note in raised.value.__notes__)
        with pytest.raises(ValueError, match="in the clean-up"):
            await timeline(restarting(scripted(Unclean(False)), policy))

    run(main())


def test_what_is_not_a_source_is_not_tried_again() -> None:
    async def main() -> None:
        policy = RetryPolicy(attempts=5, wait=1.0)
        with pytest.raises(TypeError, match=r"the factory of restarting\(\): expected an async"):
            await timeline(restarting(scripted([1, 2]), policy))

        async def not_a_source() -> int:
            return 1

        wrong: Any = not_a_source
        with pytest.raises(TypeError, match="not 'coroutine'"):
            await timeline(restarting(wrong, policy))
        assert asyncio.get_running_loop().time() == 0

    run(main())
    for arguments in ((timed(1), RetryPolicy()), (timed, 5)):
        with pytest.raises(InvalidArgument):
            _ = restarting(*arguments)


def test_closing_during_the_wait_ends_it_at_once() -> None:
    async def main() -> None:
        sources = [timed("a", OSError()), timed("b")]
        streamer = restarting(scripted(*sources), RetryPolicy(wait=100.0)).stream()
        async with streamer as items:
            assert await anext(items) == "a"
            waiting = asyncio.ensure_future(anext(items._aiterator))
            await asyncio.sleep(5)
        with pytest.raises(StopAsyncIteration):
            await waiting
        assert asyncio.get_running_loop().time() == 5
        assert sources[0].closed == 1
        assert sources[1].opened == 0

    run(main())


@given(lengths=st.lists(st.integers(0, 3), min_size=1, max_size=6), cut=st.floats(0.05, 1.5))
def test_cancelled_reads_lose_nothing_whatever_fails(lengths: list[int], cut: float) -> None:
    async def main() -> None:
        sources: list[Any] = []
        for place, length in enumerate(lengths):
            items = [step for n in range(length) for step in (Wait(0.3), (place, n))]
            last = place == len(lengths) - 1
            sources.append(timed(*items) if last else timed(*items, OSError()))
        stream = restarting(scripted(*sources), RetryPolicy(attempts=99, wait=0.7))
        got: list[Any] = []
        async with stream.stream() as opened:
            while True:
                try:
                    async with asyncio.timeout(cut):
                        got.append(await anext(opened._aiterator))
                except TimeoutError:
                    pass
                except StopAsyncIteration:
                    break
        assert got == [(place, n) for place, length in enumerate(lengths) for n in range(length)]
        assert [(source.opened, source.closed) for source in sources] == [(1, 1)] * len(sources)

    run(main())


@pytest.mark.parametrize("times", [1, 2])
def test_wherever_it_is_cancelled_all_that_was_opened_is_closed(times: int) -> None:
    async def main() -> None:
        for injector in FaultInjector.every(times=times):
            sources = [timed(1, OSError()), timed(2, Wait(1), OSError()), timed(3)]
            with contextlib.suppress(asyncio.CancelledError):
                await injector.run(
                    timeline(restarting(scripted(*sources), RetryPolicy(wait=0.5, attempts=5)))
                )
            assert [each.opened for each in sources] == [each.closed for each in sources]
            if not injector.fired:
                break

    run(main())


def test_a_source_that_fails_to_open_is_opened_again() -> None:
    class Refusing:
        def __aiter__(self) -> AsyncIterator[Any]:
            raise ConnectionError("refused")

    policy = RetryPolicy(attempts=3, wait=5.0, retry_on=ConnectionError)
    opened = scripted(Refusing(), Refusing(), timed("a"))
    assert run(timeline(restarting(opened, policy))) == [(10.0, "a")]
