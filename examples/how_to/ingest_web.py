"""Accept events by HTTP, answer when they are written, and shut down without losing one."""

import asyncio
import json
import signal

from returns.result import Failure, Result, Success

from returns_pipeline import ResultStream, cases
from returns_pipeline.errors import ChannelClosed, NotHandled
from returns_pipeline.sources import Channel

Event = dict[str, int]
table: list[Event] = []


def decode(body: bytes) -> Result[Event, str]:
    try:
        return Success({"number": int(json.loads(body)["number"])})
    except (KeyError, TypeError, ValueError) as error:
        return Failure(f"not an event: {error!r}")


async def write(window: list[Event]) -> Result[int, str]:
    if any(event["number"] == 13 for event in window):
        return Failure("the table refuses 13")
    table.extend(window)  # in a program: one transaction
    return Success(len(window))


async def accept(channel: Channel[Event], body: bytes) -> tuple[int, str]:
    """Return a status and a text. This is all that a web framework has to call."""
    match cases(decode(body)):
        case Failure(why):
            return 400, why
        case Success(event):
            try:
                await channel.deliver(event)  # returns when it is written
            except (NotHandled, ChannelClosed):
                return 503, "not written, try again"
            return 201, "written"


async def serve(stop: asyncio.Event, ready: "asyncio.Future[int]") -> None:
    channel: Channel[Event] = Channel(1000, acknowledged=True)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        status, text = await accept(channel, await reader.readexactly(length))
        writer.write(f"HTTP/1.1 {status} -\r\ncontent-length: {len(text)}\r\n\r\n{text}".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    ready.set_result(server.sockets[0].getsockname()[1])
    windows = ResultStream.of(channel).chunks_or_timeout(500, 2.0).bind_async(write)
    writing = asyncio.ensure_future(windows.run_all().awaitable())
    await asyncio.wait(
        {writing, stopping := asyncio.ensure_future(stop.wait())}, return_when="FIRST_COMPLETED"
    )
    stopping.cancel()
    server.close()  # 1. no new connections
    channel.close()  # 2. no new events; the open window is written
    print(await writing)  # 3. everything accepted is written, and its clients have their answers


async def post(port: int, body: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST / HTTP/1.1\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
    answer = await reader.read()
    writer.close()
    status, _, text = answer.decode().partition("\r\n\r\n")
    return f"{status.split()[1]} {text}"


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = asyncio.ensure_future(serve(stop, ready))
    port = await ready
    bodies = ['{"number": 1}', '{"number": 2}', "oops"]
    answers = asyncio.gather(*[post(port, body) for body in bodies])
    print(await post(port, "{}"))
    asyncio.get_running_loop().call_later(0.5, signal.raise_signal, signal.SIGTERM)
    print(*await answers, sep="\n")  # at SIGTERM, long before two seconds have passed
    await serving
    print(table)


if __name__ == "__main__":
    asyncio.run(main())
