"""Sources: streams of lists, queues, callbacks, threads and other things that are not streams."""

from returns_pipeline.sources._channel import Channel, ChannelStatistics
from returns_pipeline.sources._iterable import from_iterable
from returns_pipeline.sources._iterate import SyncIterator, iterate
from returns_pipeline.sources._queue import AsyncQueue, from_queue
from returns_pipeline.sources._restarting import restarting
from returns_pipeline.sources._thread import from_thread
from returns_pipeline.sources._ticks import ticks

__all__ = [
    "AsyncQueue",
    "Channel",
    "ChannelStatistics",
    "SyncIterator",
    "from_iterable",
    "from_queue",
    "from_thread",
    "iterate",
    "restarting",
    "ticks",
]
