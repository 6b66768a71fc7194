"""The pages of the reference cover every public name; what they refer to is there."""

from __future__ import annotations

import contextlib
import inspect
import re
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from draw_mermaid import HERE, blocks, main

pytest.importorskip("sphinx")  # of the group `docs`
pytest.importorskip("mypy")  # the plugin for it is described, too
pytest.importorskip("pytest_asyncio")

DOCS = Path(__file__).parents[2] / "docs"


def test_each_public_module_has_a_page() -> None:
    import site_reference

    pages = {
        module
        for path in (DOCS / "reference").glob("*.md")
        for module in re.findall(r"^```\{reference\} (\S+)$", path.read_text(), re.MULTILINE)
    }
    assert pages == set(site_reference.modules())
    contents = (DOCS / "reference" / "index.md").read_text()
    for module in pages:
        assert f"\n{module.removeprefix('returns_pipeline.')}\n" in contents


def test_a_thing_with_several_names_is_described_once_near_its_definition() -> None:
    import site_reference

    homes = {name.path: site_reference.home(name).path for name in site_reference.names()}
    assert homes["returns_pipeline.StepContext"] == "returns_pipeline.context.StepContext"
    assert homes["returns_pipeline.compensation.Journal"] == (
        "returns_pipeline.compensation.protocol.Journal"
    )
    assert homes["returns_pipeline.journal.sqlite.SqliteJournal"] == (
        "returns_pipeline.journal.SqliteJournal"
    )
    assert homes["returns_pipeline.cases"] == "returns_pipeline.cases"
    assert all(homes[home] == home for home in homes.values())


def test_every_home_is_described_on_the_page_of_its_module() -> None:
    import site_reference

    for module in site_reference.modules():
        text = site_reference.page(module)
        for name in site_reference.names():
            if inspect.ismodule(name.thing) or name.module != module:
                continue
            if site_reference.home(name).module == module:
                assert re.search(rf":: ({re.escape(module)}\.)?{name.name}\n", text), name.path


def test_a_docstring_means_what_its_code_means() -> None:
    import asyncio

    import site_reference
    from returns_pipeline import ResultStream, windows

    meant = site_reference.meant
    assert meant("sliding", "returns_pipeline.windows", None) is windows.sliding
    assert meant("asyncio.Event", "returns_pipeline.windows", None) is asyncio.Event
    assert meant("ValueError", "returns_pipeline.errors", None) is ValueError
    assert meant("collect", "returns_pipeline.connectors", "Source") is ResultStream.collect
    with pytest.raises(AttributeError):
        meant("no_such_name", "returns_pipeline.windows", None)
    with pytest.raises(AttributeError):
        meant("asyncio.NoSuchName", "returns_pipeline.windows", None)


def test_a_type_alias_is_shown_as_it_is_written() -> None:
    import site_reference

    known = {name.path: name for name in site_reference.names()}
    value, text = site_reference.assigned(known["returns_pipeline.windows.Assigner"])
    words = [word.rpartition(".")[2] for word in value.split(" | ")]
    assert words == ["TumblingWindows", "SlidingWindows", "SessionWindows"]
    assert text.startswith("Decides which windows")
    with pytest.raises(LookupError):
        site_reference.assigned(known["returns_pipeline.windows.EventWindow"])


def test_a_command_is_shown_with_its_help() -> None:
    import site_reference

    shown = site_reference.usage("python -m returns_pipeline.journal show")
    assert "usage: python -m returns_pipeline.journal show" in shown


def test_every_mermaid_block_has_its_drawing_and_every_drawing_its_block() -> None:
    drawn = {path.stem for path in HERE.glob("*.svg")}
    assert drawn == set(blocks()), "run docs/draw_mermaid.py, as it says"


def test_a_drawing_without_a_block_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("draw_mermaid.HERE", tmp_path)
    monkeypatch.setattr("draw_mermaid.blocks", dict)
    monkeypatch.setitem(__import__("sys").modules, "mermaidx", type("Fake", (), {"render": str}))
    (tmp_path / "old.svg").write_text("")
    main()
    assert not [*tmp_path.iterdir()]


def test_a_site_without_the_tested_pyodide_says_so_and_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sphinx.errors import ExtensionError

    import site_try_it

    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("RETURNS_PIPELINE_PYODIDE", str(tmp_path))
    for version in ("", "0.0.1", site_try_it.PYODIDE):
        if version:
            (tmp_path / "package.json").write_text(f'{{"version": "{version}"}}')
        context = {"body": "<h1>Try it</h1><p>An example.</p>"}
        app = MagicMock()
        site_try_it.equip(app, "try_it", "", context, None)
        there = version == site_try_it.PYODIDE
        assert app.add_js_file.called == there
        assert ("without Pyodide" in context["body"]) != there
        with monkeypatch.context() as patch, contextlib.ExitStack() as stack:
            patch.setenv("CI", "true")
            if not there:
                stack.enter_context(pytest.raises(ExtensionError, match="no Pyodide"))
            site_try_it.pyodide()


def test_what_runs_in_the_browser_is_served_with_its_sources_and_licences() -> None:
    import aiostream

    import site_try_it

    served = site_try_it.sources()
    for name in ("aiostream", "returns", "tenacity", "typing_extensions", "returns_pipeline"):
        assert [path for path in served if re.match(rf"{name}-.*LICENSE", path)], name
    place = Path(aiostream.__file__).parent
    assert {*place.rglob("*.py")} <= {path.resolve() for path in served.values()}
    page = (DOCS / "try_it.md").read_text()
    assert "GPL 3.0 or later" in page
    assert "packages.zip" in page
    assert all(path.is_file() for path in served.values())
