"""Every operator is drawn by the name that a user has written, and a drawing reads nothing."""

# pyright: reportUnknownVariableType=false, reportUnusedVariable=false, reportUnknownLambdaType=false, reportUnknownArgumentType=false

from __future__ import annotations

import asyncio
import inspect
import queue
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Result, Success

from returns_pipeline import ResultStream, StepContext, combine, connectors, pipe, sources, windows
from returns_pipeline._engine.operator import Operator
from returns_pipeline.inspection import diagram
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.testing import MemoryBroker, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable

Stream = ResultStream[Any, Any]


class Unread:
    """A source that must not be read."""

    def __aiter__(self) -> AsyncIterator[Any]:
        raise AssertionError("it was opened")


def results() -> Stream:
    return ResultStream.from_results(Unread())


def same(item: Any) -> Any:
    return item


def true(_: object) -> bool:
    return True


async def awaited(item: Any, *_: object) -> Any:
    return item


async def work(_: object, items: AsyncIterator[Any]) -> AsyncIterator[Result[Any, Any]]:
    async for item in items:
        yield Success(item)


def with_rich() -> tuple[tuple[Any, ...], dict[str, Any]]:
    pytest.importorskip("rich", reason="needs the extra live")
    return (9,), {}


# The arguments that a method needs, besides the stream.
ARGUMENTS: dict[str, Callable[[], tuple[tuple[Any, ...], dict[str, Any]]]] = {
    "map": lambda: ((same,), {}),
    "bind": lambda: ((same,), {}),
    "alt": lambda: ((same,), {}),
    "bimap": lambda: ((same, same), {}),
    "lash": lambda: ((same,), {}),
    "filter": lambda: ((true,), {}),
    "ensure": lambda: ((true, same), {}),
    "tap": lambda: ((same,), {}),
    "tap_failure": lambda: ((same,), {}),
    "tap_result": lambda: ((same,), {}),
    "attempt": lambda: ((same, ValueError), {}),
    "scan": lambda: ((0, max), {}),
    "distinct_until_changed": lambda: ((), {}),
    "map_async": lambda: ((awaited,), {"concurrency": 2}),
    "bind_async": lambda: ((awaited,), {"concurrency": 2}),
    "bind_future_result": lambda: ((awaited,), {}),
    "bind_step": lambda: ((awaited, StepContext("shop")), {"concurrency": 2}),
    "attempt_async": lambda: ((awaited, ValueError), {"concurrency": 2}),
    "lash_async": lambda: ((awaited,), {"concurrency": 2}),
    "tap_async": lambda: ((awaited,), {"concurrency": 2}),
    "tap_failure_async": lambda: ((awaited,), {"concurrency": 2}),
    "tap_result_async": lambda: ((awaited,), {"concurrency": 2}),
    "flat_map": lambda: ((same,), {}),
    "chunks_or_timeout": lambda: ((2, 1.0), {"flush_on": asyncio.Event()}),
    "chunks_by_weight": lambda: ((2.0, 1.0), {"weight": float}),
    "chunks_until": lambda: ((true,), {}),
    "keyed_chunks": lambda: ((2, 1.0), {"key": same}),
    "sliding": lambda: ((2,), {"flush_on": Unread()}),
    "sessions": lambda: ((1.0,), {}),
    "event_windows": lambda: ((windows.TumblingWindows(1.0),), {"timestamp": float}),
    "merge": lambda: ((results(),), {}),
    "concat": lambda: ((results(),), {}),
    "zip": lambda: ((results(),), {}),
    "broadcast": lambda: ((2,), {}),
    "route": lambda: ((same, work), {}),
    "prefetch": lambda: ((2,), {}),
    "take_until": lambda: ((asyncio.Event(),), {}),
    "throttle": lambda: ((1.0,), {}),
    "debounce": lambda: ((1.0,), {}),
    "drain_on": lambda: ((asyncio.Event(),), {}),
    "progress": with_rich,
    "successes": lambda: ((), {}),
    "failures": lambda: ((), {}),
    "or_failure": lambda: ((OSError,), {}),
}
# What makes, ends, reads or shows a stream as it is.
NOT_OPERATORS = {
    "of", "from_results", "from_batches", "through", "subscribe", "stream", "aclose", "diagram",
    "statistics", "collect", "collect_all", "partition", "for_each", "for_each_all", "fold",
    "first", "last", "observed", "run", "run_all",
}  # fmt: skip


def drawn(stream: AsyncIterable[Any]) -> str:
    """Draw a stream in a loop, where it could start tasks; it must not."""

    async def main() -> str:
        before = asyncio.all_tasks()
        drawing = diagram(stream)
        text, again = drawing.text(), diagram(stream).text()
        await asyncio.sleep(1.0)
        assert asyncio.all_tasks() == before
        assert again == text
        assert drawing.mermaid().startswith("flowchart TD\n")
        return text

    return run(main())


def labels(text: str) -> list[str]:
    """Return the names of the functions in a drawing."""
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()[0].isdigit()]
    return [label.partition("(")[0] for _, label in lines]


def no_names() -> dict[str, Any]:
    return {}


def first(made: Any) -> Any:
    return made[0] if isinstance(made, tuple) else made


def test_the_table_has_every_method_of_a_stream() -> None:
    methods = {
        name
        for name, method in inspect.getmembers(ResultStream, inspect.isfunction)
        if not name.startswith("_")
    }
    assert methods - NOT_OPERATORS == ARGUMENTS.keys()


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_method_is_drawn_by_its_name(name: str) -> None:
    args, kwargs = ARGUMENTS[name]()
    stream = first(getattr(results(), name)(*args, **kwargs))
    text = drawn(stream)
    assert labels(text).count(name) == (name != "drain_on")
    assert ("drain_on" in text) == (name == "drain_on")
    assert "<Unread>" in labels(text)


