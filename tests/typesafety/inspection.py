"""Drawings of streams, as type checkers see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from returns_pipeline.inspection import Diagram, diagram

if TYPE_CHECKING:
    from aiostream import Stream

    from returns_pipeline import ResultStream


def drawings(s: ResultStream[int, str], plain: Stream[int]) -> None:
    """Any stream can be drawn, and nothing else."""
    assert_type(s.diagram(), Diagram)
    assert_type(s.diagram(plain, s), Diagram)
    assert_type(diagram(s, plain), Diagram)
    assert_type(s.diagram().mermaid(), str)
    assert_type(s.diagram().text(), str)
    number: int = s.diagram().mermaid()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    number = s.diagram().text()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    _ = number
    drawing: Diagram = "text"  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    _ = drawing
    diagram([1])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.diagram(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
