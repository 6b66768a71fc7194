"""Positions in a journal: what a step has committed is not delivered again, whatever dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from returns_pipeline import Saga, err, ok, to_result
from returns_pipeline.compensation import CompensationRegistry
from returns_pipeline.connectors import Message, Source
from returns_pipeline.context import StepContext
from returns_pipeline.errors import InvalidArgument, JournalUnavailable, LeaseLost, PartitionsLost
from returns_pipeline.journal import PostgresJournal, SqliteJournal, recover
from returns_pipeline.journal._cli import main as command
from returns_pipeline.testing import FaultyJournal, MemoryBroker

if TYPE_CHECKING:
    from pathlib import Path

    from returns.result import Result

registry = CompensationRegistry()
done: list[int] = []


@registry.compensation("undo-numbers")
async def undo(numbers: list[int]) -> None:
    for number in numbers:
        with contextlib.suppress(ValueError):
            done.remove(number)


async def write(window: list[Message[int]], step: StepContext) -> Result[int, str]:
    numbers = [message.value for message in window]
    await step.register(undo, numbers)
    done.extend(numbers)
    return ok(len(numbers)) if min(numbers) >= 0 else err("negative")


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    done.clear()


@pytest.fixture
def broker() -> MemoryBroker:
    made = MemoryBroker()
    made.publish(*[str(number).encode() for number in range(6)])
    return made


def source(broker: MemoryBroker, positions: Any) -> Source[int, Any]:
    return Source(broker.driver("g", positions=positions), decode=int)


async def read(broker: MemoryBroker, journal: Any, step: Any = write) -> object:
    """Read in windows of two, until everything is acknowledged, or for five seconds."""

    async def drain(messages: Source[int, Any]) -> None:
        for _ in range(500):
            await asyncio.sleep(0.01)
            if not broker.backlog("g"):
                break
        messages.drain()

    async with source(broker, journal) as messages, StepContext("s", journal=journal) as ctx:
        draining = asyncio.ensure_future(drain(messages))
        windows = messages.messages().chunks_or_timeout(2, 0.05).bind_step(step, ctx)
        try:
            return await ctx.run(windows.run())
        finally:
            draining.cancel()


def test_what_is_committed_is_skipped_although_it_was_not_acknowledged(
    tmp_path: Path, broker: MemoryBroker
) -> None:
    async def main() -> None:
        async with SqliteJournal(tmp_path / "j.db") as journal:
            await read(broker, journal)
        broker.forget_acks("g", 100)
        broker.publish(b"6")
        async with SqliteJournal(tmp_path / "j.db") as journal:
            await read(broker, journal)
        assert sorted(done) == [*range(7)]
        assert broker.backlog("g") == 0

    asyncio.run(main())


def test_a_window_that_fails_is_undone_and_its_positions_are_not_stored(
    tmp_path: Path, broker: MemoryBroker
) -> None:
    async def main() -> None:
        async def fail(window: list[Message[int]], step: StepContext) -> Result[int, str]:
            _ = await write(window, step)
            return err("no") if window[0].value == 2 else ok(0)

        async with SqliteJournal(tmp_path / "j.db") as journal:
            await read(broker, journal, fail)
        assert sorted(done) == [0, 1]
        broker.forget_acks("g", 100)
        async with SqliteJournal(tmp_path / "j.db") as journal:
            await read(broker, journal)
        assert sorted(done) == [*range(6)]

    asyncio.run(main())


def test_a_step_that_commits_itself_stores_its_positions_at_its_end_only(
    tmp_path: Path, broker: MemoryBroker
) -> None:
    async def main() -> None:
        seen: list[int] = []

        async def early(window: list[Message[int]], step: StepContext) -> Result[int, str]:
            _ = await write(window, step)
            await (step.commit() if window[0].value else step.scope.commit())
            seen.append(len(await spans(journal)))
            return err("late") if window[0].value == 4 else ok(0)

        async def spans(journal: SqliteJournal) -> list[Any]:
            db: Any = journal._writer
            rows = await db.do(lambda c: c.execute("SELECT spans FROM taken_partition").fetchall())
            return [each for (each,) in rows if each != "[]"]

        async with SqliteJournal(tmp_path / "j.db") as journal:
            await read(broker, journal, early)
            assert seen == [0, 1, 1]
            assert await spans(journal) == ["[[[], [3], null]]"]

    asyncio.run(main())


def test_a_zombie_is_refused_at_its_commit_and_undoes_its_window(
    tmp_path: Path, broker: MemoryBroker
) -> None:
    async def main() -> None:
        zombie = SqliteJournal(tmp_path / "j.db")
        heir = SqliteJournal(tmp_path / "j.db")

        async def slow(window: list[Message[int]], step: StepContext) -> Result[int, str]:
            made = await write(window, step)
            await heir.take("memory g", ["memory-0"])
            return made

        with pytest.raises(LeaseLost, match="has taken over partition memory-0"):
            await read(broker, zombie, slow)
        assert done == []
        await read(broker, heir)
        assert sorted(done) == [*range(6)]
        await zombie.close()
        await heir.close()

    asyncio.run(main())


def test_a_fenced_window_is_undone(tmp_path: Path, broker: MemoryBroker) -> None:
    async def main() -> None:
        async with SqliteJournal(tmp_path / "j.db") as journal:
            messages = source(broker, journal)

            async def slow(window: list[Message[int]], step: StepContext) -> Result[int, str]:
                made = await write(window, step)
                messages._consumer.fence(["memory-0"])
                return made

            async with messages, StepContext("s", journal=journal) as ctx:
                windows = messages.messages().chunks_or_timeout(2, 0.05).bind_step(slow, ctx)
                with pytest.raises(PartitionsLost, match="memory-0"):
                    await windows.run()
            assert done == []

    asyncio.run(main())


def test_a_step_without_messages_is_refused_before_its_positions_are_lost(
    tmp_path: Path, broker: MemoryBroker
) -> None:
    async def main() -> None:
        async with SqliteJournal(tmp_path / "j.db") as journal:
            messages = source(broker, journal)
            async with messages, StepContext("s", journal=journal) as ctx:

                async def step(value: int, step: StepContext) -> Result[int, str]:
                    await step.register(undo, [value])
                    done.append(value)
                    return ok(value)

                values = messages.messages().map(lambda message: message.value)
                with pytest.raises(RuntimeError, match="the step got no messages"):
                    await values.bind_step(step, ctx).run()
                assert done == []

    asyncio.run(main())


def test_another_journal_than_that_of_the_source_stores_nothing(
    tmp_path: Path, broker: MemoryBroker
) -> None:
    async def main() -> None:
        async with SqliteJournal(tmp_path / "a.db") as one, SqliteJournal(tmp_path / "b.db") as two:
            messages = source(broker, one)
            async with messages, StepContext("s", journal=two) as ctx:
                asyncio.get_running_loop().call_later(0.1, messages.drain)
                await messages.messages().chunks_or_timeout(2, 0.05).bind_step(write, ctx).run()
            assert sorted(done) == [*range(6)]
            taken = await one.take("memory g", ["memory-0"])
            assert list(taken["memory-0"].spans) == []

    asyncio.run(main())


@pytest.mark.parametrize("lost", [False, True])
def test_a_commit_that_is_late_comes_before_the_positions_that_rest_on_it(
    tmp_path: Path, broker: MemoryBroker, *, lost: bool
) -> None:
    """The pivot's commit is refused, and tried again: until it is durable, nothing is skipped."""

    async def main() -> None:
        class Refusing(FaultyJournal):
            refused = 0

            async def forget(self, ids: Any, /, positions: Any = ()) -> None:
                if not positions and not self.refused:
                    self.refused += 1
                    raise JournalUnavailable("j", "away")
                assert not positions or self.flushed
                await self._journal.forget(ids, positions)

            def forget_later(self, ids: Any, on_lost: Any, /) -> None:
                if lost:
                    on_lost(LeaseLost("j", "taken over"))
                else:
                    super().forget_later(ids, on_lost)

            flushed = False

            async def flush(self) -> None:
                await super().flush()
                self.flushed = True

        real = SqliteJournal(tmp_path / "j.db")
        journal = Refusing(real, bool)

        async def charge(window: list[Message[int]]) -> Result[list[int], str]:
            numbers = [message.value for message in window]
            done.extend(numbers)
            return ok(numbers)

        async def send(numbers: list[int]) -> Result[int, str]:
            return ok(len(numbers))

        async def check(numbers: list[int]) -> Result[list[int], str]:
            return ok(numbers)

        saga = Saga("s").step("charge", charge, undo=undo).step("check", check).pivot()

        async def step(window: list[Message[int]], step: StepContext) -> Result[int, str]:
            return await to_result(saga.step("send", send).run(window, step))

        if lost:
            with pytest.raises(LeaseLost, match="taken over"):
                await read(broker, journal, step)
            assert list((await real.take("memory g", ["memory-0"]))["memory-0"].spans) == []
        else:
            await read(broker, journal, step)
            assert sorted(done) == [*range(6)]
        assert journal.refused == 1
        await real.close()

    asyncio.run(main())


