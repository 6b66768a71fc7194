"""The pictures of docs/windows.md are what its operators do today."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from draw_windows import HERE, main, pictures

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

PAGE = HERE.parent / "windows.md"


def test_the_pictures_are_those_that_a_run_draws() -> None:
    drawn = pictures()
    assert {path.stem for path in HERE.glob("*.svg")} == set(drawn)
    for name, picture in drawn.items():
        assert (HERE / f"{name}.svg").read_text() == picture, "run docs/draw_windows.py"


def test_the_page_shows_each_picture_once_and_says_what_is_to_be_seen() -> None:
    shown = re.findall(r"!\[(.+)\]\(windows/(\w+)\.svg\)", PAGE.read_text())
    assert sorted(name for _, name in shown) == sorted(pictures())
    assert all(len(text) > 10 for text, _ in shown)


def test_the_script_writes_what_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("draw_windows.HERE", tmp_path)
    main()
    assert {path.stem for path in tmp_path.iterdir()} == set(pictures())
