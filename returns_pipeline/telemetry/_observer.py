"""`Observer`: what gets the events, and `use`, which sets it for everything."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

from returns_pipeline import telemetry
from returns_pipeline._engine import observing

__all__ = ["Observer", "use"]


class Observer(Protocol):
    """Gets an event for everything that happens in what it observes.

    >>> from returns_pipeline import StepContext, ok
    >>> from returns_pipeline.telemetry import Event, StepEnded
    >>> from returns_pipeline.testing import run
    >>> class Printer:
    ...     def on_event(self, event: Event, /) -> None:
    ...         match event:
    ...             case StepEnded(stage=stage, outcome=outcome, duration=seconds):
    ...                 print(f"{stage} {outcome} after {seconds:g} s")
    ...             case _:
    ...                 pass
    >>> async def step():
    ...     return ok(1)
    >>> run(StepContext("shop", observer=Printer()).run(step()))
    shop succeeded after 0 s
    <IOResult: <Success: 1>>
    """

    # By way of the package: a program that observes nothing does not import the records.
    def on_event(self, event: telemetry.Event, /) -> None:
        """Handle an event.

        It runs in the task that reports, in the loop's thread, and must not block. If it raises an
        exception, the pipeline continues; that is logged once for each observer and type of event.
        """


@contextmanager
def use(*observers: Observer, pipeline: str = "") -> Generator[None, None, None]:
    """Observe everything that is opened, or first read, inside.

    That is each stream that is first read inside, and each context, scope, journal, source and
    worker that is made inside: it keeps its observers until its end, also after this block. Tasks
    that are started inside belong to it. Where nothing is observed, nothing is reported, which
    costs next to nothing.

    A ``use`` inside another one adds observers. An observer that is given twice gets each event
    once.

    Args:
        observers: The observers.
        pipeline: The name of the pipeline in events of streams without a name of their own; and of
            contexts, which otherwise take that of the outermost one.

    >>> from returns_pipeline import ResultStream
    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.telemetry import WindowEmitted
    >>> from returns_pipeline.testing import Recorder, run
    >>> recorder = Recorder()
    >>> async def main():
    ...     s = ResultStream.of(from_iterable([1, 2, 3])).chunks_or_timeout(2, 9.0)
    ...     with use(recorder, pipeline="shop"):
    ...         await s.run()
    >>> run(main())
    >>> [(event.size, event.reason) for event in recorder.of(WindowEmitted)]
    [(2, 'size'), (1, 'end')]
    """
    token = observing.add_current(observers, pipeline)
    try:
        yield
    finally:
        observing.reset_current(token)
