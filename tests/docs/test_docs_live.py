"""The example of docs/live.md runs, and shows what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("rich", reason="needs the extra live")

PAGE = (Path(__file__).parents[2] / "docs" / "live.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)


def test_the_example_shows_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    ((code, printed),) = EXAMPLES
    exec(compile(code, "docs/live.md", "exec"), {"__name__": "example"})
    shown = capsys.readouterr()
    durations = r"[\d.]+ (m?s) each"
    assert re.sub(durations, "0 s each", shown.out) == printed
    assert re.fullmatch(
        r"0:00  batcher; chunks_or_timeout 8; persist 3, 1 failed; delete-rows 3\n", shown.err
    )
