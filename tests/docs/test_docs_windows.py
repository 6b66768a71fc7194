"""The pictures of docs/windows.md are what its operators do today."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest

from draw_windows import HERE, MOST, WIDEST, drawn, main, pictures, show
from returns_pipeline import ResultStream
from returns_pipeline.testing import Wait, script, timed
from returns_pipeline.windows import TumblingWindows, chunks_or_timeout, event_windows, sliding
from run_example import run_example

if TYPE_CHECKING:
    from pathlib import Path

DOCS = HERE.parent


def test_the_pictures_are_those_that_a_run_draws() -> None:
    drawn = pictures()
    assert {path.stem for path in HERE.glob("*.svg")} == set(drawn)
    for name, picture in drawn.items():
        assert (HERE / f"{name}.svg").read_text() == picture, "run docs/draw_windows.py"


def test_the_page_shows_each_picture_once_and_says_what_is_to_be_seen() -> None:
    shown = re.findall(r"!\[(.+)\]\(windows/(\w+)\.svg\)", (DOCS / "windows.md").read_text())
    tried = re.findall(
        r"^```{try-it} (\w+)\n(.+)\n```", (DOCS / "try_it.md").read_text(), re.MULTILINE
    )
    assert [name for name, _ in tried] == ["quick_start", *(name for _, name in shown)]
    assert sorted(name for name, _ in tried) == sorted(pictures())
    assert dict(tried[1:]) == {name: text for text, name in shown}
    assert all(len(text) > 10 for _, text in tried)


def texts(picture: str, *, row: int) -> list[str]:
    """Return the texts of the items of a row: the source's, or a window's from 1 on."""
    y = 46 if row == 0 else 84 + 34 * (row - 1)
    return re.findall(rf'y="{y}" class="item">(.*?)<', picture)


def places(picture: str, *, row: int) -> list[str]:
    """Return where the items of a row stand."""
    y = 46 if row == 0 else 84 + 34 * (row - 1)
    return re.findall(rf'<text x="([\d.]+)" y="{y}" class="item"', picture)


@pytest.fixture(autouse=True)
def nothing_drawn() -> None:
    drawn.clear()


def test_items_that_are_equal_are_drawn_each_in_its_own_window() -> None:
    show(script("aaaa|"), chunks_or_timeout, 2, 9.0)
    show(script("aaaa|"), sliding, 3, step=1)
    chunks, slides = drawn
    assert places(chunks, row=1) + places(chunks, row=2) == places(chunks, row=0)
    assert places(slides, row=1) == places(slides, row=0)[:3]
    assert places(slides, row=2) == places(slides, row=0)[1:]


def test_an_item_that_was_filtered_out_is_in_no_window() -> None:
    show(script("abc|"), lambda s: ResultStream.of(s).filter("b".__lt__).chunks_or_timeout(9, 9.0))
    assert texts(drawn[0], row=0) == ["a", "b", "c"]
    assert texts(drawn[0], row=1) == ["c"]


def test_hours_fit_into_a_picture_and_many_items_are_not_drawn(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show(timed("a", Wait(36_000), "b"), chunks_or_timeout, 2, 7200.0)
    show(timed(0.0, Wait(36_000), 36_000.0), event_windows, TumblingWindows(3600), timestamp=float)
    for picture in drawn:
        width, height = map(float, re.findall(r'viewBox="0 0 (\S+) (\S+)"', picture)[0])
        assert width < WIDEST + 400
        assert height < 600
    show(timed(*range(MOST + 1)), chunks_or_timeout, MOST, 1.0)
    assert len(drawn) == 2
    assert capsys.readouterr().out.endswith(f"(not drawn: more than {MOST} items)\n")


def test_silence_is_drawn_too_and_what_came_before_an_error() -> None:
    show(script("----|"), chunks_or_timeout, 2, 1.0, emit_empty=True)
    show(script("a----|"), chunks_or_timeout, 2, 1.0, emit_empty=True)
    assert len(drawn) == 1
    with pytest.raises(ValueError, match="broken"):
        show(script("ab#", error=ValueError("broken")), chunks_or_timeout, 9, 9.0)
    assert texts(drawn[1], row=1) == ["a", "b"]


def test_the_reader_sees_a_short_traceback_and_time_is_virtual(
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = asyncio.run
    code = "import asyncio\nasyncio.run(asyncio.sleep(3600))\nprint('slept')\n1 / 0\n"
    assert run_example(code) == (False, [])
    assert asyncio.run is real
    assert re.sub(r" *[~^]+\n", "", capsys.readouterr().out) == (
        "slept\n"
        "Traceback (most recent call last):\n"
        '  File "your code", line 4, in <module>\n'
        "    1 / 0\n"
        "ZeroDivisionError: division by zero\n"
    )


def test_the_version_of_pyodide_is_one_everywhere() -> None:
    root = DOCS.parent
    texts = [root / "CONTRIBUTING.md", root / ".ci" / "run", DOCS / "site_try_it.py"]
    found = [re.findall(r'(?:pyodide@|PYODIDE = ")([\d.]+)', path.read_text()) for path in texts]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 1


def test_the_script_writes_what_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("draw_windows.HERE", tmp_path)
    main()
    assert {path.stem for path in tmp_path.iterdir()} == set(pictures())
