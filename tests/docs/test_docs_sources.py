"""The examples of docs/sources.md run, and print what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "sources.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", PAGE, re.DOTALL)


@pytest.mark.parametrize(("code", "printed"), EXAMPLES)
def test_an_example_prints_what_the_page_says(
    code: str, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(compile(code, "docs/sources.md", "exec"), {"__name__": "example"})
    assert capsys.readouterr().out == printed


def test_the_page_names_everything_that_is_public() -> None:
    from returns_pipeline import sources

    assert len(EXAMPLES) == 6
    missing = [name for name in sources.__all__ if name[0].islower() and f"{name}(" not in PAGE]
    assert not missing
