import asyncio

class AIOKafkaConnection:
    def close(self) -> asyncio.Future[None] | None: ...
