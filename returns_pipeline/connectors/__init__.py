"""Connectors: messages of brokers, which are acknowledged when they have been handled.

`Source` reads a broker through a `Driver`, and `Publisher` publishes to one through a `Sender`.
Each broker has a module and an extra of its name; it is imported only if you import it. For tests
there is `returns_pipeline.testing.MemoryBroker`.
"""

from typing import TypeAlias

from returns_pipeline.connectors import _message
from returns_pipeline.connectors._decode import json_decoder
from returns_pipeline.connectors._driver import Driver, Ownership
from returns_pipeline.connectors._message import DeadLetter, Message
from returns_pipeline.connectors._partitions import Partition
from returns_pipeline.connectors._publisher import Publisher, PublisherStatistics
from returns_pipeline.connectors._sender import Outgoing, OutgoingBatch, Sender, SenderConnection
from returns_pipeline.connectors._source import Source
from returns_pipeline.connectors._statistics import SourceStatistics

__all__ = [
    "DeadLetter",
    "Driver",
    "Message",
    "Outgoing",
    "OutgoingBatch",
    "Ownership",
    "Partition",
    "Position",
    "Publisher",
    "PublisherStatistics",
    "Sender",
    "SenderConnection",
    "Source",
    "SourceStatistics",
    "json_decoder",
]

# Assigned, for a docstring here: documentation tools look for it where users import the name.
Position: TypeAlias = _message.Position
"""The place of a message in its partition, where it is unique and growing."""
