"""The page "Try it" runs its examples in a browser, with nothing but what the site serves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest
from browser import CHROMIUM, Browser, browser, serving

pytest.importorskip("sphinx")  # of the group `docs`

from draw_windows import EXAMPLES
from site_try_it import SERVED, pyodide

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parents[2] / "docs"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the page without the others, or take a site that is built."""
    if built := os.environ.get("RETURNS_PIPELINE_SITE"):
        return Path(built).resolve()
    if not (CHROMIUM and pyodide()) and not os.environ.get("CI"):
        pytest.skip("needs chromium, and pyodide in build/")
    place = tmp_path_factory.mktemp("site")
    others = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} - {"try_it.md"}
    alone = ["-D", "root_doc=try_it", "-D", f"exclude_patterns={','.join(sorted(others))}"]
    command = [sys.executable, "-m", "sphinx", "-q", *alone]
    doctrees = tmp_path_factory.mktemp("doctrees")
    subprocess.run([*command, "-d", doctrees, DOCS, place], check=True, capture_output=True)
    return place


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """Serve the site, and return the page's address."""
    with serving(site) as base:
        yield f"{base}/try_it.html"


def button(tab: Browser, name: str, label: str) -> None:
    """Press a button of an example."""
    tab.evaluate(
        f"[...document.querySelectorAll('#{name} button')]"
        f".find(one => one.textContent === '{label}').click()"
    )


def change(tab: Browser, name: str, old: str, new: str) -> None:
    """Replace something in the code of an example."""
    assert old in tab.evaluate(f"document.querySelector('#{name} textarea').value")
    tab.evaluate(
        f"(area => area.value = area.value.replace({old!r}, {new!r}))"
        f"(document.querySelector('#{name} textarea'))"
    )


def shown(tab: Browser, name: str) -> dict[str, Any]:
    """Return what an example shows once it does not run any more."""
    found: dict[str, Any] = tab.evaluate(
        """new Promise(resolve => {
            const box = document.getElementById('NAME');
            const look = () => box.dataset.state === 'running' ? setTimeout(look, 20) : resolve({
                state: box.dataset.state,
                code: box.querySelector('textarea').value,
                printed: box.querySelector('.try-it-output').textContent,
                pictures: [...box.querySelectorAll('img')].map(image => image.src),
            });
            look();
        })""".replace("NAME", name)
    )
    return found


def test_a_reader_changes_a_number_runs_and_sends_a_link(address: str, tmp_path: Path) -> None:
    with browser(tmp_path) as tab:
        tab.resize(390, 844)
        tab.visit(address)
        # As it is: the picture that is drawn is the one that stood there.
        button(tab, "chunks_or_timeout", "Run")
        first = shown(tab, "chunks_or_timeout")
        assert first["state"] == "done", first
        assert first["printed"].startswith("2 s: ['a', 'b', 'c']\n6.5 s: ['d', 'e']\n")
        (picture,) = first["pictures"]
        drawn = (DOCS / "windows" / "chunks_or_timeout.svg").read_text()
        assert unquote(picture).removeprefix("data:image/svg+xml,") == drawn
        # A number is changed.
        change(tab, "chunks_or_timeout", "3, 2.5", "2, 2.5")
        button(tab, "chunks_or_timeout", "Run")
        second = shown(tab, "chunks_or_timeout")
        assert second["printed"].startswith("1 s: ['a', 'b']\n4 s: ['c', 'd']\n")
        assert second["pictures"] != first["pictures"]
        wide = "Math.max(...[...document.querySelectorAll('html, body, .content, article')]"
        assert tab.evaluate(f"{wide}.map(box => box.scrollWidth - 390))") <= 0
        # The link carries the code, and does not run it.
        button(tab, "chunks_or_timeout", "Copy link")
        link = tab.evaluate("location.href")
        assert link.startswith(f"{address}#chunks_or_timeout=")
        tab.visit("about:blank")
        tab.visit(link)
        again = shown(tab, "chunks_or_timeout")
        assert again["code"] == second["code"]
        assert not again["printed"]
        # Reset brings back what stood there.
        button(tab, "chunks_or_timeout", "Reset")
        assert shown(tab, "chunks_or_timeout")["code"] == first["code"]
        assert not tab.errors


def test_every_example_runs_an_error_is_short_and_a_loop_can_be_stopped(
    address: str, tmp_path: Path
) -> None:
    with browser(tmp_path) as tab:
        tab.visit(address)
        for name in sorted(path.stem for path in EXAMPLES.glob("*.py")):
            button(tab, name, "Run")
            seen = shown(tab, name)
            assert seen["state"] == "done", seen
            (picture,) = seen["pictures"]
            drawn = (DOCS / "windows" / f"{name}.svg").read_text()
            assert unquote(picture).removeprefix("data:image/svg+xml,") == drawn
        change(tab, "sliding", "step=2", "step=0")
        button(tab, "sliding", "Run")
        seen = shown(tab, "sliding")
        assert seen["state"] == "failed"
        assert "InvalidArgument: step must be" in seen["printed"]
        assert seen["printed"].count("File") == 1
        change(tab, "sliding", "step=0", "step=2)\nwhile True: print('more'")
        button(tab, "sliding", "Run")
        tab.evaluate(
            """new Promise(resolve => {
                const output = document.querySelector('#sliding .try-it-output');
                const look = () => output.textContent.includes('not shown')
                    ? resolve() : setTimeout(look, 20);
                look();
            })"""
        )
        button(tab, "sliding", "Stop")
        seen = shown(tab, "sliding")
        assert seen["state"] == "stopped"
        assert len(seen["printed"]) < 21_000
        # It does not run on: the next run is not kept waiting.
        button(tab, "sliding", "Reset")
        button(tab, "sliding", "Run")
        assert shown(tab, "sliding")["state"] == "done"
        assert not tab.errors


def test_without_javascript_the_drawn_pictures_are_shown(address: str, tmp_path: Path) -> None:
    with browser(tmp_path) as tab:
        tab.call("Emulation.setScriptExecutionDisabled", value=True)
        tab.visit(address)
        images = "[...document.querySelectorAll('article .try-it img')]"
        seen = tab.evaluate(f"{images}.filter(one => one.naturalWidth && one.offsetHeight).length")
        assert seen == len([*EXAMPLES.glob("*.py")])
        codes = "[...document.querySelectorAll('article .try-it pre')]"
        assert tab.evaluate(f"{codes}.filter(one => one.offsetHeight).length") == seen
        assert not tab.evaluate("document.querySelector('textarea, .try-it button')")
        assert not tab.errors


def test_what_the_page_loads_is_on_the_site(site: Path) -> None:
    place = site / "_static" / "try_it"
    assert {path.name for path in place.iterdir()} == {*SERVED, "packages.zip"}
