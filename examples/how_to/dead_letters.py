"""Keep what could not be handled, with its reason, and handle it again later."""

import asyncio
from collections.abc import Iterable

from returns.result import Failure, Result, Success

from returns_pipeline import ItemError, ResultStream, with_item
from returns_pipeline.sources import from_iterable

Line = tuple[int, str]
prices: dict[int, int] = {}
letters: list[tuple[Line, str]] = []  # in a program: a table


def parse(line: Line) -> Result[int, str]:
    return Success(int(line[1])) if line[1].isdigit() else Failure("not a number")


def check(line: Line) -> Result[Line, str]:
    return Failure("free of charge") if line[1] == "0" else Success(line)


def keep(failed: ItemError[Line, str]) -> None:
    letters.append((failed.item, failed.error))


async def load(lines: Iterable[Line]) -> None:
    counts = await (
        ResultStream.of(from_iterable(lines))
        .bind(with_item(check))  # fails with the line and the error
        .bind(with_item(lambda line: parse(line).map(lambda price: (line[0], price))))
        .tap(lambda row: prices.update([row]))
        .tap_failure(keep)
        .run_all()  # reads on after failures
    )
    print(counts, prices, letters)


async def main() -> None:
    await load([(1, "250"), (2, "oops"), (3, "0"), (4, "99")])
    again = [(number, text.replace("oops", "300")) for (number, text), _ in letters]  # repaired
    letters.clear()
    await load(again)


if __name__ == "__main__":
    asyncio.run(main())
