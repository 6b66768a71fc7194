"""What a publisher reports, and to whom."""

from __future__ import annotations

from returns.result import Result, Success

from returns_pipeline import ResultStream, StepContext, telemetry, to_result
from returns_pipeline.connectors import Message, Outgoing, Publisher, Source
from returns_pipeline.telemetry import Event, PublishBegun, PublishEnded
from returns_pipeline.testing import MemoryBroker, Recorder, run, timed


def test_a_window_is_reported_once_with_what_came_of_it() -> None:
    recorder = Recorder()
    broker = MemoryBroker()

    async def main() -> None:
        async with Publisher(broker.sender(), observer=recorder) as publisher:
            await publisher.publish_all([1, Outgoing(2, partition=9), 3])
            await publisher.publish_all([])

    run(main())
    (begun,), (ended,) = recorder.of(PublishBegun), recorder.of(PublishEnded)
    assert recorder.events == [begun, ended]
    assert (begun.pipeline, begun.system, begun.destination, begun.messages) == (
        "",
        "memory",
        "",
        3,
    )
    assert (ended.confirmed, ended.refused, ended.unconfirmed) == (2, 1, 0)
    assert "partition 9" in str(ended.error)
    assert begun.run == ended.run
    assert begun == PublishBegun(
        pipeline="", system="memory", destination="", messages=3, run=begun.run,
        headers={"not": "compared"}, at=begun.at,
    )  # fmt: skip
    assert "headers" not in repr(begun)


def test_the_observers_of_the_step_that_publishes_get_its_events() -> None:
    """Besides those of the publisher: each gets them once."""
    own, of_step = Recorder(), Recorder()

    async def main() -> None:
        async with Publisher(MemoryBroker().sender(), observer=own) as publisher:

            async def ship(item: int, _: StepContext) -> Result[int, object]:
                return await publisher.publish(item)

            ctx = StepContext("shop", observer=of_step)
            await ResultStream.of(timed(1)).bind_step(ship, ctx).run()
            with telemetry.use(own, pipeline="other"):
                await publisher.publish(2)

    run(main())
    assert [event.pipeline for event in own.of(PublishEnded)] == ["shop", "other"]
    assert [event.pipeline for event in of_step.of(PublishEnded)] == ["shop"]


def test_headers_that_observers_add_are_sent_with_all_messages_of_a_call() -> None:
    class Signs:
        def on_event(self, event: Event, /) -> None:
            if isinstance(event, PublishBegun):
                event.headers["signed"] = str(event.messages)

    broker = MemoryBroker()

    async def main() -> list[Message[bytes]]:
        async with Publisher(broker.sender(), observer=Signs()) as publisher:
            assert await publisher.publish_all([1, 2]) == Success(2)
            assert await publisher.publish(Outgoing(3, headers={"origin": "test"})) == Success(1)
        async with Source(broker.driver("all")) as source:
            windows = source.messages().chunks_or_timeout(3, 1.0)
            return (await to_result(windows.first())).unwrap()

    kept = [dict(message.headers) for message in run(main())]
    assert kept == [{"signed": "2"}, {"signed": "2"}, {"signed": "1", "origin": "test"}]
