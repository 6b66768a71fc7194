"""What is released has one version, addresses for the index, and is checked before."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
WORKFLOW = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FOR_THE_INDEX: dict[str, Any] = runpy.run_path(str(ROOT / ".ci" / "for_the_index.py"))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory with the two files, which is the working directory."""
    for name in ("README.md", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_links_and_addresses_of_a_release_lead_to_its_tag(checkout: Path) -> None:
    tag = f"v{PROJECT['version']}"
    FOR_THE_INDEX["main"]("https://forge.example/owner/name", tag)
    links = re.findall(r"\]\(([^)]+)\)", (checkout / "README.md").read_text(encoding="utf-8"))
    assert len(links) > 15
    assert all(link.startswith("https://") for link in links)
    blob = f"https://forge.example/owner/name/blob/{tag}/"
    before = re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    there = [link.removeprefix(blob) for link in links if link.startswith(blob)]
    assert there == [link for link in before if not link.startswith("https:")]
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    addresses = project.pop("urls")
    assert project == PROJECT
    assert {"Documentation", "Source", "Issues", "Changelog"} <= set(addresses)
    for address in addresses.values():
        if address.startswith(blob):
            assert (ROOT / address.removeprefix(blob)).is_file()


def test_a_tag_that_is_not_the_version_is_not_released(checkout: Path) -> None:
    with pytest.raises(SystemExit, match=r"v9\.9"):
        FOR_THE_INDEX["main"]("https://forge.example/owner/name", "v9.9")
    assert (checkout / "README.md").read_bytes() == (ROOT / "README.md").read_bytes()


def test_the_version_is_in_one_place() -> None:
    version = re.escape(PROJECT["version"])
    for path in (ROOT / "returns_pipeline").rglob("*.py"):
        assert not re.search(rf"(?<![\d.]){version}(?![\d.])", path.read_text("utf-8")), path
    assert "version" not in PROJECT.get("dynamic", ())


def test_the_workflow_tries_every_python_and_keeps_no_password() -> None:
    assert '["3.11", "3.12", "3.13", "3.14", "3.15"]' in WORKFLOW
    assert "id-token: write" in WORKFLOW
    assert not re.search(r"password|token:(?! write)|secrets\.", WORKFLOW.partition("\nname:")[2])
    for script in re.findall(r"\.ci/[a-z_.]+", WORKFLOW):
        assert (ROOT / script).is_file()
    assert "check_distributions" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_metadata_says_what_an_index_shows() -> None:
    assert PROJECT["license"] == "MIT"
    assert PROJECT["authors"]
    assert PROJECT["keywords"] == sorted(PROJECT["keywords"])
    assert not [row for row in PROJECT["classifiers"] if row.startswith("License ::")]
    for minor in (11, 12, 13):
        assert f"Programming Language :: Python :: 3.{minor}" in PROJECT["classifiers"]


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("```python\nprint(1)\n```\n\n```text\n1\n```\n", "1 blocks print"),
        ("```python\nprint(1)\n```\n\n```text\n2\n```\n", "printed\n1\nnot\n2"),
        ("no code\n", "has no blocks"),
    ],
)
def test_a_page_is_tried_with_the_released_wheel(page: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(page)
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "try_readme.py", "page.md"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said in done.stdout + done.stderr
    assert (done.returncode == 0) == said.startswith("1 blocks")
