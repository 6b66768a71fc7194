"""A stream as a graph: what its user has written, and the tasks in which it runs.

Nothing is read: each operator is asked what it is by its call (`_engine.calls`), and what it holds
by a pump that is never started.
"""

# Annotations have no type themselves, and what is drawn may be of any.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import AsyncIterable, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from returns_pipeline._engine.calls import Call, call_of
from returns_pipeline._engine.chain import Chain, FanInLink, Source
from returns_pipeline._engine.error_types import NO_ERRORS, UNKNOWN, ErrorTypes, errors_after
from returns_pipeline._engine.leaving import Composite
from returns_pipeline._engine.observing import Observed
from returns_pipeline._engine.operator import NO_SOURCE, ClosableStream, Deferred, ReadOnce
from returns_pipeline._engine.reader import Pump, pump_of
from returns_pipeline._engine.terminals import Terminals, chain_of
from returns_pipeline.inspection._labels import Argument, arguments, label_of, leaf_label

__all__ = ["Edge", "Graph", "Kind", "Node", "Task", "graph_of"]


class Kind(Enum):
    """What a node is."""

    SOURCE = auto()
    STEP = auto()
    PUMP = auto()
    SIGNAL = auto()
    READER = auto()


@dataclass(eq=False)
class Task:
    """A task that reads a part of a stream.

    Attributes:
        number: From 1, in the order of the nodes; 0 for that of the reader.
    """

    number: int = 0


@dataclass(eq=False)
class Node:
    """An operator, a source, a signal, or a reader.

    Attributes:
        kind: What it is.
        label: What it is called, with its arguments.
        note: What it holds, and which tasks it has of its own.
        task: The task in which it runs.
        number: From 1.
        reading: What it is read by now, or was read by last, if it holds items.
    """

    kind: Kind
    label: str
    note: str
    task: Task
    number: int
    reading: Pump[Any] | None = None


@dataclass(eq=False)
class Edge:
    """The way of items, or of a signal, from one node to another.

    Attributes:
        source: Where it begins.
        target: Where it ends.
        errors: The types of the failures among the items, as far as they are known.
        name: Of a signal, what it is for; of one of several streams, its key or its priority.
        is_signal: Whether it is a signal.
    """

    source: Node
    target: Node
    errors: str = ""
    name: str = ""
    is_signal: bool = False


@dataclass(eq=False)
class Graph:
    """All nodes, each after those that it reads, and all edges."""

    nodes: list[Node] = field(default_factory=list[Node])
    edges: list[Edge] = field(default_factory=list[Edge])


@dataclass(slots=True)
class _Out:
    """A node that emits items, the errors among these, and what stands beside the stream."""

    node: Node
    errors: ErrorTypes
    beside: str = ""


def graph_of(streams: Iterable[AsyncIterable[object]]) -> Graph:
    """Return streams as one graph, with a reader for each."""
    builder = _Builder()
    readers: list[Task] = []
    for stream in streams:
        reader = Task()
        outs = builder.visit(stream, reader)
        _ = builder.node(Kind.READER, "reader", "", reader, outs)
        readers.append(reader)
    numbers = itertools.count(1)
    for node in builder.graph.nodes:
        if not node.task.number and node.task not in readers and node.kind is not Kind.SIGNAL:
            node.task.number = next(numbers)
    return builder.graph


