"""The drawings of docs/diagrams.md are what its programs draw today."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from draw_diagrams import DRAWN, PAGE, main, page

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

TEXT = PAGE.read_text()


def test_the_drawings_are_those_that_the_programs_draw() -> None:
    assert page(TEXT) == TEXT, "run docs/draw_diagrams.py"


def test_each_program_of_the_page_has_both_drawings() -> None:
    assert len(DRAWN.findall(TEXT)) == TEXT.count("```python\n") == TEXT.count("```mermaid\n") == 3
    assert len(re.findall(r"```text\n.+?```", TEXT, re.DOTALL)) == 3


def test_the_script_writes_what_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "diagrams.md"
    copy.write_text(re.sub(r"```mermaid\n.+?```", "```mermaid\n```", TEXT, flags=re.DOTALL))
    monkeypatch.setattr("draw_diagrams.PAGE", copy)
    main()
    assert copy.read_text() == TEXT
