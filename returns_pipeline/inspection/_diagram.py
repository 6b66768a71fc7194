"""`Diagram`, and the function that makes one."""

from __future__ import annotations

from collections.abc import AsyncIterable

from returns_pipeline._engine import checks
from returns_pipeline.inspection._graph import Graph, graph_of
from returns_pipeline.inspection._mermaid import mermaid
from returns_pipeline.inspection._text import text

__all__ = ["Diagram", "diagram"]


class Diagram:
    """Streams as a drawing: `mermaid` for pages, `text` for terminals and for code review.

    What it shows, for the stream as it is when it is drawn:

    1. Sources, operators and windows, by the names of their functions and methods, with the
       arguments that were given. A function is shown by its name, a lambda by its file and line.
       Operators of `results`, and their forms for ``|``, have the names of the methods.
    2. Tasks: each box, or each heading of the text, is a task that reads what is in it. What is in
       no box runs in the task that reads the stream. An operator that starts tasks says how many
       items it holds for its reader at most, and which tasks it has besides.
    3. Where streams come together and part. A `broadcast` is drawn once, with an edge to each of
       its streams that is drawn.
    4. Signals, by dotted edges: ``flush_on``, ``take_until``, ``drain_on``.
    5. The types of the failures at each edge, as far as annotations tell: of the functions of the
       user's, and of ``decode``. A question mark stands for those that are not known. Without a
       label, no failure is known.

    It is the same in each run, save where the repr of an argument is not.

    >>> from returns_pipeline import ResultStream
    >>> from returns_pipeline.sources import from_iterable
    >>> s = ResultStream.of(from_iterable("12x")).attempt(int, ValueError).chunks_or_timeout(2, 9.0)
    >>> print(s.diagram())
    task 1
      1  from_iterable('12x')
      2  attempt(int, ValueError)
             fails with ValueError
    the reader's task
      3  chunks_or_timeout(n=2, timeout=9.0)
             holds up to 2
             fails with ValueError
    """

    def __init__(self, graph: Graph) -> None:
        """Not for callers: `diagram` makes drawings."""
        self._graph = graph

    def mermaid(self) -> str:
        """Return a flowchart for Mermaid, which GitHub, Sphinx and others show in pages.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import ticks
        >>> print(ResultStream.of(ticks(60.0)).map(str).diagram().mermaid(), end="")
        flowchart TD
            n1(["ticks(60.0)"])
            n2["map(str)"]
            n3(("reader"))
            n1 --> n2
            n2 --> n3
        """
        return mermaid(self._graph)

    def text(self) -> str:
        """Return lines of text; ``str()`` does so, too.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import ticks
        >>> print(ResultStream.of(ticks(60.0)).map(str).diagram().text(), end="")
        the reader's task
          1  ticks(60.0)
          2  map(str)
        """
        return text(self._graph)

    def __str__(self) -> str:
        return self.text().removesuffix("\n")

    def __repr__(self) -> str:
        return f"<Diagram of {len(self._graph.nodes)} nodes>"


def diagram(*streams: AsyncIterable[object]) -> Diagram:
    """Draw streams, without reading them: no task is started, no item is read.

    A `ResultStream` has the method of the same name. This function is for streams of other classes,
    and for several streams that share a source.

    Args:
        streams: At least one.

    Returns:
        The drawing.

    Raises:
        TypeError: At the call, if one of them is not an async iterable.

    >>> from returns_pipeline import combine
    >>> from returns_pipeline.inspection import diagram
    >>> from returns_pipeline.sources import ticks
    >>> left, right = combine.broadcast(ticks(1.0), 2)
    >>> print(diagram(left, combine.prefetch(right, 5)))
    task 1
      1  ticks(1.0)
      2  broadcast(n=2)
             holds up to 128 for each branch
    the reader's task
      3  reader
    the reader's task
      4  prefetch(n=5)
             reads 2
             holds up to 5
      5  reader
    """
    return Diagram(graph_of([checks.source(stream) for stream in streams]))
