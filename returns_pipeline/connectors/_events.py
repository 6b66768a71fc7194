"""The events of sources and publishers, for their observers."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

from returns_pipeline import telemetry
from returns_pipeline._engine import observing
from returns_pipeline._engine.observing import Observed
from returns_pipeline.connectors._ledger import Ledger
from returns_pipeline.connectors._message import Message

__all__ = ["PublishEvents", "SourceEvents"]


class SourceEvents:
    """Reports what happens between a source and its broker, for each batch.

    Args:
        observed: Who observes it.
        name: The name of the driver: the kind of the broker, and what is read.
        ledger: What is held.
    """

    def __init__(self, observed: Observed, name: str, ledger: Ledger) -> None:
        self._observed = observed
        self._system, _, self._source = name.partition(" ")
        self._ledger = ledger
        self._redelivered = ledger.redelivered  # that were reported
        self._lost_at: float | None = None  # when the connection was lost
        self._attempts = 0  # to connect, since then

    def fetched(self, messages: Sequence[Message[bytes]], began: float) -> None:
        """Report messages that were accepted."""
        at = self._now()
        fetched = telemetry.Fetched(
            pipeline=self._observed.pipeline,
            system=self._system,
            source=self._source,
            messages=len(messages),
            in_flight=self._ledger.buffered + self._ledger.in_flight(),
            waited=at - began,
            at=at,
        )
        self._observed.report(fetched)
        # Some brokers tell that they deliver a message again; else it is known by what is held.
        told = sum([message.deliveries > 1 for message in messages])
        recognised = self._ledger.redelivered - self._redelivered
        self._redelivered = self._ledger.redelivered
        if count := max(told, recognised):
            again = telemetry.Redelivered(
                pipeline=self._observed.pipeline,
                system=self._system,
                source=self._source,
                messages=count,
                at=at,
            )
            self._observed.report(again)

    def acknowledged(self, messages: int, began: float) -> None:
        """Report an acknowledgement that the broker has confirmed."""
        at = self._now()
        event = telemetry.Acknowledged(
            pipeline=self._observed.pipeline,
            system=self._system,
            source=self._source,
            messages=messages,
            duration=at - began,
            at=at,
        )
        self._observed.report(event)

    def lag(self, partitions: Mapping[str, int]) -> None:
        """Report what the broker has of partitions that was not fetched."""
        at = self._now()
        oldest = self._ledger.oldest()
        for partition, lag in partitions.items():
            event = telemetry.LagMeasured(
                pipeline=self._observed.pipeline,
                system=self._system,
                source=self._source,
                partition=partition,
                lag=lag,
                oldest=0.0 if oldest is None else at - oldest,
                at=at,
            )
            self._observed.report(event)

    def lost(self, error: BaseException) -> None:
        """Report that the connection was lost, or could not be made, once until it is made."""
        self._attempts += 1
        if self._lost_at is not None:
            return
        self._lost_at = self._now()
        event = telemetry.Disconnected(
            pipeline=self._observed.pipeline,
            system=self._system,
            source=self._source,
            error=error,
            at=self._lost_at,
        )
        self._observed.report(event)

    def connected(self) -> None:
        """Report that the connection was made again, if it was lost."""
        if self._lost_at is None:
            return
        at = self._now()
        event = telemetry.Reconnected(
            pipeline=self._observed.pipeline,
            system=self._system,
            source=self._source,
            attempts=self._attempts,
            duration=at - self._lost_at,
            at=at,
        )
        self._lost_at, self._attempts = None, 0
        self._observed.report(event)

    def revoked(self, partitions: Collection[str], began: float, *, settled: bool) -> None:
        """Report that partitions are given up."""
        at = self._now()
        event = telemetry.Revoked(
            pipeline=self._observed.pipeline,
            system=self._system,
            source=self._source,
            partitions=tuple(sorted(partitions)),
            settled=settled,
            duration=at - began,
            at=at,
        )
        self._observed.report(event)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


class PublishEvents:
    """Reports that a message or a window is published.

    Args:
        observed: Who observes it.
        name: The name of the sender: the kind of the broker, and what is written to.
        messages: How many are published.

    Attributes:
        headers: What observers have added, for all messages.
    """

    def __init__(self, observed: Observed, name: str, messages: int) -> None:
        self._observed = observed
        system, _, destination = name.partition(" ")
        self._begun = telemetry.PublishBegun(
            pipeline=observed.pipeline,
            system=system,
            destination=destination,
            messages=messages,
            run=observing.next_run(),
            headers={},
            at=asyncio.get_running_loop().time(),
        )
        self._answers = 0, 0, 0
        observed.report(self._begun)
        self.headers: dict[str, str] = self._begun.headers

    def answered(self, confirmed: int, refused: int, unconfirmed: int) -> None:
        """Record what came of the messages."""
        self._answers = confirmed, refused, unconfirmed

    def ended(self, error: object) -> None:
        """Report the end. To be called in the same task."""
        begun, at = self._begun, asyncio.get_running_loop().time()
        confirmed, refused, unconfirmed = self._answers
        event = telemetry.PublishEnded(
            pipeline=begun.pipeline,
            system=begun.system,
            destination=begun.destination,
            messages=begun.messages,
            run=begun.run,
            confirmed=confirmed,
            refused=refused,
            unconfirmed=unconfirmed,
            duration=at - begun.at,
            error=error,
            at=at,
        )
        self._observed.report(event)
