"""The tools around the benchmarks: files of figures, the table, the check for regressions."""

from __future__ import annotations

import contextlib
import math
import runpy
import sys
from pathlib import Path

import pytest

import harness
import regression
from runs import Row, Run, merged
from table import BEGIN, END, insert, table

ROOT = Path(__file__).parents[2]
FIRST = Run("CPython 3.11.7", "Linux, 2 cores", "2026-11-29", 9, 1.25)
SECOND = Run("CPython 3.13.0", "Linux, 2 cores", "2026-11-30", 7, 0.5)


def window(value: float, goal: float | None = 1.2, title: str = "src") -> Row:
    return Row("windows", title, "chunks", value, "by hand", seconds=142e-9, goal=goal)


def rival(name: str, value: float, rival_of: str = "chunks") -> Row:
    return Row("windows", "src", name, value, "by hand", rival_of=rival_of)


def with_rows(run: Run, *rows: Row) -> Run:
    return Run(run.python, run.machine, run.date, run.rounds, run.load, list(rows))


def test_the_table_has_a_line_for_each_goal_and_a_column_for_each_run() -> None:
    cancelled = Row("windows", "10 readers", "cancelled in", 0.4, unit="s", goal=0.25)
    first = with_rows(
        FIRST,
        window(1.19),
        rival("a", 18.72),
        rival("  batchit", 137.0),
        rival("of another", 2.0, "other"),
        Row("windows", "src", "raw", 1.1, "by hand"),
        cancelled,
    )
    second = with_rows(SECOND, window(1.24), rival("a", 13.3))
    assert table([first, second]).splitlines() == [
        "| what | yardstick | goal | CPython 3.11.7 | CPython 3.13.0 | best rival |",
        "|---|---|---|---|---|---|",
        "| src: `chunks` | by hand | 1.2 | 1.19 (142 ns) | 1.24 (142 ns), **missed** | a: 18.7 |",
        "| 10 readers: `cancelled in` |  | 0.25 s | 0.4 s, **missed** | not measured |  |",
        "",
        "CPython 3.11.7: 2026-11-29, Linux, 2 cores, median of at least 9 rounds, load up to 1.2.",
        "CPython 3.13.0: 2026-11-30, Linux, 2 cores, median of at least 7 rounds, load up to 0.5.",
    ]


def test_a_figure_that_only_a_later_run_has_is_in_the_table() -> None:
    made = table([with_rows(FIRST), with_rows(SECOND, window(1.0), rival("aiostream", 13.3))])
    assert "| not measured | 1.00 (142 ns) | aiostream: 13.3 |" in made


def test_a_name_with_the_mark_of_a_column_stays_one_cell() -> None:
    row = Row("policies", "await", "retry | timeout", 2.0, "by hand", goal=3.0)
    assert (
        table([with_rows(FIRST, row)]).splitlines()[2].startswith(r"| await: `retry \| timeout` |")
    )


def test_a_goal_is_held_by_a_figure_that_equals_it() -> None:
    assert "missed" not in table([with_rows(FIRST, window(1.2))])
    assert "missed" in table([with_rows(FIRST, window(math.nextafter(1.2, 2)))])


def test_a_table_replaces_the_one_that_is_there_and_nothing_else() -> None:
    page = f"# Title\n\n{BEGIN}\nold\n{END}\n\ntext\n"
    once = insert(page, "| new |")
    assert once == f"# Title\n\n{BEGIN}\n\n| new |\n\n{END}\n\ntext\n"
    assert insert(once, "| new |") == once


@pytest.mark.parametrize(
    "page", ["", BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}"]
)
def test_a_page_without_its_two_marks_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="once each"):
        insert(page, "| new |")


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = with_rows(FIRST, window(1.19), rival("aiostream", 18.7))
    run.write(tmp_path / "run.json")
    assert Run.read(tmp_path / "run.json") == run


def test_the_runs_of_several_files_become_one_with_the_fewest_rounds_and_highest_load() -> None:
    one, two = with_rows(SECOND, window(1.0)), with_rows(FIRST, rival("aiostream", 2.0))
    assert merged([one, two]) == Run(
        one.python, one.machine, one.date, one.rounds, 1.25, [*one.rows, *two.rows]
    )


