"""`connectors.nats`: the conformance suite, lost connections, and consumers of others."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

nats = pytest.importorskip("nats", reason="needs the package nats-py")

from connecting import SOON, Proxied, within
from servers import absent
from stuck_sink import check_stuck_sink

from returns_pipeline.connectors import Outgoing, Publisher, Source
from returns_pipeline.connectors.nats import NatsStream, _takes  # pyright: ignore[reportPrivateUsage]
from returns_pipeline.errors import ConnectionLost, InvalidArgument
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.testing import check_connector, check_publisher
from returns_pipeline.testing._connector_harness import NoOwnership

if TYPE_CHECKING:
    from collections.abc import Sequence

    from returns_pipeline.connectors import Driver, Sender

SERVER = os.environ.get("RETURNS_PIPELINE_NATS", "127.0.0.1:4222")


class Stream(Proxied):
    """A stream of its own on the server, reached through a proxy."""

    def __init__(self) -> None:
        super().__init__(SERVER)

    async def create(self, **options: Any) -> Stream:
        try:
            self.client = await nats.connect(
                f"nats://{SERVER}", connect_timeout=5, allow_reconnect=False
            )
        except (OSError, nats.errors.Error) as error:
            absent(f"NATS at {SERVER}: {error}")
        self.jetstream = self.client.jetstream()
        await self.jetstream.add_stream(name=self.name, subjects=[f"{self.name}.>"])
        address = f"nats://{await self.open_proxy()}"
        chosen: dict[str, Any] = {"ack_wait": 1.0} | options
        self.stream = NatsStream(address, self.name, **chosen)
        return self

    def driver(self) -> Driver:
        return self.stream.driver("group")

    def sender(self) -> Sender:
        return self.stream.sender(f"{self.name}.x")

    async def publish(self, values: Sequence[bytes], /) -> None:
        for value in values:
            await self.jetstream.publish(f"{self.name}.x", value)

    async def remove(self) -> None:
        await self.jetstream.delete_stream(self.name)
        await self.client.close()
        await self.close_proxy()


@pytest.mark.slow
def test_a_stream_keeps_the_contract() -> None:
    async def main() -> None:
        await check_connector(
            lambda: Stream().create(), disconnect=Stream.disconnect, concurrency=10
        )

    asyncio.run(main())


@pytest.mark.slow
def test_publishing_to_a_stream_keeps_the_contract() -> None:
    async def main() -> None:
        await check_publisher(
            lambda: Stream().create(), disconnect=Stream.disconnect, quiet=0.3, concurrency=10
        )

    asyncio.run(main())


def test_a_message_has_its_headers_its_time_and_its_number() -> None:
    async def main() -> None:
        stream = await Stream().create()
        await stream.jetstream.publish(f"{stream.name}.x", b"a", headers={"n": "1"})
        async with Source(stream.driver()) as source:
            message = (await anext(source)).unwrap()
            assert (message.value, message.partition, message.position) == (
                b"a",
                stream.name,
                (1,),
            )
            assert message.headers["n"] == "1"
            assert source.statistics().lag == {stream.name: 0}
            assert (message.timestamp or 0) > 1_700_000_000
        await stream.remove()

    within(main())


def test_a_process_that_was_suspended_does_not_take_its_consumer_for_deleted() -> None:
    """The clock shows a later time, and what the server has answered is not read yet."""

    async def main() -> None:
        stream = await Stream().create()
        driver = stream.driver()
        await driver.open(NoOwnership())
        fetching = asyncio.ensure_future(driver.fetch(5))
        await asyncio.sleep(0.1)  # its request is open
        fetching.cancel()
        await asyncio.wait({fetching})
        loop = asyncio.get_running_loop()
        real = loop.time
        loop.time = lambda: real() + 20  # type: ignore[method-assign]
        await stream.publish([b"1"])
        assert [message.value for message in await driver.fetch(5)] == [b"1"]
        await driver.close()
        await stream.remove()

    within(main())


def test_a_request_that_the_server_forgets_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("returns_pipeline.connectors.nats._WAIT", 0.1)

    async def main() -> None:
        stream = await Stream().create()
        driver: Any = stream.driver()
        real, forgotten = driver._request, [1]

        async def request(client: Any, room: int) -> None:
            await real(client, room)
            if forgotten:
                forgotten.clear()
                await asyncio.sleep(0.3)  # the server has answered that it ends
                driver._wanted = room

        driver._request = request
        async with Source(driver) as source:
            await asyncio.sleep(1)
            await stream.publish([b"1"])
            assert (await anext(source)).unwrap().value == b"1"
            assert source.statistics().connections == 1
        await stream.remove()

    within(main())


def test_a_stream_that_is_full_refuses_and_the_connection_stays() -> None:
    async def main() -> None:
        stream = await Stream().create()
        limits: dict[str, Any] = {"max_msgs": 3, "max_msgs_per_subject": 2, "discard": "new"}
        config = nats.js.api.StreamConfig(
            stream.name, subjects=[f"{stream.name}.>"], discard_new_per_subject=True, **limits
        )
        await stream.jetstream.update_stream(config)
        async with Publisher(stream.sender(), encode=bytes) as publisher:
            error = (await publisher.publish_all([b"1", b"2", b"3"])).failure()
            assert (error.refused, error.unconfirmed) == ((2,), ())
            assert error.reason == "maximum messages per subject exceeded (10077)"
            other = Outgoing(b"other", destination=f"{stream.name}.y")
            assert (await publisher.publish(other)).unwrap() == 1
            error = (await publisher.publish(other)).failure()
            assert error.reason == "maximum messages exceeded (10077)"
            await stream.jetstream.purge_stream(stream.name)
            assert (await publisher.publish(b"4")).unwrap() == 1
            assert publisher.statistics().connections == 1
        await stream.remove()

    within(main())


def test_a_subject_may_be_chosen() -> None:
    async def main() -> None:
        stream = await Stream().create()
        narrow = NatsStream(f"nats://{SERVER}", stream.name, subject=f"{stream.name}.b.*")
        for subject in ("a.1", "b.1", "a.2", "b.2"):
            await stream.jetstream.publish(f"{stream.name}.{subject}", subject.encode())
        async with Source(narrow.driver("narrow")) as source:
            found = [(await anext(source)).unwrap().value for _ in range(2)]
        assert found == [b"b.1", b"b.2"]
        await stream.remove()

    within(main())


def test_a_consumer_that_is_there_is_used_with_its_own_times() -> None:
    async def main() -> None:
        stream = await Stream().create()
        config = nats.js.api.ConsumerConfig(durable_name="group", ack_wait=6, max_ack_pending=5)
        await stream.jetstream.add_consumer(stream.name, config)
        driver = stream.driver()
        async with Source(driver, max_in_flight=5) as source:
            await stream.publish([b"a"])
            _ = await anext(source)
            assert driver.keep_alive == 2
        await stream.remove()

    within(main())


def test_a_window_larger_than_the_credit_of_the_consumer_is_emitted() -> None:
    async def main() -> None:
        stream = await Stream().create()
        config = nats.js.api.ConsumerConfig(durable_name="group", ack_wait=60, max_ack_pending=5)
        await stream.jetstream.add_consumer(stream.name, config)
        await stream.publish([b"a"] * 12)
        sizes: list[int] = []
        async with Source(stream.driver()) as source:

            def look(window: list[Any]) -> None:
                sizes.append(len(window))
                if sum(sizes) == 10:
                    source.drain()

            _ = await source.messages().chunks_or_timeout(99, math.inf).tap(look).run()
        assert sizes[:2] == [5, 5]
        await stream.remove()

    within(main())


@pytest.mark.slow
def test_a_consumer_or_a_stream_that_is_made_again_is_read_on() -> None:
    async def main() -> None:
        stream = await Stream().create()
        await stream.publish([b"1", b"2"])
        async with Source(stream.driver(), reconnect=SOON) as source:

            async def read(count: int) -> list[bytes]:
                found = [(await anext(source)).unwrap().value for _ in range(count)]
                source.reached(source.mark())
                await source.settled()
                return found

            assert await read(2) == [b"1", b"2"]
            await stream.jetstream.delete_consumer(stream.name, "group")
            await stream.publish([b"3"])
            assert await read(1) == [b"3"]
            # The numbers of its messages begin again.
            await stream.jetstream.delete_stream(stream.name)
            await stream.jetstream.add_stream(name=stream.name, subjects=[f"{stream.name}.>"])
            await stream.publish([b"4", b"5"])
            assert await read(2) == [b"4", b"5"]
        await stream.remove()

    within(main())


def test_what_cannot_be_read_ends_the_source() -> None:
    async def main() -> None:
        stream = await Stream().create()
        missing = NatsStream(f"nats://{SERVER}", f"{stream.name}-not")
        async with Source(missing.driver("group")) as source:
            with pytest.raises(nats.js.errors.NotFoundError):
                _ = await anext(source)
        config = nats.js.api.ConsumerConfig(durable_name="group", ack_policy="none")
        await stream.jetstream.add_consumer(stream.name, config)
        async with Source(stream.driver()) as source:
            with pytest.raises(InvalidArgument, match="explicit"):
                _ = await anext(source)
        await stream.remove()

    within(main())


def test_a_server_that_is_not_there_is_reported_and_not_waited_for() -> None:
    async def main() -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        away = NatsStream([f"nats://127.0.0.1:{port}", f"nats://localhost:{port}"], "s")
        once = RetryPolicy(attempts=1)
        with pytest.raises(ConnectionLost, match="Connect call failed"):
            async with Source(away.driver("g"), reconnect=once, request_timeout=3.0) as source:
                await anext(source)
        sender = away.sender("s.x")
        async with Publisher(sender, reconnect=once, request_timeout=3.0) as publisher:
            assert "Connect call failed" in (await publisher.publish(b"1")).failure().reason

    within(main())


def test_what_the_stream_does_not_take_is_refused_and_the_rest_is_there() -> None:
    async def main() -> None:
        stream = await Stream().create()
        other = f"{stream.name}-other"
        await stream.jetstream.add_stream(name=other, subjects=[other])
        foreign = {"Nats-Expected-Last-Sequence": "999"}  # of a message of another stream
        window = [
            Outgoing(b"1"),
            Outgoing(b"2", destination=other),
            Outgoing(b"3", headers={"n": "a\nb"}),
            Outgoing(b"4", headers={"a b": "c"}),
            Outgoing(b"x" * 2_000_000),
            Outgoing(b"6", destination=f"{stream.name}.y", headers=foreign),
            Outgoing(b"7", headers={"n": "a\rb"}),
        ]
        async with Publisher(stream.sender(), encode=bytes) as publisher:
            error = (await publisher.publish_all(window)).failure()
            assert (error.refused, error.unconfirmed) == ((1, 2, 3, 4, 6), ())
            assert "expected stream" in error.reason
            assert publisher.statistics().connections == 1
        async with Source(stream.driver()) as source:
            assert [(await anext(source)).unwrap().value for _ in range(2)] == [b"1", b"6"]
        await stream.jetstream.delete_stream(other)
        await stream.remove()

    within(main())


def test_a_subject_that_the_stream_does_not_have_is_refused_and_the_connection_stays() -> None:
    async def main() -> None:
        stream = await Stream().create()
        service = f"service.{stream.name}"
        client = await nats.connect(f"nats://{SERVER}")

        async def answer(message: Any) -> None:
            await message.respond(b"7")

        _ = await client.subscribe(service, cb=answer)
        window = [
            Outgoing(b"1"),
            Outgoing(b"2", destination=f"nobody.{stream.name}"),
            Outgoing(b"3", destination=f"{stream.name}.a.b"),
            Outgoing(b"4", destination=stream.name),
            Outgoing(b"5", destination=""),
            Outgoing(b"6", destination=service),
        ]
        async with Publisher(stream.sender(), encode=bytes) as publisher:
            others = asyncio.ensure_future(publisher.publish_all([b"other"] * 100))
            error = (await publisher.publish_all(window)).failure()
            assert (error.refused, error.unconfirmed) == ((1, 3, 4, 5), ())
            assert error.reason == f"the stream has no subject 'nobody.{stream.name}'"
            assert (await others).unwrap() == 100
            assert publisher.statistics().connections == 1
            await stream.jetstream.delete_stream(stream.name)
            assert (await publisher.publish(b"7")).failure().refused == (0,)
            assert publisher.statistics().connections == 1
        await client.close()
        _ = await stream.jetstream.add_stream(name=stream.name, subjects=[f"{stream.name}.>"])
        await stream.remove()

    within(main())


def test_a_stream_that_is_not_there_for_a_moment_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As of a server that has just begun."""
    real = nats.js.JetStreamContext.stream_info

    async def main() -> None:
        stream = await Stream().create()

        async def stream_info(context: Any, name: str) -> Any:
            with contextlib.suppress(nats.js.errors.BadRequestError):
                _ = await stream.jetstream.add_stream(name=name, subjects=[f"{name}.>"])
            return await real(context, name)

        again = RetryPolicy(attempts=3, wait=0.05)
        async with Publisher(stream.sender(), encode=bytes, reconnect=again) as publisher:
            assert (await publisher.publish(b"1")).unwrap() == 1
            monkeypatch.setattr(nats.js.JetStreamContext, "stream_info", stream_info)
            await stream.jetstream.delete_stream(stream.name)
            assert (await publisher.publish(b"2")).unwrap() == 1
            assert publisher.statistics().connections == 2
        await stream.remove()

    within(main())