class _Builder:
    def __init__(self) -> None:
        self.graph = Graph()
        # Nodes that are drawn once, by the number of their object, which is kept.
        self._shared: dict[int, tuple[object, _Out]] = {}

    def node(
        self, kind: Kind, label: str, note: str, task: Task, inputs: Iterable[_Out] = ()
    ) -> Node:
        made = Node(kind, label, note, task, len(self.graph.nodes) + 1)
        self.graph.nodes.append(made)
        for out in inputs:
            self.graph.edges.append(Edge(out.node, made, str(out.errors), out.beside))
        return made

    def visit(self, stream: AsyncIterable[Any], task: Task) -> list[_Out]:
        """Add a stream that is read in a task; return what emits its items."""
        if isinstance(stream, Terminals):
            return self._chain(chain_of(stream), task)[0]
        call = call_of(stream)
        if call is not None:
            return [self._called(call, stream, task)]
        if isinstance(stream, Composite):
            sources = stream._sources()  # pyright: ignore[reportPrivateUsage]
            if outs := [out for source in sources for out in self.visit(source, task)]:
                return outs
        return [_Out(self.node(Kind.SOURCE, leaf_label(stream), "", task), UNKNOWN)]

    def _called(self, call: Call, stream: object, task: Task) -> _Out:
        """Add a stream that knows the call that made it."""
        shares = isinstance(stream, ReadOnce)  # with the other streams of the same call
        if shares:
            if id(call) in self._shared:
                return self._shared[id(call)][1]
            task = Task()
        peeked = None
        if isinstance(stream, ClosableStream):
            peeked = stream._peek()  # pyright: ignore[reportPrivateUsage]
        pump: Pump[Any] | None = peeked if isinstance(peeked, Pump) else pump_of(peeked)
        given = arguments(call)
        mains = [each for each in given if each.is_main and each.is_stream]
        if isinstance(stream, Deferred):
            sources = stream._sources()  # pyright: ignore[reportPrivateUsage]
            mains = [Argument("", each, is_main=True) for each in sources]
        tasks = [task] * len(mains) if shares else _tasks_of(len(mains), pump, task)
        errors: dict[int, ErrorTypes] = {}
        inputs: list[_Out] = []
        for main, its_task in zip(mains, tasks, strict=True):
            outs = self.visit(main.value, its_task)
            errors[id(main.value)] = _union(outs)
            inputs += [_Out(out.node, out.errors, main.beside) for out in outs]
        after = _union(inputs)  # a slice, or a sum
        if not isinstance(stream, Deferred):
            after = errors_after(call, UNKNOWN, lambda value: errors.get(id(value)))
        kind = Kind.SOURCE if not mains else Kind.STEP if pump is None else Kind.PUMP
        out = _Out(self._add(call, given, kind, pump, task, inputs), after)
        if isinstance(stream, ClosableStream):
            latest = stream._latest()  # pyright: ignore[reportPrivateUsage]
            out.node.reading = latest if isinstance(latest, Pump) else pump_of(latest)
        if shares:
            self._shared[id(call)] = (call, out)
        return out

    def _add(
        self,
        call: Call,
        given: list[Argument],
        kind: Kind,
        pump: Pump[Any] | None,
        task: Task,
        inputs: list[_Out],
    ) -> Node:
        """Add the node of a call, and its signals."""
        signals = [(self._signal(each.value), each.name) for each in given if each.is_signal]
        note = call.bounds if pump is None else pump.bounds()
        made = self.node(kind, label_of(call, given), note, task, inputs)
        for signal, name in signals:
            self.graph.edges.append(Edge(signal, made, name=name, is_signal=True))
        return made

    def _signal(self, value: Any) -> Node:
        """Add an event, a stream or something else that is waited for; each of them once."""
        if id(value) in self._shared:
            return self._shared[id(value)][1].node
        if hasattr(value, "__aiter__"):
            out = self.visit(value, Task())[0]
        else:
            is_call = inspect.iscoroutine(value)
            label = f"{value.__qualname__}()" if is_call else type(value).__name__
            out = _Out(self.node(Kind.SIGNAL, label, "", Task()), UNKNOWN)
        self._shared[id(value)] = (value, out)
        return out.node

    # Chains.

    def _chain(self, chain: Chain, task: Task) -> tuple[list[_Out], list[Node]]:
        """Add a chain; return what emits its items, and its sources, which an event may end."""
        links: list[tuple[Chain, Task, Task]] = []
        at = chain
        while at.before is not None:
            reads = Task() if callable(at.link) or isinstance(at.link, FanInLink) else task
            links.append((at, task, reads))
            task, at = reads, at.before
        outs, entries = self._source(at, task)
        for link, its_task, reads in reversed(links):
            if isinstance(link.link, asyncio.Event):
                signal = self._signal(link.link)
                for entry in entries:
                    self.graph.edges.append(Edge(signal, entry, name="drain_on", is_signal=True))
            elif not isinstance(link.link, Observed):  # which changes nothing
                outs = [self._link(link, its_task, reads, outs, entries)]
        return outs, entries

    def _source(self, base: Chain, task: Task) -> tuple[list[_Out], list[Node]]:
        source = base.link
        assert isinstance(source, Source)
        outs = self.visit(source.items, task)
        entries = [out.node for out in outs]
        if not source.packed:  # its items are values
            outs = [_Out(out.node, NO_ERRORS) for out in outs]
        if source.folded:
            names = tuple([error.__name__ for error in source.folded])
            label = f"or_failure({', '.join(names)})"
            errors = _union(outs) | ErrorTypes(names, complete=True)
            outs = [_Out(self.node(Kind.STEP, label, "", task, outs), errors)]
        return outs, entries

    def _link(
        self, at: Chain, task: Task, reads: Task, outs: list[_Out], entries: list[Node]
    ) -> _Out:
        """Add a step that runs in a task, and what it reads besides the chain before it.

        Args:
            at: The step.
            task: The task that runs it.
            reads: The task that reads the chain before it.
            outs: What the chain before it emits.
            entries: The sources before it. Those of other chains are added.
        """
        link, call = at.link, at.written
        assert call is not None
        before = _union(outs)
        errors: dict[int, ErrorTypes] = {}
        given = arguments(call)
        pump: Pump[Any] | None = None
        if isinstance(link, FanInLink):
            pump = pump_of(link.join([NO_SOURCE] * (1 + len(link.others))))
            tasks = _tasks_of(1 + len(link.others), pump, reads)
            mains = [each.value for each in given if each.is_main]
            is_shared = tasks[0] is tasks[-1]
            for other, main in zip(link.others, mains, strict=True):
                more, its_entries = self._chain(other, reads if is_shared else Task())
                errors[id(main)] = _union(more)
                outs = outs + more
                entries += its_entries
        elif callable(link):
            pump = pump_of(link(NO_SOURCE))
        after = errors_after(call, before, lambda value: errors.get(id(value)))
        kind = Kind.STEP if pump is None else Kind.PUMP
        node = self._add(call, given, kind, pump, task, outs)
        node.reading = pump_of(at.reading()) if at.reading is not None else None
        return _Out(node, after)


def _tasks_of(count: int, pump: Pump[Any] | None, task: Task) -> list[Task]:
    """Return the tasks in which the sources of a node are read that runs in a task."""
    if pump is None:
        return [task] * count
    if len(list(pump.sources())) < count:  # one after the other, in one task
        return [Task()] * count
    return [Task() for _ in range(count)]


def _union(outs: Iterable[_Out]) -> ErrorTypes:
    errors = NO_ERRORS
    for out in outs:
        errors |= out.errors
    return errors