def test_a_benchmark_writes_its_figures_to_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def took_one(items: int) -> float:
        return items * 1.0

    async def took_two(items: int) -> float:
        return items * 2.0

    file = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["somewhere/made_up.py", "--rounds", "3", "--json", str(file)])
    monkeypatch.setattr(harness, "_rows", [])
    monkeypatch.setattr(harness, "_file", None)
    monkeypatch.setattr(harness, "_rounds", 1)
    harness.start("made up")
    harness.compare(
        "work",
        10,
        harness.Way("by hand", took_one),
        harness.Way("ours", took_two, goal=1.5),
        harness.Way("theirs", took_two, rival_of="ours"),
    )
    harness.section("more")
    harness.show("late by", 3.0, "ms", 4.0)
    run = Run.read(file)
    assert run.rounds == 3
    assert run.python.endswith(sys.version.split()[0])
    ratio = {"yardstick": "by hand", "low": 2.0, "high": 2.0, "seconds": 2.0}
    assert run.rows == [
        Row("made_up", "work", "ours", 2.0, goal=1.5, **ratio),  # type: ignore[arg-type]
        Row("made_up", "work", "theirs", 2.0, rival_of="ours", **ratio),  # type: ignore[arg-type]
        Row("made_up", "more", "late by", 3.0, unit="ms", goal=4.0),
    ]


def test_one_command_makes_the_table_of_the_readme_from_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_rows(FIRST, window(1.19)).write(tmp_path / "first.json")
    with_rows(SECOND, window(1.24)).write(tmp_path / "second.json")
    command = runpy.run_path(str(ROOT / "benchmarks" / "__main__.py"))
    page = tmp_path / "README.md"
    page.write_text(f"{BEGIN}{END}\n", encoding="utf-8")
    main = command["main"]
    monkeypatch.setitem(main.__globals__, "README", page)
    files = [str(tmp_path / "first.json"), str(tmp_path / "second.json")]
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--table", *files])
    assert main() == 0
    assert "| 1.19 (142 ns) | 1.24 (142 ns), **missed** |" in page.read_text(encoding="utf-8")


def test_the_readme_has_the_marks_and_a_table_between_them() -> None:
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert insert(page, page.partition(BEGIN)[2].partition(END)[0].strip()) == page
    assert page.partition(BEGIN)[2].startswith("\n\n| what | yardstick | goal | ")


# Regressions.

HERE, THERE = Path("here"), Path("there")


def test_two_revisions_take_turns_and_neither_is_always_first() -> None:
    asked: list[Path] = []

    def measure(root: Path) -> dict[str, float]:
        asked.append(root)
        return {"windows": 3.0 if root == HERE else 2.0}

    assert regression.compare(HERE, THERE, 3, measure) == {"windows": [1.5, 1.5, 1.5]}
    assert asked == [THERE, HERE, HERE, THERE, THERE, HERE]


def test_work_that_one_of_the_revisions_cannot_do_is_left_out() -> None:
    def measure(root: Path) -> dict[str, float]:
        return {"old": 1.0} if root == THERE else {"old": 1.0, "new": 1.0}

    assert regression.compare(HERE, THERE, 1, measure) == {"old": [1.0]}


@pytest.mark.parametrize(
    ("ratios", "found"),
    [
        ([1.2, 1.2, 1.2], True),
        ([1.11, 1.12, 1.3, 1.3], True),
        ([1.1, 1.1, 1.1], False),  # not above the limit
        ([1.0, 1.05, 1.09], False),
        ([0.9, 0.95, 1.5, 1.6, 1.7], False),  # too noisy: two of five are faster
        ([1.2, 0.5, 1.2, 1.2], True),
        ([0.5], False),
    ],
)
def test_a_regression_is_a_tenth_more_in_most_rounds(ratios: list[float], found: bool) -> None:
    assert regression.is_regression(ratios) is found


def test_the_report_names_the_regression() -> None:
    lines = regression.report({"b": [1.5, 1.5], "a": [0.5]}).splitlines()
    assert [line.split() for line in lines] == [
        ["a", "0.50", "(0.50-0.50)"],
        ["b", "1.50", "(1.50-1.50)", "REGRESSION"],
    ]


@pytest.mark.parametrize(("cost", "status"), [(1.05, 0), (1.5, 1)])
def test_the_command_fails_if_there_is_a_regression(
    cost: float, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(root: Path, _: object) -> dict[str, float]:
        return {"windows": 1.0 if root == THERE else cost}

    monkeypatch.setattr(regression, "_measured", measured)
    monkeypatch.setattr(regression, "_checked_out", lambda _: contextlib.nullcontext(THERE))
    assert regression.main("main", [], 3) == status
    assert ("REGRESSION" in capsys.readouterr().out) is bool(status)


@pytest.mark.slow
def test_this_checkout_can_be_measured_and_costs_what_it_costs() -> None:
    """Each work runs; how long it takes is not looked at."""
    costs = regression._measured(ROOT, [])
    assert len(costs) >= 15
    assert all(cost > 0 for cost in costs.values())
