"""The site is built without a warning, describes every public name, and works in a browser."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser import CHROMIUM, browser, serving

from returns_pipeline import ResultStream

pytest.importorskip("sphinx")  # of the group `docs`
pytest.importorskip("mypy")  # the plugin for it is described, too
pytest.importorskip("pytest_asyncio")

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parents[2] / "docs"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site, as CONTRIBUTING tells, in a new directory; or take a built one."""
    if built := os.environ.get("RETURNS_PIPELINE_SITE"):
        return Path(built).resolve()
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "-n", "--keep-going", "-q"]
    doctrees = tmp_path_factory.mktemp("doctrees")
    done = subprocess.run(
        [*command, "-d", doctrees, DOCS, place], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return place


def inventory(site: Path) -> dict[str, tuple[str, str]]:
    """Return the kind and the page of every Python name that other sites can link to."""
    text = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    rows = [row.rsplit(" ", 4) for row in zlib.decompress(text).decode().splitlines()]
    return {
        name: (kind.removeprefix("py:"), page)
        for name, kind, _, page, _ in rows
        if kind.startswith("py:")
    }


def entries(site: Path) -> dict[str, tuple[str, str]]:
    """Return the signature and the text of each name of the reference, as HTML, by its anchor."""
    found: dict[str, tuple[str, str]] = {}
    for path in (site / "reference").glob("*.html"):
        html = path.read_text(encoding="utf-8").partition("<footer")[0]
        parts = re.split(r'<dt class="sig[^"]*" id="([^"]+)">', html)[1:]
        for anchor, entry in zip(parts[::2], parts[1::2], strict=True):
            signature, _, text = entry.partition("</dt>")
            found[f"reference/{path.name}#{anchor}"] = (signature, text)
    return found


def test_every_public_name_can_be_linked_to_and_has_a_signature_text_and_an_example(
    site: Path,
) -> None:
    import site_reference

    known = inventory(site)
    assert len(known) > 500
    described = entries(site)
    lacking = []
    for name in site_reference.names():
        if inspect.ismodule(name.thing):
            continue
        if name.path not in known:
            lacking.append(f"{name.path}: is not in the inventory")
            continue
        page = known[name.path][1]
        # An anchor that ends with the name is shortened in the inventory.
        signature, text = described[page.replace("$", name.path)]
        if not re.search(r"<p>.{10}", text):
            lacking.append(f"{name.path}: no text")
        if site_reference.is_alias(name.thing):
            continue
        if "&gt;&gt;&gt; " not in text and name.name != "plugin":  # which mypy calls
            lacking.append(f"{name.path}: no example")
        if inspect.isroutine(name.thing) and "sig-return" not in signature + text:
            lacking.append(f"{name.path}: no signature")
    assert not lacking, "\n".join(lacking)


def test_every_method_of_a_stream_can_be_linked_to(site: Path) -> None:
    known = inventory(site)
    methods = {name for name in dir(ResultStream) if not name.startswith("_")}
    there = {name.rpartition(".")[2] for name in known if ".ResultStream." in name}
    assert methods <= there


def test_a_class_that_only_functions_construct_shows_no_parameters(site: Path) -> None:
    described = entries(site)
    page = "reference/{}.html#returns_pipeline.{}"
    assert (
        "sig-paren" not in described[page.format("result_stream", "result_stream.ResultStream")][0]
    )
    assert "sig-paren" in described[page.format("context", "context.StepContext")][0]


def test_the_text_of_a_property_is_not_taken_for_its_type(site: Path) -> None:
    path = "reference/compensation.html#returns_pipeline.compensation.CompensationScope.key"
    assert "<p>The idempotency key:" in entries(site)[path][1]


def test_a_mermaid_block_is_a_picture_and_a_long_name_in_a_table_can_be_broken(site: Path) -> None:
    drawn = (site / "architecture.html").read_text(encoding="utf-8")
    assert 'src="_images/' in drawn
    assert "flowchart LR" not in re.sub(r'alt="[^"]*"', "", drawn)
    table = (site / "guarantees.html").read_text(encoding="utf-8")
    assert "test_<wbr" in re.sub(r"</?span[^>]*>", "", table)


def test_no_markup_is_left_in_the_text_of_the_reference(site: Path) -> None:
    left = []
    for path in (site / "reference").glob("*.html"):
        html = path.read_text(encoding="utf-8")
        text = html.partition("<article")[2].partition("</article>")[0]
        text = re.sub(r"<(pre|code|dt)\b.*?</\1>", "", text, flags=re.DOTALL)
        text = re.sub(r"<[^>]*>", "", text)
        left += [f"{path.name}: {mark}" for mark in ("`", "::", "Args:", "Raises:") if mark in text]
    assert not left


# Code, tables and drawings may scroll by themselves; what holds them may not. The theme hides that
# the document is too wide, and has its column of text scroll instead.
FACTS = """({
    wide: Math.max(...[...document.querySelectorAll('html, body, .content, article')].map(
        box => box.scrollWidth - 390)),
    links: [...document.links].map(link => link.href),
    ids: [...document.querySelectorAll('[id]')].map(element => element.id),
    broken: [...document.images].filter(image => !image.naturalWidth).map(image => image.src),
    title: document.title,
})"""


@pytest.fixture
def served(site: Path) -> Iterator[str]:
    """Serve the site, and return its address."""
    if CHROMIUM is None and not os.environ.get("CI"):
        pytest.skip("needs chromium")
    with serving(site) as address:
        yield address


def test_a_browser_follows_every_link_without_an_error_and_no_page_scrolls_sideways_on_a_phone(
    site: Path, served: str, tmp_path: Path
) -> None:
    facts: dict[str, dict[str, Any]] = {}
    wrong: list[str] = []
    with browser(tmp_path) as tab:
        tab.resize(390, 844)
        # The search and the indexes are reached by a field, not by a link.
        todo = [f"{served}/{page}.html" for page in ("index", "genindex", "py-modindex", "search")]
        while todo:
            url = todo.pop()
            if url in facts or not url.startswith(served) or not url.endswith(".html"):
                continue
            tab.visit(url)
            facts[url] = tab.evaluate(FACTS)
            wrong += [f"{url}: {error}" for error in tab.errors]
            tab.errors.clear()
            if facts[url]["wide"] > 0:
                wrong.append(f"{url}: scrolls sideways by {facts[url]['wide']} pixels")
            wrong += [f"{url}: no picture {source}" for source in facts[url]["broken"]]
            todo += [link.partition("#")[0] for link in facts[url]["links"]]
    for url, there in facts.items():
        for link in filter(lambda link: link.startswith(served), there["links"]):
            target, _, anchor = link.partition("#")
            if not (site / target.removeprefix(f"{served}/")).is_file():
                wrong.append(f"{url}: links to {target}, which is not there")
            elif anchor and target in facts and anchor not in facts[target]["ids"]:
                wrong.append(f"{url}: links to {link}, which has no such place")
    built = {f"{served}/{path.relative_to(site).as_posix()}" for path in site.rglob("*.html")}
    wrong += [f"{url}: no link leads to it" for url in sorted(built - set(facts))]
    assert len(facts) > 40
    assert not wrong, "\n".join(sorted({*wrong}))


# Results are shown one after the other.
FOUND = """new Promise(resolve => {
    const look = tries => {
        const found = document.querySelector("#search-results a[href$='windows.keyed_chunks']");
        found || !tries ? resolve(found && found.href) : setTimeout(look, 10, tries - 1);
    };
    look(2000);
})"""


def test_the_search_finds_a_name(served: str, tmp_path: Path) -> None:
    with browser(tmp_path) as tab:
        tab.visit(f"{served}/search.html?q=keyed_chunks")
        found = tab.evaluate(FOUND)
    assert found == f"{served}/reference/windows.html#returns_pipeline.windows.keyed_chunks"
    assert not tab.errors
