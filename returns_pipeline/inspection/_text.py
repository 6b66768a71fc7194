"""A graph as lines of text, for terminals and for code review."""

from __future__ import annotations

from returns_pipeline.inspection._graph import Edge, Graph, Kind, Node, Task

__all__ = ["text"]


def text(graph: Graph) -> str:
    """Return a line for each node, after those that it reads, below the task in which it runs."""
    nodes = graph.nodes
    if sum(node.kind is Kind.READER for node in nodes) == 1:
        nodes = [node for node in nodes if node.kind is not Kind.READER]
    edges: dict[Node, tuple[list[Edge], list[Edge]]] = {node: ([], []) for node in graph.nodes}
    for edge in graph.edges:
        edges[edge.target][0].append(edge)
        edges[edge.source][1].append(edge)
    width = len(str(len(graph.nodes)))
    lines: list[str] = []
    task: Task | None = None
    before: Node | None = None
    for node in nodes:
        if node.task is not task and node.kind is not Kind.SIGNAL:
            task = node.task
            lines.append(f"task {task.number}" if task.number else "the reader's task")
        details = _details(node, *edges[node], before)
        lines.append(f"  {node.number:>{width}}  {node.label}")
        lines += [f"  {'':>{width}}      {detail}" for detail in details]
        before = node
    return "\n".join(lines) + "\n"


def _details(node: Node, into: list[Edge], out: list[Edge], before: Node | None) -> list[str]:
    """Return what is to be said of a node besides its label, by the edges into and out of it."""
    inputs = [edge for edge in into if not edge.is_signal]
    details: list[str] = []
    if inputs and ([edge.source for edge in inputs] != [before] or inputs[0].name):
        details.append(f"reads {', '.join(map(_input, inputs))}")
    details += [f"{edge.name}: {edge.source.number}" for edge in into if edge.is_signal]
    details += [node.note] if node.note else []
    errors = {edge.errors for edge in out if edge.errors}
    details += [f"fails with {each}" for each in sorted(errors)]
    return details


def _input(edge: Edge) -> str:
    return f"{edge.source.number} as {edge.name}" if edge.name else str(edge.source.number)
