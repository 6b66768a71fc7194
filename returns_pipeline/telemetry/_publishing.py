"""Events of publishers."""

from __future__ import annotations

from typing import ClassVar, TypeAlias

from returns_pipeline._engine.records import PartlyShown, Record

__all__ = ["PublishBegun", "PublishEnded", "PublisherEvent"]


class PublishBegun(PartlyShown, frozen=True, kw_only=True, eq=False):
    """A publisher begins to publish a message, or a window of them.

    It is reported in the task that publishes, before anything is sent.

    Attributes:
        pipeline: The name of the pipeline.
        system: The kind of the broker, such as "nats".
        destination: What it publishes to; empty if the name of the sender does not say so.
        messages: The number of messages.
        run: A number unique in the process: `PublishEnded` has the same.
        headers: An observer may add headers, which all the messages get: for the trace context.
            They take the place of those that a message was read with, not of those of an
            `Outgoing`. ``repr`` and ``==`` leave them out.
        at: The time in seconds, on the loop's clock.

    >>> PublishBegun(
    ...     pipeline="shop", system="nats", destination="invoices", messages=500, run=1,
    ...     headers={}, at=2.0,
    ... ).messages
    500
    """

    pipeline: str
    system: str
    destination: str
    messages: int
    run: int
    headers: dict[str, str]
    at: float
    left_out: ClassVar[str] = "headers"


class PublishEnded(Record, frozen=True, kw_only=True):
    """A publisher has got all answers of the broker, or has given up.

    For the other attributes see `PublishBegun`.

    Attributes:
        confirmed: How many messages the broker has confirmed.
        refused: How many it does not take.
        unconfirmed: How many it may have or not. If the messages could not be made, none of the
            three counts them.
        duration: Seconds since `PublishBegun`.
        error: The `PublishError`, or the exception; ``None`` if all were confirmed.

    >>> PublishEnded(
    ...     pipeline="shop", system="nats", destination="invoices", messages=500, run=1,
    ...     confirmed=500, refused=0, unconfirmed=0, duration=0.5, at=2.5,
    ... ).confirmed
    500
    """

    pipeline: str
    system: str
    destination: str
    messages: int
    run: int
    confirmed: int
    refused: int
    unconfirmed: int
    duration: float
    error: object = None
    at: float


PublisherEvent: TypeAlias = PublishBegun | PublishEnded
"""Events of publishers."""
