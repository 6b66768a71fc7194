"""`Publisher`: what it sends, what it says of it, and what becomes of lost connections."""

from __future__ import annotations

import asyncio
import pickle
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Success

from returns_pipeline import ResultStream
from returns_pipeline.connectors import (
    DeadLetter,
    Message,
    Outgoing,
    OutgoingBatch,
    Publisher,
    PublisherStatistics,
    Source,
)
from returns_pipeline.errors import ConnectionLost, InvalidArgument, PublishError
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.sources import from_iterable
from returns_pipeline.testing import MemoryBroker, run

if TYPE_CHECKING:
    from collections.abc import Callable

ONCE = RetryPolicy(attempts=1)


@dataclass
class Order:
    seats: int


class Connection:
    """Plays a script: for each call how many of the messages it answers, and how it ends."""

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        self.is_closed = False

    async def send(self, batch: OutgoingBatch, /) -> None:
        self.sender.running += 1
        self.sender.most_running = max(self.sender.running, self.sender.most_running)
        try:
            await self._send(batch)
        finally:
            self.sender.running -= 1

    async def _send(self, batch: OutgoingBatch) -> None:
        assert not self.is_closed, "it was used after it was closed"
        await asyncio.sleep(self.sender.latency)
        play = self.sender.script.pop(0) if self.sender.script else None
        unanswered = list(batch.unanswered())
        self.sender.sent.append([message for _, message in unanswered])
        if play is not None:
            play(batch)
        else:
            batch.confirm_all()

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.is_closed = True
        self.sender.closed += 1


class Sender:
    name = "scripted"

    def __init__(
        self,
        *script: Callable[[OutgoingBatch], object] | None,
        deduplicates: bool = False,
        latency: float = 0.0,
        refused: int = 0,
        silence: float = 0.0,
    ) -> None:
        self.script = list(script)
        self.deduplicates = deduplicates
        self.latency = latency
        self.refused = refused
        self.silence = silence  # seconds until a connection is there, or refused
        self.sent: list[list[Outgoing[bytes]]] = []
        self.opened: list[float] = []
        self.closed = 0
        self.running = 0
        self.most_running = 0

    async def connect(self) -> Connection:
        self.opened.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.silence)
        if self.refused:
            self.refused -= 1
            raise ConnectionLost(self.name, "refused")
        return Connection(self)

    def values(self) -> list[list[bytes]]:
        return [[message.value for message in messages] for messages in self.sent]


def lost(confirmed: int = 0) -> Callable[[OutgoingBatch], None]:
    def play(batch: OutgoingBatch) -> None:
        for number, _ in list(batch.unanswered())[:confirmed]:
            batch.confirm(number)
        raise ConnectionLost("scripted", "lost")

    return play


def test_values_are_written_as_json_and_bytes_are_left_as_they_are() -> None:
    async def main() -> None:
        sender = Sender()
        async with Publisher(sender) as publisher:
            for value in (Order(3), b"\x00raw", "text", {"a": [1, None]}):
                assert await publisher.publish(value) == Success(1)
        assert sender.values() == [[b'{"seats":3}'], [b"\x00raw"], [b'"text"'], [b'{"a":[1,null]}']]
        sender = Sender()
        async with Publisher(sender, encode=Order) as orders:
            await orders.publish(Order(4))

        def encode(number: int) -> bytes:
            return b"%d" % number

        async with Publisher(sender, encode=encode) as written:
            await written.publish(5)
        async with Publisher(sender, encode=bytes) as raw:
            await raw.publish(b"6")
        assert sender.values() == [[b'{"seats":4}'], [b"5"], [b"6"]]

    run(main())


def test_an_exception_of_encode_is_raised_and_nothing_is_sent() -> None:
    async def main() -> None:
        sender = Sender()
        async with Publisher(sender) as publisher:
            with pytest.raises(TypeError, match="object"):
                await publisher.publish_all([1, object()])
            assert await publisher.publish(2) == Success(1)
        assert sender.values() == [[b"2"]]

    run(main())


