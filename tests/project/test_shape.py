"""The package stays easy to find one's way in: few entries, short files, small classes."""

from __future__ import annotations

import inspect
import statistics
from collections import Counter
from pathlib import Path

import returns_pipeline
from returns_pipeline import ResultStream, testing

PACKAGE = Path(returns_pipeline.__file__).parent


def lengths() -> dict[str, int]:
    """Return the lines of each module, by its path in the package."""
    return {
        path.relative_to(PACKAGE).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in PACKAGE.rglob("*.py")
    }


def test_the_top_of_the_package_has_an_entry_for_each_room_and_few_others() -> None:
    entries = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert len(entries) <= 24, sorted(entries)


def test_no_file_is_longer_than_600_lines() -> None:
    long = {name: lines for name, lines in lengths().items() if lines > 600}
    assert not long, long


def test_each_file_of_tests_has_a_name_of_its_own() -> None:
    """They are in no package: pytest would import the first one for both."""
    names = Counter(path.name for path in Path(__file__).parents[1].rglob("test_*.py"))
    assert not [name for name, count in names.items() if count > 1]


def test_half_of_the_files_have_at_most_220_lines() -> None:
    assert statistics.median(lengths().values()) <= 220


def test_no_public_class_has_more_than_40_methods() -> None:
    """`ResultStream` aside, which has one for each operator, and the loop, which has asyncio's."""
    classes = {
        thing
        for module in (returns_pipeline, testing)
        for thing in [getattr(module, name) for name in module.__all__]
        if inspect.isclass(thing) and thing.__module__.startswith("returns_pipeline.")
    } - {ResultStream, testing.VirtualTimeLoop}
    many = {
        cls.__name__: len(public)
        for cls in classes
        if len(public := [name for name in dir(cls) if not name.startswith("_")]) > 40
    }
    assert not many
