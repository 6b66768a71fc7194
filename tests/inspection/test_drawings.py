"""What a drawing shows: tasks, bounds, edges and labels, the same in each run."""

from __future__ import annotations

import asyncio
import datetime
import functools
import gc
import re
from typing import TYPE_CHECKING, Any

import pytest
from aiostream import stream
from returns.result import Success

from returns_pipeline import ResultStream, combine
from returns_pipeline.combine import select
from returns_pipeline.inspection import Diagram, diagram
from returns_pipeline.sources import from_iterable, ticks
from returns_pipeline.testing import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def events() -> AsyncIterator[int]:
    yield 1
    raise AssertionError("it was read")


def start(source: Any = None) -> ResultStream[Any, Any]:
    return ResultStream.of(events() if source is None else source)


async def nothing(_: object) -> None: ...


def tasks(drawing: Diagram) -> list[list[str]]:
    """Return the names of the nodes in each task, that of the reader last."""
    found: list[list[str]] = []
    for line in drawing.text().splitlines():
        if not line.startswith(" "):
            found.append([])
        elif (label := re.match(r" +\d+  ([^(]*)", line)) is not None:
            found[-1].append(label[1])
    return found


def test_what_comes_before_an_operator_with_a_task_runs_in_it() -> None:
    s = start().map(str).prefetch(2).bind(Success).sliding(3).tap(print)
    assert tasks(s.diagram()) == [["events", "map"], ["prefetch", "bind"], ["sliding", "tap"]]


def test_sequential_steps_need_no_task() -> None:
    s = start().map(str).map_async(nothing)
    assert tasks(s.diagram()) == [["events", "map", "map_async"]]


def test_each_source_of_a_merge_has_a_task_and_those_of_a_concat_share_one() -> None:
    one, other = start(), start().map(str)
    assert tasks(one.merge(other).diagram()) == [["events"], ["events", "map"], ["merge"]]
    assert tasks(one.concat(other).diagram()) == [["events", "events", "map"], ["concat"]]
    assert tasks(one.zip(other).diagram()) == [["events"], ["events", "map"], ["zip"]]
    assert tasks(diagram(combine.concat(one, other))) == tasks(one.concat(other).diagram())


def test_a_sum_without_tasks_and_a_slice_need_none() -> None:
    both = start()[:3] + start()
    assert tasks(both.diagram()) == [["events", "[:3]", "events", "+"]]


def test_a_broadcast_runs_in_the_task_of_its_source_and_is_drawn_once() -> None:
    left, right = start().map(str).broadcast(2)
    both = left.map(str).merge(right.prefetch(2))
    assert tasks(both.diagram()) == [
        ["events", "map", "broadcast"],
        ["map"],
        ["prefetch"],
        ["merge"],
    ]


def test_a_source_that_is_read_twice_is_drawn_twice() -> None:
    numbers = from_iterable([1])
    both = ResultStream.of(numbers).merge(ResultStream.of(numbers))
    assert tasks(both.diagram()) == [["from_iterable"], ["from_iterable"], ["merge"]]


def test_signals_have_dotted_edges_and_an_event_is_drawn_once() -> None:
    stop = asyncio.Event()
    s = start().merge(start()).drain_on(stop)
    s = s.chunks_or_timeout(2, 1.0, flush_on=stop).take_until(ticks(9.0))
    edges = [line for line in s.diagram().mermaid().splitlines() if "-.->" in line]
    assert [re.sub(r"n\d+", "n", edge).strip() for edge in edges] == [
        'n -.->|"drain_on"| n',
        'n -.->|"drain_on"| n',
        'n -.->|"flush_on"| n',
        'n -.->|"stop"| n',
    ]
    assert s.diagram().mermaid().count("{{") == 1


def test_drain_on_ends_the_sources_before_it_alone() -> None:
    s = start().drain_on(asyncio.Event()).merge(ResultStream.of(ticks(1.0)))
    text = s.diagram().text()
    assert text.count("drain_on") == 1
    assert text.index("drain_on") < text.index("ticks")