WRONG: list[tuple[Any, str]] = [
    (Outgoing("text"), "the encoded value must be bytes, not 'text'"),
    (Outgoing(b"a", key="k"), "key must be bytes, not 'k'"),  # type: ignore[arg-type]
    (Outgoing(b"a", partition="0"), "partition must be a number, not '0'"),  # type: ignore[arg-type]
    (Outgoing(b"a", id=7), "id must be a text, not 7"),  # type: ignore[arg-type]
    (Outgoing(b"a", destination=b"d"), "destination must be a text, not b'd'"),  # type: ignore[arg-type]
    (Outgoing(b"a", headers={"n": 1}), "a header must be a text with a name, not {'n': 1}"),  # type: ignore[dict-item]
    (Outgoing(b"a", headers={"n": "\udc80"}), "surrogates not allowed"),
]


@pytest.mark.parametrize(("wrong", "why"), WRONG)
def test_what_no_client_can_send_is_refused_and_other_calls_are_not_disturbed(
    wrong: Any, why: str
) -> None:
    def as_it_is(value: Any) -> Any:
        return value

    async def main() -> None:
        sender = Sender()
        async with Publisher(sender, encode=as_it_is) as publisher:
            await publisher.publish(b"1")
            with pytest.raises((TypeError, UnicodeEncodeError), match=re.escape(why)):
                await publisher.publish_all([b"2", wrong])
            await publisher.publish(b"3")
            assert publisher.statistics() == PublisherStatistics(2, 0, 0, 1)
        assert sender.values() == [[b"1"], [b"3"]]

    run(main())


@pytest.mark.parametrize("wrong", [b"payload", "text", {"seats": 3}])
def test_a_single_value_is_not_a_window(wrong: Any) -> None:
    async def main() -> None:
        sender = Sender()
        async with Publisher(sender) as publisher:
            with pytest.raises(TypeError, match=r"takes a list of values, not .*: use publish\(\)"):
                await publisher.publish_all(wrong)
            assert await publisher.publish_all([]) == Success(0)
            made: Any = (number for number in range(2))
            assert await publisher.publish_all(made) == Success(2)
        assert sender.values() == [[b"0", b"1"]]

    run(main())


def test_a_dead_letter_is_published_as_it_came_with_its_error_and_its_place() -> None:
    async def main() -> None:
        sender = Sender()
        raw = Message(b"{oops", "orders-1", (42, 7), headers={"n": "1"}, key=b"k")
        read = raw.with_value(Order(3))
        async with Publisher(sender, encode=Order) as publisher:
            await publisher.publish(DeadLetter(ValueError("no\n  such\tseat"), raw))
            await publisher.publish(DeadLetter("sold out", read))
        facts = {"n": "1", "read-from": "orders-1 42.7"}
        assert sender.sent == [
            [Outgoing(b"{oops", b"k", facts | {"error": "ValueError: no such seat"})],
            [Outgoing(b'{"seats":3}', b"k", facts | {"error": "sold out"})],
        ]

    run(main())


def test_a_message_that_was_read_is_published_with_its_key_and_headers() -> None:
    async def main() -> None:
        sender = Sender()
        read = Message(Order(3), "p", (7,), headers={"n": "1"}, key=b"k")
        async with Publisher(sender, encode=Order) as publisher:
            await publisher.publish_all(
                [read, Outgoing(Order(4), partition=2, destination="there")]
            )
        assert sender.sent == [
            [
                Outgoing(b'{"seats":3}', key=b"k", headers={"n": "1"}),
                Outgoing(b'{"seats":4}', partition=2, destination="there"),
            ]
        ]

    run(main())


def test_ids_are_headers_where_the_broker_does_not_know_them() -> None:
    async def main() -> None:
        sender = Sender()
        async with Publisher(sender) as publisher:
            await publisher.publish_all([b"a", Outgoing(b"b", headers={"n": "1"}, id="b-1")])
        (first, second), *_ = sender.sent
        assert (first.id, first.headers) == (None, {})
        assert (second.id, second.headers) == ("b-1", {"n": "1", "message-id": "b-1"})

    run(main())


