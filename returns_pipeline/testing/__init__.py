"""Test asyncio code on virtual time: nothing sleeps, every deadline is exact, leaks are errors."""

from returns_pipeline.testing.clock import Deadlock, LeakedTasks, VirtualTimeLoop, advance, run
from returns_pipeline.testing.faults import FaultInjector, inject_everywhere
from returns_pipeline.testing.sources import Scripted, ScriptError, Wait, script, timed, timeline

__all__ = [
    "Deadlock",
    "FaultInjector",
    "LeakedTasks",
    "ScriptError",
    "Scripted",
    "VirtualTimeLoop",
    "Wait",
    "advance",
    "inject_everywhere",
    "run",
    "script",
    "timed",
    "timeline",
]
