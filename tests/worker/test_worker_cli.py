"""``python -m returns_pipeline.worker``: what it runs, and its exit codes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from returns_pipeline.connectors import Source
from returns_pipeline.testing import MemoryBroker, run
from returns_pipeline.worker import Worker
from returns_pipeline.worker import _supervisor as supervisor
from returns_pipeline.worker._cli import _addresses as addresses
from returns_pipeline.worker._cli import main
from returns_pipeline.worker._early import EarlySignals
from returns_pipeline.worker._signals import handling

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Program(ModuleType):
    """A user's module, with factories of each kind."""

    def __init__(self) -> None:
        super().__init__("shop_program")
        self.broker = MemoryBroker()
        self.broker.publish(b"1", b"2", b"3")
        self.ended: list[str] = []
        self.name = "shop"

    def make(self) -> Worker[Any]:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.2, stop.set)
        source = Source(self.broker.driver("shop"), decode=int)
        return Worker(source, lambda messages: messages.drain_on(stop))

    async def make_later(self) -> Worker[Any]:
        return self.make()

    @asynccontextmanager
    async def manage(self) -> AsyncIterator[Worker[Any]]:
        yield self.make()
        self.ended.append("manage")

    def make_failing(self) -> Worker[Any]:
        self.broker.publish(b"oops")
        return Worker(Source(self.broker.driver("shop"), decode=int), lambda messages: messages)

    def make_failing_apart(self) -> Worker[Any]:
        self.broker.publish(b"oops")
        source = Source(self.broker.driver("shop"), decode=int)
        return Worker(source, lambda messages: messages, per_partition=True)

    def make_raising(self) -> Worker[Any]:
        source = Source(self.broker.driver("shop"), decode=int)
        return Worker(source, lambda messages: messages.map(lambda _: 1 / 0))

    async def make_generated(self) -> AsyncIterator[Worker[Any]]:
        yield self.make()

    @asynccontextmanager
    async def open_forever(self) -> AsyncIterator[Worker[Any]]:
        asyncio.get_running_loop().call_later(0.2, os.kill, os.getpid(), signal.SIGTERM)
        try:
            await asyncio.get_running_loop().create_future()
            yield self.make()
        finally:
            self.ended.append("open_forever")

    def make_waiting(self) -> Worker[Any]:
        asyncio.get_running_loop().call_later(0.2, os.kill, os.getpid(), signal.SIGTERM)
        return Worker(Source(self.broker.driver("shop"), decode=int), lambda messages: messages)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Program:
    module = Program()
    monkeypatch.setitem(sys.modules, "shop_program", module)
    return module


def started(*arguments: str) -> int:
    return main(arguments, EarlySignals())


def signalled(*arguments: str) -> int:
    early = EarlySignals()
    with handling(early):
        return main(arguments, early)


@pytest.mark.parametrize("factory", ["make", "make_later", "manage", "make_waiting"])
def test_a_worker_of_each_kind_of_factory_is_run_to_its_end(program: Program, factory: str) -> None:
    assert started(f"shop_program:{factory}", "--health", "127.0.0.1:0") == 0
    assert program.broker.backlog("shop") == 0
    assert program.ended == (["manage"] if factory == "manage" else [])


def test_the_exit_code_says_what_went_wrong(
    program: Program, caplog: pytest.LogCaptureFixture
) -> None:
    assert started("shop_program:make_raising") == 1
    assert "ZeroDivisionError" in caplog.text
    assert started("shop_program:make_failing") == 3
    assert "was stopped by: failure: DecodeError('int', " in caplog.text
    assert "at memory-0 (3,); 3 handled" in caplog.text
    assert "oops" not in caplog.text


