"""Who observes, and how events reach them: for the rooms, which make the events.

It is decided once whether anything is observed: when a stream is first read, or an object is
opened. Where nothing is, `opened` returns ``None``, and reporting costs one ``is None`` test.
"""

from __future__ import annotations

import itertools
import logging
import math
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, Protocol, TypeAlias

from returns_pipeline._engine.logs import facts

__all__ = [
    "Observed",
    "Stage",
    "add_current",
    "enter",
    "in_effect",
    "leave",
    "next_run",
    "observed_by",
    "opened",
    "reset_current",
]

_log = logging.getLogger("returns_pipeline.telemetry")

# Numbers for runs of steps, unique in the process.
next_run: Final = itertools.count(1).__next__


class _Observer(Protocol):
    def on_event(self, event: Any, /) -> None: ...


_Report: TypeAlias = Callable[[object], None]


class Observed:
    """Observers, and the pipeline that they observe.

    Attributes:
        observers: The observers; empty if a stream only has a name so far.
        report: Passes an event to each of them. It raises nothing.
        pipeline: The name of the pipeline; empty if it has none.
    """

    __slots__ = ("_inside", "observers", "pipeline", "report")

    def __init__(self, observers: tuple[_Observer, ...], report: _Report, pipeline: str) -> None:
        # What was current where its steps ran, and what is to be current inside them.
        self._inside: tuple[Observed, Observed] | None = None
        self.observers: tuple[_Observer, ...] = observers
        self.report: _Report = report
        self.pipeline: str = pipeline

    def inside(self, outer: Observed) -> Observed:
        """Return what observes the inside of its steps where something is observed already."""
        if self._inside is None or self._inside[0] is not outer:
            found = observed_by(outer, self.observers, self.pipeline) or self
            if found.observers is outer.observers and found.pipeline == outer.pipeline:
                found = outer
            self._inside = outer, found
        return self._inside[1]

    def stage(self, name: str, operator: str) -> Stage:
        """Return one stage of the pipeline."""
        return Stage(self.report, self.pipeline, name, operator)


class Stage:
    """One stage of a stream that is observed: what its events have in common.

    Attributes:
        report: Passes an event to the observers. It raises nothing.
        pipeline: The name of the pipeline; empty if it has none.
        name: The name of the stage, unique in its stream.
        operator: The operator or method that made it.
    """

    __slots__ = (
        "_in_flight",
        "_reported_at",
        "_waited",
        "_waits",
        "name",
        "operator",
        "pipeline",
        "report",
    )

    def __init__(self, report: _Report, pipeline: str, name: str, operator: str) -> None:
        self.report: _Report = report
        self.pipeline: str = pipeline
        self.name: str = name
        self.operator: str = operator
        self._waited = 0.0
        self._waits = 0
        self._in_flight = 0
        self._reported_at = -math.inf

    def waited(self, began: float, ended: float, in_flight: int, *, per_item: bool = False) -> None:
        """Report that the stage has waited for its reader.

        Args:
            began: When, on the loop's clock.
            ended: Until when.
            in_flight: How many items it holds.
            per_item: Whether it may wait at each item: then it reports once a second.
        """
        if ended <= began:
            return
        self._waited += ended - began
        self._waits += 1
        self._in_flight = in_flight
        if not per_item or ended - self._reported_at >= 1.0:
            self.ended(ended)

    def ended(self, at: float) -> None:
        """Report what was not reported yet."""
        if not self._waits:
            return
        from returns_pipeline._engine.backpressure import Backpressure  # noqa: PLC0415  # rare

        event = Backpressure(
            pipeline=self.pipeline,
            stage=self.name,
            operator=self.operator,
            waited=self._waited,
            waits=self._waits,
            in_flight=self._in_flight,
            at=at,
        )
        self._waited, self._waits, self._reported_at = 0.0, 0, at
        self.report(event)


_current: ContextVar[Observed | None] = ContextVar("observed", default=None)