def test_a_coroutine_that_is_a_signal_is_not_awaited() -> None:
    async def main() -> str:
        waiting = asyncio.sleep(1.0)
        text = start().take_until(waiting).diagram().text()
        waiting.close()
        return text

    assert "sleep()" in run(main())


def test_streams_by_key_and_by_priority_have_these_at_their_edges() -> None:
    text = diagram(select({"left": ticks(1.0), 2: ticks(2.0)})).mermaid()
    assert "n1 -->|\"'left'\"| n3" in text
    assert 'n2 -->|"2"| n3' in text
    text = diagram(combine.merge_prioritized((9, ticks(1.0)), (0.5, ticks(2.0)))).text()
    assert "reads 1 as 9, 2 as 0.5" in text


def labelled(value: object) -> str:
    """Return how a value is shown."""
    text = start().scan(value, max).diagram().text()
    return text.splitlines()[2].partition("scan(")[2].rpartition(", max)")[0]


class Secret:
    pass


class Odd:
    def __repr__(self) -> str:
        raise ValueError


class Lines:
    def __repr__(self) -> str:
        return "one\ntwo"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        ("a", "'a'"),
        (datetime.timedelta(seconds=2), "timedelta(seconds=2)"),
        (int, "int"),
        (str.upper, "str.upper"),
        (functools.partial(labelled, 1), "labelled"),
        ([1, 2], "<list>"),
        ({"a": 1}, "<dict>"),
        (Secret(), "<Secret>"),
        (Odd(), "<Odd>"),
        (Lines(), "one two"),
        ("a" * 99, "'" + "a" * 59 + "..."),
    ],
)
def test_a_value_is_shown_shortly_and_without_its_address(value: object, text: str) -> None:
    assert labelled(value) == text


def test_a_lambda_is_shown_with_its_file_and_line() -> None:
    func = lambda n: n  # noqa: E731
    line = func.__code__.co_firstlineno
    text = start().map(func).diagram().text()
    assert f"map(lambda (test_drawings.py:{line}))" in text


def test_defaults_are_left_out() -> None:
    s = start().chunks_or_timeout(2, 1, emit_empty=False).map_async(nothing, ordered=True)
    assert "chunks_or_timeout(n=2, timeout=1)\n" in s.diagram().text()
    assert "map_async(nothing)\n" in s.diagram().text()


@pytest.mark.parametrize("text", ['"', "]", "#lt;", "<b>", "&amp;", "`a`", "\\n", "|", "--> n1"])
def test_no_label_ends_a_node_or_is_taken_for_markup(text: str) -> None:
    named = type(text, (ValueError,), {})
    mermaid = ResultStream.of(from_iterable(text)).attempt(int, named).diagram().mermaid()
    for line in mermaid.splitlines()[1:]:
        assert line.count('"') in {0, 2}
        label = line.partition('"')[2].rpartition('"')[0]
        assert not re.search(r"[<>`\\&]|#(?!\d+;)", label)


def test_a_drawing_is_the_same_in_each_run() -> None:
    def once() -> tuple[str, str]:
        s = start().map(lambda n: n).chunks_or_timeout(2, 1.0)
        drawing = s.merge(ResultStream.of(from_iterable([Secret()]))).diagram()
        return drawing.text(), drawing.mermaid()

    first = once()
    _ = [object() for _ in range(99)]
    assert once() == first


def test_a_drawing_keeps_no_stream_alive_and_opens_none() -> None:
    async def main() -> tuple[int, int]:
        branches = combine.broadcast(ticks(1.0), 2, buffer=3)
        drawing = diagram(*branches)
        left = branches[0]
        del branches
        gc.collect()
        # The other branch has left, so this one is not held up.
        items = await stream.list(left[:9])
        return len(items), len(drawing.text())

    assert run(main())[0] == 9


def test_only_streams_are_drawn() -> None:
    given: Any = [1, 2]
    with pytest.raises(TypeError, match="from_iterable"):
        diagram(given)


def test_the_other_forms_of_a_drawing() -> None:
    drawing = start().diagram()
    assert str(drawing) + "\n" == drawing.text()
    assert repr(drawing) == "<Diagram of 2 nodes>"
