"""The examples of docs/telemetry.md run, and print what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from returns_pipeline import telemetry

PAGE = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", PAGE, re.DOTALL)


@pytest.mark.parametrize(("code", "printed"), EXAMPLES)
def test_an_example_prints_what_the_page_says(
    code: str, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(compile(code, "docs/telemetry.md", "exec"), {"__name__": "example"})
    assert capsys.readouterr().out == printed


def test_the_table_has_all_events_and_the_other_all_reasons() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ", PAGE, re.MULTILINE)
    events = [name for name in telemetry.__all__ if isinstance(getattr(telemetry, name), type)]
    assert {name for name in rows if name[0].isupper()} == set(events) - {"Observer"}
    reasons = re.findall(r"^\| ((?:`[a-z]+`(?:, )?)+) \|", PAGE, re.MULTILINE)
    named = {name for row in reasons for name in re.findall(r"`(\w+)`", row)}
    assert named == set(get_args(telemetry.WindowReason))