def observed_by(
    before: Observed | None, observers: tuple[_Observer, ...], pipeline: str = ""
) -> Observed | None:
    """Return what is observed if more observers, or a name, are added to it.

    An observer that is there already is not added again: it would get each event twice.

    Raises:
        TypeError: An observer has no method ``on_event``.
    """
    all_of = before.observers if before is not None else ()
    for observer in observers:
        if not callable(getattr(observer, "on_event", None)):
            raise TypeError(f"an observer has a method on_event(), {observer!r} has none")
        if not any(observer is other for other in all_of):
            all_of = (*all_of, observer)
    pipeline = pipeline or ("" if before is None else before.pipeline)
    if not (all_of or pipeline):
        return None
    if before is not None and all_of is before.observers:
        return Observed(all_of, before.report, pipeline)
    return Observed(all_of, _report_to(all_of), pipeline)


def opened(
    own: Observed | None = None, observers: tuple[_Observer, ...] = (), name: str = ""
) -> Observed | None:
    """Return who observes an object that is opened now, or a stream that is first read.

    These are the observers of ``telemetry.use``, those of ``own``, and ``observers``.

    Args:
        own: What was set for the object or stream before.
        observers: More observers.
        name: The name of the pipeline if no other was set.
    """
    current = _current.get()
    if current is None and own is None and not observers:
        return None
    added = observers if own is None else (*own.observers, *observers)
    found = observed_by(current, added, "" if own is None else own.pipeline)
    if found is None or not found.observers:
        return None
    return Observed(found.observers, found.report, found.pipeline or name)


def in_effect(own: Observed | None) -> Observed | None:
    """Return who observes what an object does at this moment, in this task.

    Args:
        own: Who has observed it since it was opened.
    """
    current = _current.get()
    if current is None:
        return own
    found = current if own is None else own.inside(current)
    return found if found.observers else None


def enter(own: Observed) -> Any:
    """Observe what is opened inside a step as the step is; return a token for `leave`."""
    current = _current.get()
    if current is not None and current is not own:
        own = own.inside(current)
    return None if own is current else _current.set(own)


def leave(token: Any) -> None:
    """Observe what was observed before `enter`."""
    if token is None:
        return
    try:
        _current.reset(token)
    except ValueError:  # the step was ended in another context, by hand
        return


def add_current(observers: tuple[_Observer, ...], pipeline: str) -> Any:
    """Observe all that is opened from here on; return a token for `reset_current`."""
    return _current.set(observed_by(_current.get(), observers, pipeline))


def reset_current(token: Any) -> None:
    """Observe what was observed before `add_current`."""
    _current.reset(token)


def _report_to(observers: tuple[_Observer, ...]) -> _Report:
    """Return one function that passes an event to all observers."""
    if len(observers) == 1:
        return _guarded(observers[0])
    reports = tuple([_guarded(observer) for observer in observers])

    def report(event: object) -> None:
        for each in reports:
            each(event)

    return report


def _guarded(observer: _Observer) -> _Report:
    """Return a function that passes an event to an observer, and logs what that raises."""
    on_event = observer.on_event

    def report(event: object) -> None:
        try:
            on_event(event)
        except Exception:  # noqa: BLE001  # watching a pipeline must not change it
            _log_once(observer, event)

    return report


# For each observer that has raised: the types of events that were logged.
_logged: Final[dict[int, tuple[Any, set[type]]]] = {}


def _log_once(observer: _Observer, event: object) -> None:
    """Log that an observer has raised, once for each type of event."""
    number = id(observer)
    if number not in _logged:
        try:
            reference: Any = weakref.ref(observer, lambda _: _logged.pop(number, None))
        except TypeError:
            reference = observer  # it is kept: its number must not become that of another one
        _logged[number] = (reference, set())
    kinds = _logged[number][1]
    if type(event) not in kinds:
        kinds.add(type(event))
        _log.exception(
            "the observer %r raised at %s: later ones are not logged",
            type(observer).__name__,
            type(event).__name__,
            extra=facts(observer=type(observer).__name__),
        )
