"""The pages for users run: each block prints what stands below it, on virtual time.

A page's blocks continue one another, as a reader would type them. A block that begins with a
comment such as ``# examples/how_to/tune.py`` is that file, without its docstring; one that begins
with ``# part of examples/event_batcher.py`` is in that file as it stands.
"""

from __future__ import annotations

import ast
import asyncio
import gc
import importlib
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typed import shown_by

import returns_pipeline
from returns_pipeline import ResultStream, StepContext, testing
from returns_pipeline.errors import MissingExtra
from returns_pipeline.sources import Channel

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NAMES = (
    "quick_start",
    "which_tool",
    "tutorial",
    "guarantees",
    "glossary",
    "why",
    "faq",
    "versioning",
)
PAGES = [
    *(page for name in NAMES if (page := DOCS / f"{name}.md").exists()),
    *sorted((DOCS / "how_to").glob("*.md")),
    *sorted((DOCS / "coming_from").glob("*.md")),
]
ROOMS = [
    *("combine", "connectors", "cron", "errors", "journal", "policies", "sources", "telemetry"),
    *("testing", "windows", "worker"),
]
# In the same column: names of Python, of `returns`, and parameters.
FOREIGN = {
    *("async", "asyncio", "math", "inf", "stream", "timeout", "undo", "step", "testing"),
    *("overflow", "max_keys", "FutureResult", "Result", "Failure"),
}
BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```$(?:\n\n^```text\n(?P<printed>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)
PROGRAM = re.compile(r"# (examples/\S+\.py)\n")
PART = re.compile(r"# part of (examples/\S+\.py)\n")
LISTED = re.compile(r"^([0-9a-f]{4})[0-9a-f]{4}  ", re.MULTILINE)
SESSION = re.compile(r"^\$ (.*)\n((?:(?!\$ |```).*\n)*)", re.MULTILINE)


def name_of(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the blocks of a page, each with what it prints."""
    text = page.read_text(encoding="utf-8")
    return [(found["code"], found["printed"] or "") for found in BLOCK.finditer(text)]


def program(path: Path) -> str:
    """Return the code of an example, without its docstring."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), f"{path} has no docstring"
    rest = text.splitlines(keepends=True)[tree.body[0].end_lineno or 0 :]
    return "".join(rest).strip("\n") + "\n"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_block_of_a_page_prints_what_stands_below_it(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [page.name])
    monkeypatch.setattr(asyncio, "run", testing.run)  # no real time passes
    module = ModuleType("__main__")  # dataclasses, and annotations, are looked up there
    names: dict[str, Any] = vars(module)
    monkeypatch.setitem(sys.modules, "__main__", module)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [*root.handlers])  # a page may set others
    for code, printed in blocks(page):
        try:
            exec(compile(code, name_of(page), "exec"), names)
        except MissingExtra as error:
            pytest.skip(str(error))
        assert capsys.readouterr().out == printed
    names.clear()
    gc.collect()  # what a page has left open is reported here, and not in another test


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_program_of_a_page_is_the_one_in_examples(page: Path) -> None:
    for code, _ in blocks(page):
        if found := PROGRAM.match(code):
            assert code == found[0] + program(ROOT / found[1])
        if found := PART.match(code):
            assert code.removeprefix(found[0]) in (ROOT / found[1]).read_text(encoding="utf-8")


def test_the_parts_of_a_program_on_a_page_are_all_of_it() -> None:
    """With its imports, which the first block has: a reader has no other file to look at."""
    codes = [code for code, _ in blocks(DOCS / "tutorial.md")]
    parts = [ast.parse(code).body for code in codes if PART.match(code)]
    imports = [node for node in ast.parse(codes[0]).body if isinstance(node, ast.ImportFrom)]
    here = {(node.module, name.name) for node in imports for name in node.names}
    shown = [ast.dump(node) for part in parts for node in part]
    text = (ROOT / "examples" / "event_batcher.py").read_text(encoding="utf-8")
    there: list[str] = []
    for node in ast.parse(text).body[1:]:  # the first one is its docstring
        if isinstance(node, ast.ImportFrom):
            assert {(node.module, name.name) for name in node.names} <= here
        elif not isinstance(node, ast.Import):
            there.append(ast.dump(node))
    assert shown == there


def test_each_small_example_is_on_a_page() -> None:
    shown = {
        found[1] for page in PAGES for code, _ in blocks(page) if (found := PROGRAM.match(code))
    }
    there = (ROOT / "examples" / "how_to").glob("*.py")
    assert {path.relative_to(ROOT).as_posix() for path in there} == shown


def test_each_name_of_ours_in_a_comparison_is_a_name_of_ours() -> None:
    """What is called in the last column but one of ``coming_from/*.md`` exists."""
    pytest.importorskip("cronsim")  # of the extra `cron`, which one room needs
    known = {*ROOMS, *returns_pipeline.__all__}
    for room in ROOMS:
        known |= {*importlib.import_module(f"returns_pipeline.{room}").__all__}
    public = (ResultStream, StepContext, Channel)
    known |= {name for each in public for name in dir(each)}
    found: list[str] = []
    for page in (DOCS / "coming_from").glob("[!i]*.md"):
        for row in re.findall(r"^\| .* \|$", page.read_text("utf-8"), re.MULTILINE)[1:]:
            here = re.split(r"(?<!\\)\|", row.strip("|"))[-2]
            for span in re.findall(r"`([^`]+)`", here):
                name = re.match(r"[A-Za-z_.]*", span)
                if name and not {*name[0].split(".")} <= known | FOREIGN:
                    found.append(f"{name_of(page)}: {span}")
    assert found == []


def test_each_test_that_holds_a_guarantee_exists() -> None:
    page = (DOCS / "guarantees.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+)`", page)
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    defined = {name for text in sources for name in re.findall(r"def (test_\w+)\(", text)}
    assert len(named) > 50
    assert [name for name in named if name not in defined] == []


def masked(text: str) -> str:
    """Hide what is different each time, and leave its width."""
    text = re.sub(r"[0-9a-f]{32}", "#" * 32, text)
    text = re.sub(r"^[0-9a-f]{8}  ", "#" * 8 + "  ", text, flags=re.MULTILINE)
    text = re.sub(r"\b\d s\b", "# s", text)
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]{12}Z", "<time>", text)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if SESSION.search(page.read_text("utf-8"))], ids=name_of
)
def test_a_session_of_a_page_is_what_a_shell_shows(page: Path, tmp_path: Path) -> None:
    for path in [*(ROOT / "examples").glob("*.py"), *(ROOT / "examples/how_to").glob("*.py")]:
        shutil.copy(path, tmp_path)
    called = saga = "-"  # a saga as the page calls it, and as it is called today
    for typed, shown in SESSION.findall(page.read_text(encoding="utf-8")):
        said, _ = shown_by(typed.replace(called, saga), tmp_path)
        assert masked(said) == masked(shown), typed
        if listed := LISTED.search(shown):
            called, saga = listed[1], LISTED.findall(said)[0]


@pytest.mark.slow
def test_the_blocks_of_the_pages_are_well_typed(tmp_path: Path) -> None:
    """Each page as one module; those with a program alone are checked in ``examples/``."""
    pytest.importorskip("mypy")
    for page in PAGES:
        codes = [code for code, _ in blocks(page)]
        if not all(PROGRAM.match(code) for code in codes):
            name = f"page_{name_of(page)[:-3].replace('/', '_')}.py"
            (tmp_path / name).write_text("\n".join(codes))
    command: list[str | Path] = [sys.executable, "-m", "mypy", tmp_path]
    command += ["--config-file", ROOT / "mypy.ini"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
