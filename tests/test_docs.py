"""The examples in docstrings run and give what they say."""

from __future__ import annotations

import doctest
import pkgutil
from importlib import import_module

import pytest

import returns_pipeline

# The plugins import the tools they plug into, which may be absent.
MODULES = ["returns_pipeline"] + [
    module.name
    for module in pkgutil.walk_packages(returns_pipeline.__path__, "returns_pipeline.")
    if module.name not in {"returns_pipeline.mypy_plugin", "returns_pipeline.pytest_plugin"}
]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_run(module: str) -> None:
    failed, _ = doctest.testmod(import_module(module), optionflags=doctest.FAIL_FAST)
    assert not failed


def test_what_users_hold_has_an_example() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    shown = {
        module
        for module in MODULES
        if any(test.examples for test in finder.find(import_module(module)))
    }
    assert shown >= {
        "returns_pipeline.compensation",
        "returns_pipeline.context",
        "returns_pipeline.pipe",
        "returns_pipeline.result_stream",
        "returns_pipeline.results",
        "returns_pipeline.saga",
        "returns_pipeline.windows",
    }