@pytest.mark.parametrize("name", sorted(ARGUMENTS.keys() - {"or_failure"}))
def test_a_method_is_drawn_over_a_source_that_is_acknowledged_to(name: str) -> None:
    source: Any = connectors.Source(MemoryBroker().driver("orders"))
    args, kwargs = ARGUMENTS[name]()
    text = drawn(first(getattr(source.messages(), name)(*args, **kwargs)))
    assert (name in labels(text)) == (name != "drain_on")
    assert "memory orders.messages" in labels(text)


@pytest.mark.parametrize("name", pipe.__all__)
def test_a_piped_operator_is_drawn_by_the_name_of_the_method(name: str) -> None:
    method = name.removesuffix("_results").removesuffix("_result")
    if name in {"tap_result", "bind_future_result"}:
        method = name
    args, kwargs = ((true,), no_names()) if name == "split" else ARGUMENTS[method]()
    text = drawn(first(results() | getattr(pipe, name)(*args, **kwargs)))
    assert {name, method} & set(labels(text)) or name == "drain_on"
    assert "<Unread>" in labels(text)


OPERATORS = {
    each.__name__: each
    for room in (windows, combine)
    for each in [getattr(room, name) for name in room.__all__]
    if isinstance(each, Operator)
}
MANY: dict[str, tuple[Any, ...]] = {
    "select": ({"left": Unread(), "right": Unread()},),
    "merge_prioritized": ((9, Unread()), (1, Unread())),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_is_drawn_by_its_name(name: str) -> None:
    method = name.removesuffix("_results")
    args, kwargs = ((), no_names()) if name in MANY else ARGUMENTS[method]()
    text = drawn(OPERATORS[name](*MANY.get(name, (Unread(),)), *args, **kwargs))
    assert name in labels(text)
    assert "<Unread>" in labels(text)


@pytest.mark.parametrize("name", ["broadcast", "split"])
def test_a_function_of_a_stream_is_drawn_by_its_name(name: str) -> None:
    left, right = getattr(combine, name)(Unread(), 2 if name == "broadcast" else true)
    text = diagram(left, right).text()
    assert labels(text) == ["<Unread>", name, "reader", "reader"]


def test_a_branch_that_joins_late_is_drawn_at_the_same_broadcast() -> None:
    (left,) = combine.broadcast(Unread(), 1, replay=1)
    assert labels(diagram(left, left.subscribe()).text()) == [
        "<Unread>", "broadcast", "reader", "reader"
    ]  # fmt: skip


class Client:
    def __aiter__(self) -> AsyncIterator[int]:
        raise AssertionError


SOURCES: dict[str, Callable[[], Any]] = {
    "from_iterable": lambda: sources.from_iterable([1]),
    "from_queue": lambda: sources.from_queue(asyncio.Queue()),
    "from_thread": lambda: sources.from_thread(iter(queue.Queue().get, None)),
    "ticks": lambda: sources.ticks(1.0),
    "restarting": lambda: sources.restarting(Client, RetryPolicy(2)),
    "Channel": lambda: sources.Channel(5),
}


def test_the_table_has_every_source() -> None:
    assert set(sources.__all__) - SOURCES.keys() == {
        "AsyncQueue", "ChannelStatistics", "SyncIterator", "iterate"
    }  # fmt: skip


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_is_drawn_by_its_name(name: str) -> None:
    assert labels(drawn(SOURCES[name]())) == [name]
    assert labels(drawn(ResultStream.of(SOURCES[name]()).map(str))) == [name, "map"]


def test_a_channel_that_is_acknowledged_is_drawn() -> None:
    channel: sources.Channel[int] = sources.Channel(5, acknowledged=True)
    assert labels(drawn(ResultStream.of(channel))) == ["Channel"]


def test_a_partition_is_drawn() -> None:
    async def main() -> str:
        broker = MemoryBroker(partitions=2)
        broker.publish(b"1", b"2")
        async with connectors.Source(broker.driver("sums"), decode=int) as source:
            partition = await anext(source.partitions())
            text = partition.messages().map(str).diagram().text()
            source.drain()
        return text

    assert labels(run(main())) == ["memory-0.messages", "map"]


def test_slices_and_sums_are_drawn() -> None:
    both = results()[2:5].map(str) + results()
    assert labels(drawn(both)) == ["<Unread>", "[2:5]", "map", "<Unread>", "+"]
    assert labels(drawn(results().prefetch(2)[1])) == ["<Unread>", "prefetch", "[1]"]
    assert labels(drawn(results().prefetch(2) + results())) == [
        "<Unread>", "prefetch", "<Unread>", "concat"
    ]  # fmt: skip


def test_a_stream_is_drawn_while_it_is_read_and_afterwards() -> None:
    async def main() -> list[str]:
        made = ResultStream.of(sources.from_iterable(range(3))).chunks_or_timeout(2, 1.0).map(str)
        texts = [made.diagram().text()]
        async with made.stream() as items:
            _ = await anext(items)
            texts.append(made.diagram().text())
        texts.append(made.diagram().text())
        assert await made.run() is not None
        return [*texts, made.diagram().text()]

    assert len(set(run(main()))) == 1


def test_a_thousand_steps_are_drawn() -> None:
    stream = results()
    for _ in range(1_000):
        stream = stream.map(same)
    assert labels(stream.diagram().text()).count("map") == 1_000
