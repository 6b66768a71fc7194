"""The records: what can be done with them, and which ones belong together."""

from __future__ import annotations

from typing import Any, get_args

import pydantic
import pytest
from returns.result import Failure, Result, Success

from returns_pipeline import ResultStream, StepContext, telemetry, to_result
from returns_pipeline._engine import observing
from returns_pipeline.telemetry import (
    StepBegun,
    StepEnded,
    UndoDone,
    UndoFailed,
    UndoRegistered,
    WindowEmitted,
)
from returns_pipeline.testing import Recorder, run, timed


def begun(item: object = None, run: int = 1) -> StepBegun:
    return StepBegun(
        pipeline="shop", stage="persist", number=0, key="7f3a", run=run, at=2.0, item=item
    )


def kinds(alias: Any = telemetry.Event) -> set[Any]:
    if not get_args(alias):
        return {alias}
    return {kind for part in get_args(alias) for kind in kinds(part)}


def test_events_do_not_change() -> None:
    with pytest.raises(AttributeError):
        begun().run = 2  # type: ignore[misc]
    for kind in kinds():
        assert kind.__struct_config__.frozen, kind


def test_all_events_say_when_and_in_which_pipeline() -> None:
    for kind in kinds():
        assert {"pipeline", "at"} <= {*kind.__struct_fields__}, kind


def test_what_a_step_handles_is_neither_shown_nor_compared() -> None:
    """It may be large, secret, or have no equality."""
    first, second = begun(["secret"]), begun(["other"])
    assert first == second
    assert hash(first) == hash(second)
    assert first != begun(run=2)
    assert first != 1
    assert repr(first) == (
        "StepBegun(pipeline='shop', stage='persist', number=0, attempt=1, key='7f3a', run=1, "
        "parent=None, at=2.0)"
    )


async def undo(item: int) -> None: ...


async def ship(item: int, step: StepContext) -> Result[str, str]:
    keys = [step.key]
    if item != 1:
        await step.register(undo, item)
    keys.append(step.key)
    assert keys[0] == keys[1]
    return Failure(step.key) if item == 3 else Success(step.key)


def test_a_step_has_one_key_in_all_its_events() -> None:
    """If it registers nothing, if it commits, and if it is undone."""
    recorder = Recorder()

    async def main() -> None:
        ctx = StepContext("shop", observer=recorder)
        done = ResultStream.of(timed(1, 2, 3)).bind_step(ship, ctx)
        keys = [result.value_or("") or result.failure() async for result in done]
        began = recorder.of(StepBegun)
        assert [event.key for event in began] == keys == [e.key for e in recorder.of(StepEnded)]
        assert len({*keys}) == 3
        assert [event.key for event in recorder.of(UndoRegistered)] == keys[1:]
        assert [event.key for event in recorder.of(UndoDone)] == keys[2:]

    run(main())


def test_what_is_opened_inside_a_step_has_the_observers_of_both() -> None:
    """Of the step, and of what is around it, also if that is another one the next time."""
    own, first, second = Recorder(), Recorder(), Recorder()

    async def step() -> Result[int, object]:
        return await to_result(ResultStream.of(timed(1)).chunks_or_timeout(2, 9.0).run())

    async def main() -> None:
        ctx = StepContext("shop", observer=own)

        async def under(*observers: Recorder) -> None:
            with telemetry.use(*observers, pipeline="other"):
                _ = await ctx.run(step())

        await under(first)
        await under(second)
        await under(own)
        assert observing.opened() is None

    run(main())
    assert len(own.of(WindowEmitted)) == 3
    assert len(first.of(WindowEmitted)) == len(second.of(WindowEmitted)) == 1
    assert {event.pipeline for event in own.of(WindowEmitted)} == {"shop"}


def test_an_event_is_read_and_written_by_pydantic() -> None:
    adapter = pydantic.TypeAdapter(StepBegun)
    event = begun()
    assert adapter.validate_python(event) is event
    assert adapter.validate_json(adapter.dump_json(event)) == event
    with pytest.raises(pydantic.ValidationError, match="Field required"):
        adapter.validate_python({"pipeline": "shop"})


def test_a_field_of_pydantic_keeps_the_error_of_an_event() -> None:
    failed = UndoFailed(
        pipeline="shop", scope="pay", undo="refund", key="7f", attempt=1, duration=0.5,
        error=OSError("down"), at=2.0,
    )  # fmt: skip
    assert pydantic.TypeAdapter(UndoFailed).validate_python(failed).error is failed.error