def test_every_attempt_has_the_same_ids_and_each_message_its_own() -> None:
    async def main() -> None:
        sender = Sender(lost(), lost(1), deduplicates=True)
        async with Publisher(sender) as publisher, Publisher(sender) as another:
            assert await publisher.publish_all([b"a", b"b", b"c"]) == Success(3)
            await another.publish_all([b"d"])
        assert sender.values() == [[b"a", b"b", b"c"]] * 2 + [[b"b", b"c"], [b"d"]]
        ids = {(message.value, message.id) for messages in sender.sent for message in messages}
        assert len(ids) == 4
        assert len({number for _, number in ids}) == 4
        assert None not in {number for _, number in ids}

    run(main())


def test_only_what_was_not_confirmed_is_sent_again_after_a_wait() -> None:
    async def main() -> None:
        sender = Sender(lost(2), lost(0), lost(1))
        wait = RetryPolicy(attempts=10, wait=5.0)
        async with Publisher(sender, reconnect=wait) as publisher:
            assert await publisher.publish_all([b"a", b"b", b"c", b"d"]) == Success(4)
            assert publisher.statistics() == PublisherStatistics(4, 0, 0, 4)
        assert sender.values() == [[b"a", b"b", b"c", b"d"], [b"c", b"d"], [b"c", b"d"], [b"d"]]
        assert sender.opened == [0.0, 5.0, 10.0, 15.0]
        assert sender.closed == 4

    run(main())


def test_a_failure_names_what_was_refused_and_what_may_have_arrived() -> None:
    def play(batch: OutgoingBatch) -> None:
        batch.confirm(0)
        batch.refuse(2, "too large")
        raise ConnectionLost("scripted", "lost")

    async def main() -> None:
        async with Publisher(Sender(play), reconnect=ONCE) as publisher:
            error = (await publisher.publish_all([b"a", b"b", b"c", b"d"])).failure()
            assert error == PublishError("scripted", "too large", 4, (2,), (1, 3))
            assert str(error) == "scripted: 1 of 4 messages were confirmed: too large"
            assert pickle.loads(pickle.dumps(error)) == error
            assert publisher.statistics() == PublisherStatistics(1, 1, 2, 1)
            # What was refused does not come again: the next call is not held up.
            assert await publisher.publish(b"e") == Success(1)

    run(main())


def test_what_the_broker_refuses_is_not_sent_again() -> None:
    async def main() -> None:
        def play(batch: OutgoingBatch) -> None:
            batch.refuse(0, "no")
            lost(1)(batch)

        sender = Sender(play, lost(0))
        async with Publisher(sender) as publisher:
            error = (await publisher.publish_all([b"a", b"b", b"c"])).failure()
            assert (error.reason, error.refused, error.unconfirmed) == ("no", (0,), ())
        assert sender.values() == [[b"a", b"b", b"c"], [b"c"], [b"c"]]

    run(main())


def test_a_connection_that_is_lost_after_the_last_answer_costs_nothing() -> None:
    async def main() -> None:
        sender = Sender(lost(2))
        async with Publisher(sender) as publisher:
            assert await publisher.publish_all([b"a", b"b"]) == Success(2)
            assert len(sender.opened) == 1

    run(main())


def test_a_sender_that_forgets_a_message_does_not_look_like_success() -> None:
    async def main() -> None:
        async with Publisher(Sender(lambda batch: batch.confirm(0))) as publisher:
            error = (await publisher.publish_all([b"a", b"b"])).failure()
            assert error.unconfirmed == (1,)

    run(main())