@pytest.mark.parametrize(
    ("pattern", "subject", "is_taken"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a", "a.b", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("*.b", "a.b", True),
        ("a.*.c", "a.b.d", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        ("*.>", "a.b", True),
        (">", "a", True),
    ],
)
def test_the_subjects_of_a_pattern(pattern: str, subject: str, *, is_taken: bool) -> None:
    assert _takes(pattern, subject) is is_taken


def test_a_stream_that_does_not_exist_is_an_exception_and_not_a_failure() -> None:
    async def main() -> None:
        stream = await Stream().create()
        missing = NatsStream(f"nats://{SERVER}", f"{stream.name}-not")
        async with Publisher(missing.sender("x")) as publisher:
            with pytest.raises(nats.js.errors.NotFoundError):
                _ = await publisher.publish(b"1")
        await stream.remove()

    within(main())


def test_what_is_in_flight_is_not_emitted_again_after_a_lost_connection() -> None:
    async def main() -> None:
        stream = await Stream().create()
        await stream.publish([str(number).encode() for number in range(20)])
        async with Source(stream.driver(), reconnect=SOON) as source:
            found = [(await anext(source)).unwrap().value for _ in range(10)]
            for _ in range(3):
                before = source.statistics().connections
                await stream.disconnect()
                while source.statistics().connections == before:
                    await asyncio.sleep(0.01)
            found += [(await anext(source)).unwrap().value for _ in range(10)]
            assert len({*found}) == 20
            source.reached(source.mark())
            await source.settled()
            assert source.statistics().acknowledged == 20
        await stream.remove()

    within(main())


def test_arguments_out_of_range_are_refused_at_the_call() -> None:
    with pytest.raises(InvalidArgument, match="ack_wait"):
        NatsStream("nats://nowhere", "s", ack_wait=0)
    with pytest.raises(InvalidArgument, match="stream"):
        NatsStream("nats://nowhere", "")
    with pytest.raises(InvalidArgument, match="subject"):
        NatsStream("nats://nowhere", "s").sender("")
    with pytest.raises(InvalidArgument, match="consumer"):
        NatsStream("nats://nowhere", "s").driver("")


@pytest.mark.slow
def test_memory_is_flat_while_a_sink_is_stuck() -> None:
    async def main() -> None:
        await check_stuck_sink(await Stream().create())

    within(main())