def test_a_journal_serves_one_source_at_a_time(tmp_path: Path, broker: MemoryBroker) -> None:
    async def main() -> None:
        async with SqliteJournal(tmp_path / "j.db") as journal:
            async with source(broker, journal):
                with pytest.raises(InvalidArgument, match="another source stores its positions"):
                    async with source(broker, journal):
                        pass
            async with source(broker, journal):
                pass
            assert await recover(journal, registry) == []

    asyncio.run(main())


# For people.


def typed(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    """Carry out a command; return what it has written."""
    assert command(["positions", *arguments]) == status
    written = capsys.readouterr()
    return written.out + written.err


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_positions_are_listed_and_what_was_forgotten_is_delivered_again(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    broker: MemoryBroker,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    url, options = str(tmp_path / "j.db"), list[str]()
    if kind == "postgres":
        url = request.getfixturevalue("postgres_dsn")
        options = ["--schema", *re.findall(r"test_\w+", url)[-1:]]

    def journal() -> SqliteJournal | PostgresJournal:
        return PostgresJournal(url, schema=options[1]) if options else SqliteJournal(url)

    async def read_until(count: int) -> None:
        async with journal() as opened, source(broker, opened) as messages:

            async def write_and_drain(window: list[Message[int]], step: StepContext) -> Any:
                written = await write(window, step)
                if len(done) == count:
                    messages.drain()
                return written

            async with StepContext("s", journal=opened) as ctx:
                windows = messages.messages().chunks_or_timeout(2, 0.05)
                await ctx.run(windows.bind_step(write_and_drain, ctx).run())

    asyncio.run(read_until(6))
    head, row, *others = typed(capsys, "list", url, *options).splitlines()
    assert (head.split("  ")[0], row.split("  ")[0], others) == ("SOURCE", "memory g", [])
    [facts] = json.loads(typed(capsys, "list", url, "--json", *options))["positions"]
    name, partition = facts["source"], facts["partition"]
    assert (facts["handled"], facts["beyond"], facts["epoch"]) == ([5], [], 1)
    assert "say which" in typed(capsys, "forget", url, name, *options, status=2)
    assert "Nothing" in typed(capsys, "forget", url, name, "other", *options, status=1)
    broker.publish(b"6")

    async def forget_while_it_is_read() -> None:
        async with journal() as opened, source(broker, opened) as messages:
            message = (await anext(messages)).unwrap()
            assert opened.coverage is not None
            told = ["positions", "forget", url, name, partition, *options]
            assert await asyncio.to_thread(command, told) == 0
            with pytest.raises(LeaseLost, match="taken over"):
                await opened.forget([], positions=opened.coverage.covered(message))

    asyncio.run(forget_while_it_is_read())
    assert f"the positions of {partition} are forgotten" in capsys.readouterr().out
    assert done == [*range(6)]
    broker.forget_acks("g", 100)
    asyncio.run(read_until(13))
    assert sorted(done) == sorted([*range(6), *range(7)])