def test_attempts_end_when_the_policy_says_so() -> None:
    async def main() -> None:
        sender = Sender(refused=10**9)
        loop = asyncio.get_running_loop()
        async with Publisher(sender) as publisher:
            error = (await publisher.publish(b"a")).failure()
            assert (error.reason, error.unconfirmed) == ("refused", (0,))
            assert loop.time() <= 30.0
            assert len(sender.opened) > 3
            began = len(sender.opened)
            assert not isinstance(await publisher.publish(b"b"), Success)
            assert len(sender.opened) > began + 3

    run(main())


def test_calls_at_the_same_time_share_one_connection_and_make_one_after_it_was_lost() -> None:
    async def main() -> None:
        sender = Sender(*[lost()] * 3, latency=1.0)
        async with Publisher(sender, reconnect=RetryPolicy(attempts=5, wait=1.0)) as publisher:
            calls = [publisher.publish(b"%d" % n) for n in range(3)]
            assert await asyncio.gather(*calls) == [Success(1)] * 3
        assert sender.most_running == 3
        assert len(sender.opened) == 2
        assert sender.closed == 2

    run(main())


def test_a_broker_that_does_not_answer_counts_as_lost() -> None:
    async def main() -> None:
        sender = Sender(latency=100.0)
        async with Publisher(sender, reconnect=ONCE, request_timeout=7) as publisher:
            error = (await publisher.publish(b"a")).failure()
            assert error.reason == "send() took longer than 7 s"
            assert asyncio.get_running_loop().time() == 7.0
            assert sender.closed == 1

    run(main())


def test_a_cancelled_call_leaves_the_connection_to_others() -> None:
    async def main() -> None:
        sender = Sender(latency=2.0)
        async with Publisher(sender) as publisher:
            call = asyncio.create_task(publisher.publish_all([b"a", b"b"]))
            other = asyncio.create_task(publisher.publish(b"c"))
            await asyncio.sleep(1)
            call.cancel()
            assert await other == Success(1)
            assert call.cancelled()
            assert publisher.statistics() == PublisherStatistics(1, 0, 2, 1)

    run(main())


def test_a_call_that_is_under_way_at_the_end_of_the_block_fails() -> None:
    async def main() -> None:
        sender = Sender(lost(), lost(), latency=1.0)
        async with Publisher(sender, reconnect=RetryPolicy(attempts=9, wait=3.0)) as publisher:
            waiting = asyncio.create_task(publisher.publish(b"a"))
            await asyncio.sleep(2)
        error = (await waiting).failure()
        assert error.reason == "the publisher was closed"
        assert error.unconfirmed == (0,)
        assert len(sender.opened) == 1
        with pytest.raises(RuntimeError, match="inside of"):
            await publisher.publish(b"b")
        with pytest.raises(RuntimeError, match="once"):
            await publisher.__aenter__()

    run(main())


def test_a_broker_that_is_silent_holds_up_all_calls_at_the_same_time() -> None:
    async def main() -> None:
        sender = Sender(silence=10**6)
        loop = asyncio.get_running_loop()
        async with Publisher(sender, request_timeout=10, reconnect=ONCE) as publisher:
            done = await asyncio.gather(*[publisher.publish(b"a") for _ in range(50)])
            assert {each.failure().reason for each in done} == {"connect() took longer than 10 s"}
            assert loop.time() == 10.0
            assert len(sender.opened) == 1
            # Nobody waits for this attempt any more, or hears of its failure.
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(publisher.publish(b"a"), 5)
            await asyncio.sleep(20)
            sender.silence = 1.0
            first = asyncio.create_task(publisher.publish(b"b"))
            await asyncio.sleep(0.5)
            second = asyncio.create_task(publisher.publish(b"c"))
            await asyncio.sleep(0)
            first.cancel()  # the other one waits for the same connection
            assert await second == Success(1)
            assert len(sender.opened) == 3
        assert sender.closed == 1

    run(main())