def test_the_log_says_in_the_pipeline_of_which_partition_a_failure_was(
    program: Program, caplog: pytest.LogCaptureFixture
) -> None:
    assert started("shop_program:make_failing_apart") == 3
    assert "at memory-0 (3,), in the pipeline of memory-0; 3 handled" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["shop_program"], "expected MODULE:FACTORY"),
        (["shop_program:nothing"], "shop_program has no nothing"),
        (["no_such_module:make"], "there is no module no_such_module"),
        ([".shop_program:make"], "such as shop.billing:worker, not '.shop_program:make'"),
        (["shop/program.py:make"], "such as shop.billing:worker"),
        (["shop_program:name"], "which is not a Worker"),
        (["shop_program:make_generated"], "decorate it with contextlib.asynccontextmanager"),
        (["shop_program:make", "--health", "http"], "takes [HOST:]PORT"),
        (["shop_program:make", "--health", "70000"], "takes [HOST:]PORT"),
        (["shop_program:make", "--health", "65535", "--processes", "2"], "takes [HOST:]PORT"),
    ],
)
def test_wrong_use_is_explained(
    program: Program, arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started(*arguments) == 2
    assert why in capsys.readouterr().err
    assert program.broker.backlog("shop") == 3


@pytest.mark.parametrize("number", ["0", "-1", "two", "1.5"])
def test_other_numbers_of_processes_are_refused(
    number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        started("shop_program:make", f"--processes={number}")
    assert ended.value.code == 2
    told = f"--processes: it must be a whole number, at least 1, not {number!r}"
    assert told in capsys.readouterr().err


def test_each_process_has_a_port_from_the_first_one_on_or_any_free_one() -> None:
    assert addresses("8080", 3) == (None, [8080, 8081, 8082])
    assert addresses("[::1]:0", 2) == ("::1", [0, 0])
    assert addresses(None, 2) == (None, [None, None])


def test_a_signal_while_a_worker_is_made_ends_what_it_waits_for(program: Program) -> None:
    assert signalled("shop_program:open_forever") == 0
    assert program.ended == ["open_forever"]
    assert program.broker.backlog("shop") == 3


def test_a_signal_before_the_worker_is_made_ends_it(program: Program) -> None:
    early = EarlySignals()
    early(signal.SIGTERM)
    assert main(["shop_program:make"], early) == 0
    assert program.broker.backlog("shop") == 3


def test_a_signal_after_the_worker_has_ended_does_no_harm(program: Program) -> None:
    early = EarlySignals()
    assert main(["shop_program:make"], early) == 0
    early(signal.SIGTERM)  # its loop is closed


def test_a_second_early_signal_ends_the_process() -> None:
    code = (
        "import os, signal\n"
        "from returns_pipeline.worker._early import EarlySignals\n"
        "from returns_pipeline.worker._signals import handling\n"
        "with handling(EarlySignals()):\n"
        "  os.kill(os.getpid(), signal.SIGTERM)\n"
        "  print('still here', flush=True)\n"
        "  os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    done = subprocess.run(python(code), check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "still here\n")


# Several processes. Their waits are on virtual time; the processes are real, and short.


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_process_that_dies_is_started_again_after_longer_and_longer_waits(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    told = tmp_path / "lives"
    code = (
        f"import os, pathlib\nlives = pathlib.Path({str(told)!r})\n"
        "with lives.open('a') as file: file.write('x')\n"
        "lived = len(lives.read_text())\n"
        "os.kill(os.getpid(), 9) if lived == 1 else os._exit(7 if lived < 4 else 0)"
    )

    async def main() -> None:
        assert await supervisor.supervise([python(code)], EarlySignals()) == 0
        # Three waits, of 1, 2 and 4 seconds, each up to a quarter shorter.
        assert 0.75 * 7 <= asyncio.get_running_loop().time() <= 7

    run(main())
    assert told.read_text() == "xxxx"
    assert "ended with -9" in caplog.text
    assert caplog.text.count("ended with 7") == 2


def test_wrong_use_in_one_process_stops_all() -> None:
    commands = [python("import time; time.sleep(60)"), python("import os; os._exit(2)")]

    async def main() -> int:
        return await supervisor.supervise(commands, EarlySignals())

    assert run(main(), patience=60) == 2


def test_signals_are_passed_on_and_the_third_one_kills(tmp_path: Any) -> None:
    told = tmp_path / "told"
    code = (
        "import os, pathlib, signal, time\n"
        f"told = pathlib.Path({str(told)!r})\n"
        "def hear(*_):\n  with told.open('a') as file: file.write('x')\n"
        "signal.signal(signal.SIGTERM, hear)\n"
        "told.write_text('')\n"
        "while True: time.sleep(0.01)"
    )

    def signals() -> None:
        for heard in ("", "x", "xx"):
            for _ in range(6000):
                if told.exists() and told.read_text() == heard:
                    break
                threading.Event().wait(0.01)
            os.kill(os.getpid(), signal.SIGINT)

    async def main() -> int:
        thread = threading.Thread(target=signals)
        thread.start()
        try:
            return await supervisor.supervise([python(code)], EarlySignals())
        finally:
            await asyncio.to_thread(thread.join)

    assert run(main(), patience=60) == 128 + signal.SIGKILL
    assert told.read_text() == "xx"


def test_a_signal_ends_the_wait_for_the_next_start() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        loop.call_later(20.0, os.kill, os.getpid(), signal.SIGTERM)
        code = await supervisor.supervise([python("import os; os._exit(7)")], EarlySignals())
        assert loop.time() == 20.0
        return code

    assert run(main()) == 7


def test_a_process_that_is_stopped_while_it_starts_has_ended_in_order(tmp_path: Any) -> None:
    told = tmp_path / "told"
    code = f"import pathlib, time; pathlib.Path({str(told)!r}).touch(); time.sleep(60)"

    async def main() -> int:
        ending = asyncio.create_task(supervisor.supervise([python(code)], EarlySignals()))
        while not told.exists():
            await asyncio.to_thread(threading.Event().wait, 0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        return await ending

    assert run(main(), patience=60) == 0


def test_a_process_that_cannot_be_started_is_tried_again(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    program = tmp_path / "program"

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(2.0, lambda: program.symlink_to("/bin/true"))
        assert await supervisor.supervise([[str(program)]], EarlySignals()) == 0

    run(main())
    assert "cannot be started" in caplog.text


def test_nothing_is_started_if_a_signal_came_first() -> None:
    early = EarlySignals()
    early(signal.SIGTERM)

    async def main() -> int:
        return await supervisor.supervise([["/no/such/program"]], early)

    assert run(main()) == 0
