"""Workers: processes that read a source, run a pipeline, and end when they are asked to.

`run_worker` does what a process around a pipeline has to do: it recovers, consumes, drains on
SIGTERM, and reports. `Worker` is the same as an object, which also tells its health.
``python -m returns_pipeline.worker module:factory`` runs one, or several processes of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from returns_pipeline._engine.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from returns_pipeline.worker._health import serve_health
    from returns_pipeline.worker._report import StoppedBy, WorkerHealth, WorkerReport
    from returns_pipeline.worker._run_worker import run_worker
    from returns_pipeline.worker._worker import Worker

__all__ = ["StoppedBy", "Worker", "WorkerHealth", "WorkerReport", "run_worker", "serve_health"]

# The command line installs its signal handlers before anything else is imported.
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "_health": ("serve_health",),
            "_report": ("StoppedBy", "WorkerHealth", "WorkerReport"),
            "_run_worker": ("run_worker",),
            "_worker": ("Worker",),
        },
    )