def test_the_end_of_the_block_ends_what_is_connecting_or_waits_for_that() -> None:
    async def main() -> None:
        sender = Sender(silence=10**6)
        loop = asyncio.get_running_loop()
        async with Publisher(sender) as publisher:
            connecting = asyncio.create_task(publisher.publish(b"a"))
            await asyncio.sleep(1)
        assert (await connecting).failure().reason == "the publisher was closed"
        refusing = RetryPolicy(attempts=9, wait=1000.0)
        async with Publisher(Sender(refused=9), reconnect=refusing) as publisher:
            waiting = asyncio.create_task(publisher.publish(b"a"))
            await asyncio.sleep(1)
        assert (await waiting).failure().reason == "the publisher was closed"
        assert loop.time() == 2.0

    run(main())


def test_another_exception_propagates_and_the_next_call_has_a_new_connection() -> None:
    class Denied(Exception): ...

    def deny(_: OutgoingBatch) -> None:
        raise Denied

    async def main() -> None:
        sender = Sender(deny)
        async with Publisher(sender) as publisher:
            with pytest.raises(Denied):
                await publisher.publish(b"a")
            assert await publisher.publish(b"b") == Success(1)
        assert len(sender.opened) == 2

    run(main())


def test_from_one_broker_to_another_what_is_acknowledged_was_confirmed() -> None:
    async def main() -> None:
        inbox, outbox = MemoryBroker(2), MemoryBroker(2)
        inbox.publish(*[b"%d" % n for n in range(100)])

        async def meddle() -> None:
            for _ in range(20):
                await asyncio.sleep(0.2)
                outbox.disconnect()
                seen = {m.value for log in outbox._published.values() for m in log}
                acknowledged = 100 - inbox.backlog("group")
                assert len(seen) >= acknowledged

        async with (
            Source(inbox.driver("group"), decode=int, max_in_flight=20) as source,
            Publisher(outbox.sender(), encode=int) as publisher,
        ):
            asyncio.get_running_loop().call_later(60, source.drain)
            meddling = asyncio.create_task(meddle())
            numbers = source.messages().map_async(slowly)
            windows = numbers.chunks_or_timeout(7, 1.0).bind_async(publisher.publish_all)
            _ = (await windows.run()).unwrap()
            await meddling
        assert inbox.backlog("group") == 0
        found = sorted(int(m.value) for log in outbox._published.values() for m in log)
        assert found == list(range(100))

    async def slowly(message: Message[int]) -> int:
        await asyncio.sleep(0.05)
        return message.value

    run(main())


def test_publishing_is_a_step_of_a_stream() -> None:
    async def main() -> None:
        broker = MemoryBroker()
        async with Publisher(broker.sender(), encode=int) as publisher:
            numbers = ResultStream.of(from_iterable(range(20)))
            steps = numbers.bind_async(publisher.publish, concurrency=4)
            assert (await steps.fold(0, lambda total, n: total + n)).unwrap()._inner_value == 20
        assert broker.backlog("group") == 20

    run(main())


def test_a_broker_in_memory_refuses_what_it_does_not_have() -> None:
    async def main() -> None:
        async with Publisher(MemoryBroker(2).sender()) as publisher:
            outcome = await publisher.publish_all(
                [b"a", Outgoing(b"b", partition=2), Outgoing(b"c", destination="x"), b"d"]
            )
            assert outcome.failure().refused == (1, 2)
            assert outcome.failure().reason == "there is no partition 2"

    run(main())


def test_bad_arguments_are_refused_at_the_call() -> None:
    broker = MemoryBroker()
    wrong: Any = broker.driver("group")
    with pytest.raises(TypeError, match="sender"):
        Publisher(wrong)
    with pytest.raises(InvalidArgument, match="request_timeout"):
        Publisher(broker.sender(), request_timeout=0)
    wrong = 3
    with pytest.raises(InvalidArgument, match="RetryPolicy"):
        Publisher(broker.sender(), reconnect=wrong)

    async def encode(value: int) -> bytes:
        return b""

    wrong = encode
    with pytest.raises(TypeError, match="map_async"):
        Publisher(broker.sender(), encode=wrong)
