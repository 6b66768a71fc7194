"""Test asyncio code on virtual time: nothing sleeps, every deadline is exact, leaks are errors.

```
run(main())                      run a coroutine on virtual time, from 0 s on
await advance(5.0)               let time pass; all that is due until then has run
script("ab--c|"), timed(...)     sources that play items at given times
await timeline(source)           read a source back as [(time, item), ...]
FaultInjector, inject_everywhere fail or cancel at the n-th await point, for every n
FaultyJournal(journal, faults)   the same for a journal: before and behind each request
await check_journal(factory)     see whether a journal keeps its promises
@pytest.mark.virtual_time        the same clock for a test of pytest-asyncio
```

**The clock.** The running loop's ``time()``, and with it ``sleep()``, ``timeout()`` and
``call_later()``, is virtual:

1. It starts at 0 and stands still while anything can run.
2. When every task waits, it jumps to the next timer. Timers fire at exactly their time, those of
   one time in the order in which they were set.
3. When every task waits and there is no timer, that is a `Deadlock`.

A task that polls with ``sleep(0)`` for something that time would bring keeps the clock from
moving, and never ends.

**The world outside** (threads, sockets, child processes) takes real time. The clock stands still,
and the loop waits for real, as long as

4. a job given to ``to_thread()`` or ``run_in_executor()`` runs; this includes name lookups;
5. another thread works on a future that a task awaits. This is learned by the line of code that
   awaits it: a line whose future was once answered by ``loop.call_soon_threadsafe()`` from another
   thread is from then on waited for. While there are other threads, each line that awaits a bare
   future gets half a real second, once in the process, to be so answered. This is how aiosqlite,
   anyio and other drivers with a thread of their own work;
6. a connection that was opened here is being made, or something was sent on it and no answer has
   come. When one has come, the connection must also be silent for 20 real milliseconds. This is how
   asyncpg, HTTP and Redis clients work. Both ends of a connection in one loop are not outside;
7. a child process runs that was started by asyncio;
8. the code is inside ``with hold_clock():``, for all that cannot be seen from here, such as a
   thread that will only set an event.

Bounded: whatever gives no sign of life for ``patience`` real seconds (10) is not waited for any
more until it gives one; then rules 2 and 3 hold. Before a deadlock is reported, other threads and
open sockets get the same time to say something.
"""

from returns_pipeline.compensation.protocol import DurableJournal
from returns_pipeline.testing._check_journal import check_journal
from returns_pipeline.testing._clock import Deadlock, VirtualTimeLoop, advance, hold_clock
from returns_pipeline.testing._faults import FaultInjector, inject_everywhere
from returns_pipeline.testing._journal_faults import FaultyJournal
from returns_pipeline.testing._runner import LeakedTasks, run
from returns_pipeline.testing._sources import Scripted, ScriptError, Wait, script, timed, timeline

__all__ = [
    "Deadlock",
    "DurableJournal",
    "FaultInjector",
    "FaultyJournal",
    "LeakedTasks",
    "ScriptError",
    "Scripted",
    "VirtualTimeLoop",
    "Wait",
    "advance",
    "check_journal",
    "hold_clock",
    "inject_everywhere",
    "run",
    "script",
    "timed",
    "timeline",
]
