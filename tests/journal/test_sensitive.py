"""What is sensitive is shown nowhere: not in logs, notes, reports, warnings or the command line."""

from __future__ import annotations

import gc
import json
import warnings
from functools import partial
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, Literal

import pytest

from returns_pipeline.compensation import CompensationEntry, CompensationRegistry, CompensationScope
from returns_pipeline.errors import ArgumentsNotRecordable, InvalidArgument, JournalCorrupt
from returns_pipeline.journal import SqliteJournal, recover
from returns_pipeline.journal._arguments import shown
from returns_pipeline.journal._cli import main as command
from returns_pipeline.testing import run

if TYPE_CHECKING:
    from pathlib import Path

    from returns_pipeline.compensation import Upcast

CARD = "4111-1111"
registry = CompensationRegistry()
refunded: list[tuple[object, ...]] = []
fails = True


@registry.compensation("refund", sensitive={"card", "more", "named"})
async def refund(order: int, card: str, *more: str, note: str = "", **named: str) -> None:
    refunded.append((order, card, more, note, named))
    if fails:
        raise OSError("declined")


@pytest.fixture(autouse=True)
def _fails(monkeypatch: pytest.MonkeyPatch) -> None:
    refunded.clear()
    monkeypatch.setitem(globals(), "fails", True)


@pytest.mark.parametrize("durable", [False, True])
def test_notes_logs_and_reports_do_not_show_it(
    durable: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with SqliteJournal(tmp_path / "j.db") as journal:
            scope = CompensationScope("shop", journal=journal if durable else None)
            with pytest.raises(KeyError) as raised:
                async with scope:
                    await scope.register(refund, 1, CARD)
                    await scope.register(refund, 2, card=CARD)
                    await scope.register(refund, 3, CARD, CARD, note="n", other=CARD)
                    await scope.register(partial(refund, 4), CARD)
                    await scope.register(partial(refund, 5, CARD))
                    raise KeyError
            said = "\n".join([repr(scope.report), *raised.value.__notes__, caplog.text])
        assert CARD not in said
        for call in (
            "refund(1, <sensitive>)",
            "refund(2, card=<sensitive>)",
            "refund(3, <sensitive>, <sensitive>, note='n', other=<sensitive>)",
            "refund(<sensitive>)",
            "refund()",
        ):
            assert call in said
        assert "CompensationEntry(name='refund', args=(1, <sensitive>)" in said
        assert {entry.args for entry in scope.report.failures} >= {(1, CARD)}  # for a program

    run(main())
    assert [call[1] for call in refunded] == [CARD] * 5


def test_the_warning_about_a_dropped_scope_does_not_show_it() -> None:
    async def main() -> None:
        await CompensationScope("shop").register(refund, 1, CARD)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(main())
        gc.collect()
    (said,) = [str(each.message) for each in caught]
    assert said.endswith("neither committed nor undone: refund(1, <sensitive>)")


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((7, CARD, CARD), {}, "undo(7, <sensitive>, <sensitive>)"),
        ((7,), {"crad": CARD}, "undo(7, crad=<sensitive>)"),
        ((7, CARD), {"note": "n"}, "undo(7, <sensitive>, note='n')"),
        ((), {"order": 7, "card": CARD, "cards": CARD}, None),
    ],
)
@pytest.mark.parametrize("given", [0, 1])
def test_an_argument_that_fits_no_parameter_is_not_shown(
    given: int, args: tuple[object, ...], kwargs: dict[str, object], said: str | None
) -> None:
    async def undo(order: int, card: str, *, note: str = "") -> None:
        raise OSError

    known: Any = CompensationRegistry().compensation("undo", sensitive={"card"})(undo)

    async def main() -> str:
        scope = CompensationScope("shop")
        part = partial(known, *args[:given]) if given else known
        await scope.register(part, *args[given:], **kwargs)
        return str((await scope.compensate()).notes())

    notes = run(main())
    assert CARD not in notes
    if said is not None and not given:
        assert said in notes


