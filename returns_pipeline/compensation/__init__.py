"""Compensation: what is registered and not committed is undone.

An undo is registered *before* its effect. It must be idempotent, and accept that its effect never
happened: a step may be stopped between the two. The idea is the saga of Garcia-Molina and Salem
(1987); that the absence of a commit means "undo" is the presumed abort of Mohan and Lindsay (1983).

>>> from returns_pipeline.testing import run
>>> async def main() -> None:
...     async def remove(name: str) -> None:
...         print("removed", name)
...     try:
...         async with CompensationScope("upload") as scope:
...             await scope.register(remove, "a.txt")  # then write a.txt
...             await scope.register(remove, "b.txt")  # then write b.txt
...             raise OSError("disk full")
...     except OSError as error:
...         print("failed:", error)
>>> run(main())
removed b.txt
removed a.txt
failed: disk full
"""

from typing import TypeAlias

from returns_pipeline.compensation import _registry
from returns_pipeline.compensation._registry import Compensation, CompensationRegistry
from returns_pipeline.compensation._report import CompensationEntry, CompensationReport
from returns_pipeline.compensation._scope import CompensationScope
from returns_pipeline.compensation._state import ScopeState
from returns_pipeline.compensation._undo import current_key
from returns_pipeline.compensation.protocol import ActionRecord, Intent, Journal

__all__ = [
    "ActionRecord",
    "Compensation",
    "CompensationEntry",
    "CompensationRegistry",
    "CompensationReport",
    "CompensationScope",
    "Intent",
    "Journal",
    "ScopeState",
    "Upcast",
    "current_key",
]

# Assigned, for a docstring here: documentation tools look for it where users import the name.
Upcast: TypeAlias = _registry.Upcast
"""Turns the recorded arguments of one version of an undo, by name, into those of the next."""
