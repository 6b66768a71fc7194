"""Test asyncio code on virtual time: nothing sleeps, every deadline is exact, leaks are errors.

::

    run(main())                      run a coroutine on virtual time, from 0 s on
    await advance(5.0)               let time pass; everything that is due until then has run
    script("ab--c|"), timed(...)     sources that emit items at given times
    await timeline(source)           read a source, and return [(time, item), ...]
    FaultInjector, inject_everywhere fail or cancel at the n-th await point, for every n
    FaultyJournal(journal, faults)   the same for a journal: before and after each request
    await check_journal(factory)     the conformance suite for journals
    await check_connector(factory)   the conformance suite for drivers of brokers
    await check_publisher(factory)   the conformance suite for senders of brokers
    MemoryBroker(partitions=4)       a broker in memory, to be read by a `Source`
    Recorder()                       an observer that keeps all events of `telemetry`
    @pytest.mark.virtual_time        the same clock for a test of pytest-asyncio

**The clock.** The running loop's ``time()``, and with it ``sleep()``, ``timeout()`` and
``call_later()``, is virtual:

1. It starts at 0 and does not move while anything can run.
2. When every task waits, it jumps to the next timer. Timers fire at exactly their time, those of
   the same time in the order in which they were scheduled.
3. When every task waits and there is no timer, `Deadlock` is raised.

A task that polls with ``sleep(0)`` for something that only time would bring keeps the clock from
moving, and never ends.

``time.time()`` is real, unless ``run(..., epoch=...)`` makes it virtual.

**External work** (threads, sockets, child processes) takes real time. The clock does not move, and
the loop waits in real time, as long as

4. a job runs that ``to_thread()`` or ``run_in_executor()`` was called with; this includes name
   lookups;
5. another thread works on a future that a task awaits. The loop learns this from the line of code
   that awaits the future: once another thread has resolved a future of that line, by
   ``loop.call_soon_threadsafe()``, the loop waits for every later one. While there are other
   threads, each line that awaits a bare future gets half a real second, once in the process, to be
   resolved in this way. aiosqlite, anyio and other drivers with a thread of their own work so;
6. a connection that was opened here is being made, or something was sent on it and no answer has
   arrived. The first part of an answer is none as long as it makes no task or callback run. After
   an answer, the connection must also be silent for 20 real milliseconds. asyncpg and clients of
   HTTP and Redis work so. Connections with both ends in one loop are not external;
7. a child process runs that was started by asyncio;
8. the code is inside ``with pause_clock():``, for all work that the loop cannot see, such as a
   thread that will only set an event.

All this is bounded: the loop stops waiting for external work that is silent for ``patience`` real
seconds (10), until it sends something again; meanwhile rules 2 and 3 apply. Before a deadlock is
reported, other threads, open sockets, and signals for which a handler was installed get the same
time. A signal does not stop the clock: a task that waits for one, with a timeout, needs rule 8.
"""

from typing import TYPE_CHECKING

from returns_pipeline._engine.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from returns_pipeline.compensation.protocol import DurableJournal
    from returns_pipeline.testing._check_connector import QueueUnderTest, check_connector
    from returns_pipeline.testing._check_journal import check_journal
    from returns_pipeline.testing._check_publisher import PublisherQueue, check_publisher
    from returns_pipeline.testing._clock import Deadlock, VirtualTimeLoop, advance, pause_clock
    from returns_pipeline.testing._faults import FaultInjector, inject_everywhere
    from returns_pipeline.testing._journal_faults import FaultyJournal
    from returns_pipeline.testing._memory_broker import MemoryBroker
    from returns_pipeline.testing._recorder import Recorder
    from returns_pipeline.testing._runner import LeakedTasks, run
    from returns_pipeline.testing._sources import (
        Scripted,
        ScriptError,
        Wait,
        script,
        timed,
        timeline,
    )

__all__ = [
    "Deadlock",
    "DurableJournal",
    "FaultInjector",
    "FaultyJournal",
    "LeakedTasks",
    "MemoryBroker",
    "PublisherQueue",
    "QueueUnderTest",
    "Recorder",
    "ScriptError",
    "Scripted",
    "VirtualTimeLoop",
    "Wait",
    "advance",
    "check_connector",
    "check_journal",
    "check_publisher",
    "inject_everywhere",
    "pause_clock",
    "run",
    "script",
    "timed",
    "timeline",
]


# The conformance suites import journals and connectors; a test of a stream needs neither.
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "_check_connector": ("QueueUnderTest", "check_connector"),
            "_check_journal": ("DurableJournal", "check_journal"),
            "_check_publisher": ("PublisherQueue", "check_publisher"),
            "_clock": ("Deadlock", "VirtualTimeLoop", "advance", "pause_clock"),
            "_faults": ("FaultInjector", "inject_everywhere"),
            "_journal_faults": ("FaultyJournal",),
            "_memory_broker": ("MemoryBroker",),
            "_recorder": ("Recorder",),
            "_runner": ("LeakedTasks", "run"),
            "_sources": ("ScriptError", "Scripted", "Wait", "script", "timed", "timeline"),
        },
    )
