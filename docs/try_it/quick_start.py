from collections.abc import AsyncIterable

from returns.result import Failure, Result, Success

from draw_windows import show
from returns_pipeline import ResultStream
from returns_pipeline.testing import Wait, timed


def parse(text: str) -> Result[int, str]:
    return Success(int(text)) if text.isdigit() else Failure(f"not a number: {text}")


def numbers(texts: AsyncIterable[str]) -> ResultStream[list[int], str]:
    return ResultStream.of(texts).bind(parse).chunks_or_timeout(2, 2.0)


show(timed("2", "4", Wait(1), "6", Wait(3), "8", Wait(1), "x", Wait(1)), numbers)
