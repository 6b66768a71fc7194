"""Read orders of a broker in windows: with one consumer, and with three that share the work."""

import asyncio
from dataclasses import dataclass

from returns.result import Result, Success

from returns_pipeline import ResultStream
from returns_pipeline.connectors import DeadLetter, Message, Source
from returns_pipeline.errors import DecodeError, TooManyDeliveries
from returns_pipeline.testing import MemoryBroker
from returns_pipeline.worker import run_worker

Unread = DeadLetter[DecodeError | TooManyDeliveries]


@dataclass
class Order:
    number: int


written: dict[int, int] = {}


async def persist(window: list[Message[Order]]) -> Result[int, str]:
    # By the order's number, because a message can be delivered twice.
    written.update({message.value.number: message.deliveries for message in window})
    return Success(len(window))


def pipeline(messages: ResultStream[Message[Order], Unread]) -> ResultStream[int, Unread | str]:
    return messages.chunks_or_timeout(500, 2.0).bind_async(persist)


async def bury(letter: Unread | str) -> None:
    print("dead letter:", letter if isinstance(letter, str) else letter.error)


async def consume(broker: MemoryBroker, consumers: int) -> None:
    reports = await asyncio.gather(
        *[
            run_worker(
                Source(broker.driver("billing"), decode=Order),  # one group: they share
                pipeline,
                name=f"billing-{number}",
                dead_letters=bury,
                stop=asyncio.sleep(0.5),  # by default: SIGTERM, SIGINT
            )
            for number in range(consumers)
        ]
    )
    print(
        consumers, "consumers,", len(written), "orders, exit codes", [r.exit_code for r in reports]
    )


async def main() -> None:
    broker = MemoryBroker(partitions=3)
    broker.publish(*[b'{"number": %d}' % number for number in range(2000)], b"oops")
    await consume(broker, 1)
    broker.publish(*[b'{"number": %d}' % number for number in range(2000, 4000)])
    await consume(broker, 3)
    print("not acknowledged:", broker.backlog("billing"))


if __name__ == "__main__":
    asyncio.run(main())
