"""The main job with its live view."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from flight_program import flight

import flight_batcher

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_live_view_shows_windows_steps_and_what_was_rolled_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = tmp_path / "events.jsonl"
    lines.write_text(f"{json.dumps(flight())}\n" * 4)
    database = str(tmp_path / "flights.db")
    arguments = ["--database", database, "--input", str(lines), "--size", "2"]
    assert flight_batcher.main([*arguments, "--live", "--fail-at", "2"]) == 0
    *_, line = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"0:0\d  flight-batcher; chunks_or_timeout 4 \(.*?/s\); flight-batcher 1 \(.*?/s\); "
        r"persist 2 \(.*?/s\), 1 failed; delete-batch from .* 2",
        line,
    )
