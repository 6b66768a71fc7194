"""A task that waits for a signal from outside is not a deadlock."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from returns_pipeline.testing import Deadlock, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SENDS = "import os, time; time.sleep(0.1); os.kill({}, {})"


@contextmanager
def sender(number: int = signal.SIGUSR1) -> Iterator[None]:
    """Another process, which sends a signal in a while."""
    child = subprocess.Popen([sys.executable, "-c", SENDS.format(os.getpid(), int(number))])
    try:
        yield
    finally:
        child.wait()


def by_the_loop(callback: Callable[[], None]) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, callback)


def by_the_module(callback: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()

    def handler(*_: Any) -> None:
        loop.call_soon_threadsafe(callback)

    signal.signal(signal.SIGUSR1, handler)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("install", [by_the_loop, by_the_module])
def test_a_signal_for_which_there_is_a_handler_is_waited_for(
    install: Callable[[Callable[[], None]], None],
) -> None:
    async def main() -> float:
        got = asyncio.Event()
        install(got.set)
        with sender():
            await got.wait()
        return asyncio.get_running_loop().time()

    assert run(main()) == 0.0


def test_ctrl_c_is_waited_for_where_the_program_handles_it() -> None:
    async def main() -> None:
        got = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, got.set)
        with sender(signal.SIGINT):
            await got.wait()

    run(main())


@pytest.mark.parametrize("install", [by_the_loop, by_the_module])
def test_a_signal_that_does_not_come_is_a_deadlock_after_the_patience(
    install: Callable[[Callable[[], None]], None],
) -> None:
    async def main() -> None:
        got = asyncio.Event()
        install(got.set)
        await got.wait()

    with pytest.raises(Deadlock):
        run(main(), patience=0.05)


def test_a_handler_from_before_keeps_no_task_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as that of a tool that measures coverage."""
    signal.signal(signal.SIGUSR1, lambda *_: None)
    with pytest.raises(Deadlock):
        run(asyncio.Event().wait(), patience=1e9)
