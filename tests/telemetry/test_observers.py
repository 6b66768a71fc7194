"""Who gets events: for how long, how often, and what becomes of an observer that raises."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from typing import TYPE_CHECKING

import pytest

from returns_pipeline import ResultStream, StepContext, ok, telemetry
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.telemetry import StepEnded, WindowEmitted
from returns_pipeline.testing import Recorder, run, timed

if TYPE_CHECKING:
    from returns.result import Result

    from returns_pipeline.telemetry import Event


async def step() -> Result[int, str]:
    return ok(1)


def windows() -> ResultStream[list[int], object]:
    return ResultStream.of(timed(1, 2, 3)).chunks_or_timeout(2, 9.0)


def test_nested_use_adds_observers_and_each_gets_an_event_once() -> None:
    outer, inner = Recorder(), Recorder()

    async def main() -> None:
        with telemetry.use(outer, pipeline="shop"):
            with telemetry.use(inner, outer):
                await windows().observed(inner).run()
            await windows().observed(name="other").run()
        await windows().run()

    run(main())
    assert [e.pipeline for e in outer.of(WindowEmitted)] == ["shop"] * 2 + ["other"] * 2
    assert [e.pipeline for e in inner.of(WindowEmitted)] == ["shop"] * 2


def test_what_is_opened_inside_is_observed_to_its_end() -> None:
    recorder = Recorder()

    async def main() -> None:
        with telemetry.use(recorder):
            ctx = StepContext("shop")
            items = aiter(windows())
            _ = await anext(items)
        await ctx.run(step())
        async for _ in items:
            pass
        await StepContext("other").run(step())

    run(main())
    assert [e.pipeline for e in recorder.of(StepEnded)] == ["shop"]
    assert [e.size for e in recorder.of(WindowEmitted)] == [2, 1]


def test_tasks_have_observers_of_their_own() -> None:
    first, second = Recorder(), Recorder()

    async def one(recorder: Recorder, name: str) -> None:
        with telemetry.use(recorder, pipeline=name):
            await asyncio.sleep(1.0)
            await windows().run()

    async def main() -> None:
        await asyncio.gather(one(first, "one"), one(second, "two"))

    run(main())
    assert {e.pipeline for e in first.events} == {"one"}
    assert {e.pipeline for e in second.events} == {"two"}


def test_streams_that_are_joined_are_observed_too() -> None:
    recorder = Recorder()

    async def main() -> None:
        await windows().merge(windows()).observed(recorder, name="shop").run()

    run(main())
    assert [e.pipeline for e in recorder.of(WindowEmitted)] == ["shop"] * 4


def test_an_observer_that_raises_is_logged_once_for_each_type_of_event(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Failing:
        def on_event(self, event: Event) -> None:
            raise OSError("no space")

    recorder, failing = Recorder(), Failing()

    async def main() -> None:
        with telemetry.use(failing, recorder):
            for _ in range(2):
                await windows().run()
                await StepContext("shop").run(step())

    run(main())
    assert len(recorder.of(WindowEmitted)) == 4
    assert [record.getMessage() for record in caplog.records] == [
        f"the observer 'Failing' raised at {kind}: later ones are not logged"
        for kind in ("WindowEmitted", "StepBegun", "StepEnded")
    ]


def test_an_observer_that_cannot_be_referred_to_weakly_is_logged_once_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Failing:
        __slots__ = ()

        def on_event(self, event: Event) -> None:
            raise OSError("no space")

    async def main() -> None:
        with telemetry.use(Failing()):
            await windows().run()

    run(main())
    assert len(caplog.records) == 1


def test_an_observer_is_not_kept_after_its_stream() -> None:
    recorder = Recorder()
    kept = weakref.ref(recorder)

    async def main(recorder: Recorder) -> None:
        await windows().observed(recorder).run()
        await StepContext("shop", observer=recorder).run(step())
        with telemetry.use(recorder):
            await windows().run()

    run(main(recorder))
    del recorder
    gc.collect()
    assert kept() is None


def test_an_observer_that_has_raised_is_not_kept_either(monkeypatch: pytest.MonkeyPatch) -> None:
    # The records that pytest keeps would have the frames.
    monkeypatch.setattr(logging.getLogger("returns_pipeline.telemetry"), "disabled", True)

    class Failing:
        def on_event(self, event: Event) -> None:
            raise OSError("no space")

    failing = Failing()
    kept = weakref.ref(failing)
    run(StepContext("shop", observer=failing).run(step()))
    del failing
    gc.collect()
    assert kept() is None


def test_what_is_not_an_observer_is_refused_at_the_call() -> None:
    with pytest.raises(TypeError, match="on_event"):
        windows().observed(print)  # type: ignore[arg-type, unused-awaitable]
    with pytest.raises(TypeError, match="on_event"):
        StepContext("shop", observer=print)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="on_event"), telemetry.use(print):  # type: ignore[arg-type]
        pass
    with pytest.raises(InvalidArgument):
        windows().observed()  # type: ignore[unused-awaitable]


def test_a_stream_shows_that_it_is_observed() -> None:
    shown = repr(windows().observed(name="shop"))
    assert shown.endswith(".chunks_or_timeout(2, 9.0).observed(name='shop')")
