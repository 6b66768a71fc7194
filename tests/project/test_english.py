"""The text of the project is plain English: the habits of earlier versions do not come back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What to write instead, by what must not be written. Case does not matter.
HABITS = {
    r"\bbehind\b(?! an? )": "after",
    r"\bwho(m)?ever\b": "name the noun: any process that, the first caller that",
    r"\b(by|for|from|of|than|to|with) who\b": "name the noun: for a caller that",
    r"\b(anybody|everybody|everyone|nobody|somebody|those) who\b": "name the noun",
    r'"""(Give|Say|Tell)s? ': "Return, Yield, Raise, Emit, Check, Whether",
    r"\b(came|comes?|coming) out\b(?! of )": "is emitted",
    r"\b(gave|given|gives?|giving|handed) out\b": "emitted",
    r"\b(goes|going|gone|went) on\b(?! (a|an|disk|record|the)\b)": "continues, propagates",
    r"\bis over\b": "has ended, completes",
    r"\brob(bed|bing|s)?\b": "steal a lease, evict",
    r"\b(let|lets|letting) go\b": "release",
    r"\bno more\b(?=[.,;]| (and|or) )": "any more, dead",
}

# What is right, and is not looked at: dead processes leave sagas behind, slow readers fall behind.
RIGHT = r"\b(leav(e|es|ing)|left)( \w+){0,3} behind\b|\b(fall(s|en|ing)?|fell) behind\b"

KINDS = {".md", ".py", ".pyi", ".sql", ".toml", ".yaml", ".yml"}
PLACES = ("returns_pipeline", "tests", "docs", "examples", "benchmarks", "typings")


def files() -> list[Path]:
    """Return the files with text of ours."""
    found = [path for place in PLACES for path in (ROOT / place).rglob("*")]
    found += [*ROOT.glob("*.md"), *ROOT.glob("*.py"), *ROOT.glob("*.toml")]
    found += [*(ROOT / ".github").rglob("*")]
    return sorted(path for path in found if path.suffix in KINDS and path != Path(__file__))


def findings(path: Path) -> list[str]:
    """Return each line that has a habit, with what to write instead."""
    text = re.sub(RIGHT, lambda right: "." * len(right[0]), path.read_text(encoding="utf-8"))
    found: list[str] = []
    for habit, instead in HABITS.items():
        for match in re.finditer(habit, text, re.IGNORECASE):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{path.relative_to(ROOT)}:{line}: {match[0]!r}, write: {instead}")
    return found


def test_no_habit_comes_back() -> None:
    found = [line for path in files() for line in findings(path)]
    assert not found, "\n".join(["not plain English:", *found])


@pytest.mark.parametrize(
    "text",
    [
        "what comes behind it",
        "An error for whoever waits.",
        "raised by who awaits it",
        '"""Give the next item."""',
        "the item comes out",
        "a window is given out",
        "the error goes on to the caller",
        "when the block is over",
        "a live owner is not robbed",
    ],
)
def test_each_habit_is_found(text: str) -> None:
    assert any(re.search(habit, text, re.IGNORECASE) for habit in HABITS)


@pytest.mark.parametrize(
    "text",
    [
        "the actions that dead processes left behind",
        "behind a transaction pooler",
        "a slow reader falls behind",
        "what goes on record",
        '"""Return the next item."""',
    ],
)
def test_good_english_is_left_alone(text: str) -> None:
    rest = re.sub(RIGHT, "", text)
    assert not any(re.search(habit, rest, re.IGNORECASE) for habit in HABITS)
