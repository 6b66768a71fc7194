"""The examples of docs/metrics.md run, and print what the page says; its table is complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from returns_pipeline.telemetry._instruments import INSTRUMENTS

pytest.importorskip("opentelemetry.sdk")
pytest.importorskip("prometheus_client")

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", PAGE, re.DOTALL)


def test_the_examples_print_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(EXAMPLES) == 2
    names: dict[str, object] = {"__name__": "example"}  # the second continues the first
    for code, printed in EXAMPLES:
        exec(compile(code, "docs/metrics.md", "exec"), names)
        assert capsys.readouterr().out == printed


def test_the_table_has_all_metrics() -> None:
    listed = [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in PAGE.splitlines()
        if re.match(r"\| `(returns_pipeline|messaging)\.", line)
    ]
    assert listed == [
        (
            f"`{each.name}`",
            "up-down counter" if each.kind == "balance" else each.kind,
            f"`{each.unit}`",
            ", ".join(f"`{name}`" for name in each.attributes),
            each.description,
        )
        for each in INSTRUMENTS
    ]


def test_the_metrics_that_answer_the_questions_exist() -> None:
    questions = PAGE.partition("## Six questions")[2].partition("## All metrics")[0]
    short = set(re.findall(r"`([a-z_]+\.[a-z_]+)`", questions)) - {"error.type"}
    assert len(short) >= 12
    assert {f"returns_pipeline.{name}" for name in short} <= {each.name for each in INSTRUMENTS}
