"""Waits survive cancellations, and a note never takes the place of the exception it is put on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from returns_pipeline._engine.cancellation import (
    ShieldedFuture,
    add_note,
    shielded,
    wait_done,
    wait_uncancelled,
)
from returns_pipeline.testing import advance, run

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


@dataclass(frozen=True)
class FrozenError(Exception):
    code: int


class NotesTakenError(Exception):
    __notes__ = "of another kind"  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


class RefusingError(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)

    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        raise KeyError("no notes here")


@pytest.mark.parametrize("error", [ValueError(), FrozenError(3), NotesTakenError()], ids=repr)
def test_notes_come_in_order_on_any_exception(error: BaseException) -> None:
    add_note(error, "first")
    add_note(error, "second")
    assert error.__notes__ == ["first", "second"]


def test_an_exception_that_takes_no_note_at_all_stays_as_it_is() -> None:
    add_note(RefusingError(), "lost")


# A wait that survives a cancellation.


async def end_late() -> str:
    await asyncio.sleep(1)
    return "done"


def in_few_turns(main: Coroutine[Any, Any, None]) -> None:
    """Run on virtual time; fail if the loop takes many turns: anyio cancels again in each."""

    async def counted() -> None:
        loop: Any = asyncio.get_running_loop()
        one_turn = loop._run_once
        turns = 0

        def count() -> None:
            nonlocal turns
            turns += 1
            assert turns < 2000, "the loop spins"
            one_turn()

        loop._run_once = count
        await main

    # Once a journal has run in this process, any `ShieldedFuture` counts as a thread's to resolve.
    run(counted(), patience=0.1)


@pytest.mark.parametrize("wait", [wait_done, wait_uncancelled])
def test_a_wait_in_a_cancelled_anyio_scope_does_not_spin(
    wait: Callable[[asyncio.Task[Any]], Coroutine[Any, Any, Any]],
) -> None:
    async def main() -> None:
        task = asyncio.ensure_future(end_late())
        with anyio.move_on_after(0.1):
            await wait(task)
        assert task.done()

    in_few_turns(main())


def test_shielded_work_in_a_cancelled_anyio_scope_does_not_spin() -> None:
    async def main() -> None:
        with anyio.move_on_after(0.1):
            assert (await shielded(end_late()))[0] == "done"
        whole: ShieldedFuture[str] = ShieldedFuture()
        asyncio.get_running_loop().call_later(1, whole.future.set_result, "done")
        with anyio.move_on_after(0.1):
            assert (await shielded(whole))[0] == "done"

    in_few_turns(main())


def test_a_wait_raises_the_first_cancellation_and_waits_through_the_others() -> None:
    async def main() -> None:
        task = asyncio.ensure_future(end_late())
        waiting = asyncio.ensure_future(wait_done(task))
        for n in range(3):
            await advance(0.1)
            waiting.cancel(n)
        with pytest.raises(asyncio.CancelledError, match="0"):
            await waiting
        assert task.result() == "done"

    run(main())
