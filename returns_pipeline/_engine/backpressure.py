"""`Backpressure`: the one event that the engine itself reports, of any stage."""

from __future__ import annotations

from returns_pipeline._engine.records import Record

__all__ = ["Backpressure"]


class Backpressure(Record, frozen=True, kw_only=True):
    """A stage has waited for its reader, which was slower.

    Windows report each of their waits. Steps with a ``concurrency`` above 1, `prefetch`, `merge`
    and other stages of several streams report at most one event a second, and the rest at the end.

    Attributes:
        pipeline: The name of the pipeline; empty if the stream has none.
        stage: The name of the stage.
        operator: The operator or method.
        waited: Seconds, since the last event of this kind.
        waits: How many waits that were.
        in_flight: The number of items that the stage held at the end of the last one.
        at: The time in seconds, on the loop's clock.

    >>> Backpressure(
    ...     pipeline="shop", stage="persist", operator="bind_async",
    ...     waited=0.5, waits=1, in_flight=8, at=9.0,
    ... ).waited
    0.5
    """

    pipeline: str
    stage: str
    operator: str
    waited: float
    waits: int
    in_flight: int
    at: float
