"""What a contributor is given agrees with the project: rooms, files, commands, links."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "returns_pipeline"
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
TOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks/README.md"])


def rows(after: str) -> list[str]:
    """Return the first cells of the first table after some words."""
    table = ARCHITECTURE.partition(after)[2].partition("\n\n|")[2].partition("\n\n")[0]
    return [line.partition(" |")[0].strip("| ") for line in table.splitlines()[2:]]


def test_the_rooms_of_the_page_are_those_of_the_import_contract_in_its_order() -> None:
    contract = TOOLS["importlinter"]["contracts"][0]
    layers = [name for row in contract["layers"] for name in re.findall(r"\w+", row)]
    there = [name for name in layers if any(PACKAGE.glob(f"{name}*"))]
    listed = [name for row in rows("## Rooms") for name in re.findall(r"`(\w+)`", row)]
    assert listed == there


def test_the_files_of_the_engine_are_those_on_the_page() -> None:
    there = {path.stem for path in (PACKAGE / "_engine").glob("*.py")} - {"__init__"}
    listed = [name for row in rows("errors; it imports") for name in re.findall(r"`(\w+)`", row)]
    assert set(listed) == there


def test_every_file_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`((?:\w+/)*_\w+)`", ARCHITECTURE))
    missing = {name for name in named if not any(PACKAGE.rglob(f"{name}.py")) and name != "_engine"}
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_is_in_the_contents_of_the_site() -> None:
    """Sphinx refuses a page to which no table of contents leads, which takes long to find out."""
    docs = ROOT / "docs"
    listed = {docs / "index.md"}
    for page in docs.rglob("*.md"):
        blocks = re.findall(
            r"^```\{toctree\}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL
        )
        for name in re.findall(r"^(?!:)\S+$", "".join(blocks), re.MULTILINE):
            found = [*page.parent.glob(f"{name}.md")]
            assert found, f"{page.name} lists {name}, which is not there"
            listed |= {*found}
    assert {*docs.rglob("*.md")} - listed == set(), "to be added to docs/index.md"


def test_a_newcomer_is_led_to_all_of_it() -> None:
    for name in ("CONTRIBUTING.md", "docs/architecture.md", "SECURITY.md"):
        assert f"]({name})" in README


def test_the_command_for_the_tests_is_the_same_everywhere() -> None:
    command = "python -m pip install uv && python -m uv run pytest"
    assert README.count(f"\n{command}\n") == 1
    assert f"  {command}\n" in CI
    assert "`python -m uv run pytest`" in CONTRIBUTING


def test_the_sessions_of_nox_are_those_that_are_named() -> None:
    nox = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    sessions = re.findall(r"@nox.session\ndef (\w+)\(", nox)
    for name in sessions:
        assert f"`{name}`" in CONTRIBUTING or f"nox -s {name}`" in CONTRIBUTING


def test_no_file_names_the_host_of_a_registry_or_a_place_of_one_machine() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("needs git and a checkout")
    hosts = r"pypi\.(org|python\.org)|pythonhosted\.org|registry\.npmjs|ghcr\.io|docker\.io"
    found = [
        name
        for name in listed.stdout.split("\0")
        if (path := ROOT / name).is_file()
        and path != Path(__file__)
        and re.search(rf"{hosts}|(?<!\w)/(work|root)/", path.read_text("utf-8", "replace"))
    ]
    assert not found
