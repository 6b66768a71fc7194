"""A graph as a flowchart of Mermaid."""

from __future__ import annotations

import math
from typing import Final

from returns_pipeline.inspection._graph import Graph, Kind, Node

__all__ = ["mermaid"]

_SHAPES: Final = {
    Kind.SOURCE: ("([", "])"),
    Kind.STEP: ("[", "]"),
    Kind.PUMP: ("[[", "]]"),
    Kind.SIGNAL: ("{{", "}}"),
    Kind.READER: ("((", "))"),
}
# What would end a label, or be taken for HTML, for an entity or for Markdown.
_ESCAPES: Final = str.maketrans({each: f"#{ord(each)};" for each in '"#&<>`\\'})


def mermaid(graph: Graph) -> str:
    """Return the flowchart, from top to bottom."""
    lines = ["flowchart TD"]
    by_task: dict[int, list[Node]] = {}
    for node in graph.nodes:
        by_task.setdefault(node.task.number, []).append(node)
    for number, nodes in sorted(by_task.items(), key=lambda item: item[0] or math.inf):
        if number:
            lines.append(f'    subgraph task{number}["task {number}"]')
        lines += [f"{'        ' if number else '    '}{_node(node)}" for node in nodes]
        if number:
            lines.append("    end")
    for edge in graph.edges:
        arrow = "-.->" if edge.is_signal else "-->"
        label = _escaped(": ".join(filter(None, [edge.name, edge.errors])))
        between = f'|"{label}"|' if label else ""
        lines.append(f"    n{edge.source.number} {arrow}{between} n{edge.target.number}")
    return "\n".join(lines) + "\n"


def _node(node: Node) -> str:
    begin, end = _SHAPES[node.kind]
    note = f"<br/><i>{_escaped(node.note)}</i>" if node.note else ""
    return f'n{node.number}{begin}"{_escaped(node.label)}{note}"{end}'


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)