def test_list_show_and_recover_do_not_show_it_and_the_undo_gets_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "j.db"

    async def left() -> str:
        async with SqliteJournal(path) as journal:
            scope = CompensationScope("shop", journal=journal)
            await scope.register(refund, 1, CARD, note="n", other=CARD)
            (saga,) = await journal.sagas()
            scope._records = []
        return saga.id

    saga = run(left())
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    for arguments in (["list"], ["list", "--json"], ["show"], ["show", "--json"]):
        verb, *options = arguments
        assert command([verb, str(path), *([saga] if verb == "show" else []), *options]) == 0
        out = capsys.readouterr().out
        assert CARD not in out
        if verb == "show" and options:
            (action,) = json.loads(out)["saga"]["actions"]
            assert action["arguments"] == {
                "order": 1,
                "note": "n",
                "card": "<sensitive>",
                "named": "<sensitive>",
            }
            assert action["arguments_text"] == json.dumps(action["arguments"])

    async def recovered() -> None:
        async with SqliteJournal(path) as journal:
            unknown = await recover(journal, CompensationRegistry())
            assert CARD not in repr(unknown)
            reports = await recover(journal, registry)
            assert CARD not in repr(reports)
            assert "refund(1, <sensitive>, note='n', other=<sensitive>)" in str(reports[0].stuck[0])

    run(recovered())
    assert refunded == [(1, CARD, (), "n", {"other": CARD})]


def test_an_argument_that_is_refused_is_not_shown(tmp_path: Path) -> None:
    other = CompensationRegistry()

    @other.compensation("refund", sensitive={"card"})
    async def refund(card: object) -> None: ...

    async def main() -> None:
        async with SqliteJournal(tmp_path / "j.db") as journal:
            scope = CompensationScope("shop", journal=journal)
            with pytest.raises(ArgumentsNotRecordable) as refused:
                await scope.register(refund, (CARD, {CARD}))
        error: BaseException | None = refused.value
        while error is not None:
            assert CARD not in str(error)
            error = error.__cause__

    run(main())


def _fail_upcast(named: dict[str, Any]) -> dict[str, Any]:
    raise ValueError(named)


@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize(
    ("hint", "upcast"),
    [(IPv4Address, None), (Literal["a"], None), (str, {1: _fail_upcast})],
)
def test_a_recorded_argument_that_no_longer_fits_is_not_shown(
    hint: object,
    upcast: dict[int, Upcast] | None,
    stays: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    old, new = CompensationRegistry(), CompensationRegistry()

    async def undo(card: str) -> None: ...
    async def changed(card: str) -> None: ...

    changed.__annotations__["card"] = hint
    before = old.compensation("refund", sensitive={"card"})(undo)
    _ = new.compensation(
        "refund",
        version=1 if upcast is None else 2,
        upcast=upcast,
        sensitive={"card"} if stays else (),
    )(changed)

    async def main() -> None:
        async with SqliteJournal(tmp_path / "j.db") as journal:
            scope = CompensationScope("shop", journal=journal)
            await scope.register(before, CARD)
            scope._records = []
        async with SqliteJournal(tmp_path / "j.db") as journal:
            (report,) = await recover(journal, new)
            (saga,) = await journal.sagas()
        (entry,) = report.stuck
        assert isinstance(entry.error, JournalCorrupt)
        assert entry.error.__cause__ is None
        for said in (caplog.text, repr(report), str(saga.actions[0].error)):
            assert "Error" in said
            assert CARD not in said

    run(main())


@pytest.mark.parametrize("wrong", [{"cards"}, "card", ["card", ""]])
def test_what_is_not_a_parameter_is_refused(wrong: object) -> None:
    async def undo(card: str) -> None: ...

    with pytest.raises(InvalidArgument, match="sensitive"):
        CompensationRegistry().compensation("undo", sensitive=wrong)(undo)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["{}", '{"a": 1}', "not JSON", '{"": {', '{"": 1}', '["", {"": {}}]', "[" * 99_999]
)
def test_a_record_without_sensitive_arguments_is_shown_as_it_is(text: str) -> None:
    assert shown(text) == text


def test_an_entry_shows_what_it_always_did() -> None:
    entry = CompensationEntry("undo", (1,), {"a": "b"}, 2, None, "scope")
    assert repr(entry) == (
        "CompensationEntry(name='undo', args=(1,), kwargs={'a': 'b'}, attempts=2, error=None, "
        "scope='scope')"
    )
