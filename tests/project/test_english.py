"""The text of the project is plain English: the habits of earlier versions do not come back."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What to write instead, by what must not be written. Case does not matter.
HABITS = {
    r"\bbehind\b(?!\s+an?\s)": "after",
    r"\bwho(m)?ever\b": "name the noun: any process that, the first caller that",
    r"\b(by|for|from|of|than|to|with) who\b": "name the noun: for a caller that",
    r"\b(anybody|everybody|everyone|nobody|somebody|those|ones?|they) who\b": "name the noun",
    r"\b(any|every|some)body\b": "name the noun: a person, another process, any task",
    r'"""(Give|Say|Tell|Let|Hear|Have)s? ': "Return, Yield, Raise, Emit, Check, Make, Whether",
    r"\b(came|comes?|coming) out\b(?! of )": "is emitted",
    r"\b(gave|given|gives?|giving|handed) out\b": "emitted",
    r"\bhand(s|ed|ing)? (on|over)\b": "pass on, transfer, return",
    r"\b(goes|going|gone|went) on\b(?! (a|an|disk|record|the)\b)": "continues, propagates",
    r"\b(am|are|be|been|is|was|were) over\b(?! the)": "has ended, completes",
    r"\b(am|are|be|being|is|was|were) asked for\b": "requested",
    r"\brob(bed|bing|s)?\b": "steal a lease, evict",
    r"\bhir(e|ed|es|ing)\b": "start a worker",
    r"\b(let|lets|letting) (go|out)\b": "release, emit",
    r"\bno more\b(?=[.,;]| (and|or) )": "any more, dead",
    r"\banew\b": "again",
    r"\ball the same\b(?! (time|as))": "nevertheless",
    r"\bheed(s|ed|ing)?\b": "obey, respond to",
    r"\bin whatever way\b": "in any way",
    r"\bmakes? no sense\b": "cannot be read, is not valid",
    r"\bmend(s|ed|ing)?\b": "fix, correct, repair",
    r"\bput(s|ting)? right\b": "fix, repair",
    r"\bbelongs? into\b": "belongs in",
    r"\bwithout a word\b": "silently",
    r"\bback-pressure\b": "backpressure",
    r"(?<!there )\b(are|is|was|were) no\b(?! (better|less|longer|more)\b)": "is not a",
    r"\bnobody (else|outside|would)\b": "only, nothing",
    r"\bfor ever\b": "forever",
    r"\bdef test (it|nor|those) ": "name the noun: test_a_channel_ends, not test_it_ends",
    r"\btakes? note\b": "record",
    r"\bso many (items|seconds|sources|of)\b": "a number of items, up to ``n`` items",
}

# Names that the field has better words for: they do not come back as names of classes, functions,
# variables or modules.
RETIRED = (
    *("Lane", "Merging", "Joint", "Trial", "Look", "_Crew", "_Cell", "_Part", "_Whole", "_Hand"),
    *(
        "wait_through",
        "leave_behind",
        "given_by",
        "in_own_step",
        "conclude",
        "dismiss",
        "take_back",
    ),
    *(
        "_hold_on",
        "_surely",
        "_clear_up",
        "COMPANY",
        "_hands",
        "_told",
        "_looked",
        "_armed",
        "_let",
    ),
    *(
        "hire",
        "heir",
        "mishaps",
        "doubtful",
        "unheard",
        "robbed",
        "hold_clock",
        "look_up",
        "let_read",
    ),
)

# What is right, and is not looked at: dead processes leave sagas behind, slow readers fall behind.
RIGHT = r"\b(leav(e|es|ing)|left)( \w+){0,3} behind\b|\b(fall(s|en|ing)?|fell) behind\b"

KINDS = {".md", ".py", ".pyi", ".sql", ".toml", ".yaml", ".yml"}
PLACES = ("returns_pipeline", "tests", "docs", "examples", "benchmarks", "typings")


def files() -> list[Path]:
    """Return the files with text of the project."""
    found = [path for place in PLACES for path in (ROOT / place).rglob("*")]
    found += [*ROOT.glob("*.md"), *ROOT.glob("*.py"), *ROOT.glob("*.toml")]
    found += [*(ROOT / ".github").rglob("*")]
    return sorted(path for path in found if path.suffix in KINDS and path != Path(__file__))


def findings(path: Path) -> list[str]:
    """Return each line that has a habit, with what to write instead."""
    text = path.read_text(encoding="utf-8")
    # The names of tests are sentences.
    text = re.sub(r"\btest_\w+(?=\()", lambda name: name[0].replace("_", " "), text)
    text = re.sub(RIGHT, lambda right: "." * len(right[0]), text)
    found: list[str] = []
    for habit, instead in HABITS.items():
        for match in re.finditer(habit, text, re.IGNORECASE):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{path.relative_to(ROOT)}:{line}: {match[0]!r}, write: {instead}")
    return found


def defined(path: Path) -> set[str]:
    """Return the names that a module defines: itself, classes, functions, variables, attributes."""
    names = {path.stem}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
    return names


def test_no_retired_name_comes_back() -> None:
    modules = sorted((ROOT / "returns_pipeline").rglob("*.py"))
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules
        for name in defined(path) & {*RETIRED}
    }
    assert not found


def test_a_retired_name_is_found(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(
        "class Lane:\n    def hire(self, heir): self._told = mishaps = 1\n"
    )
    assert defined(tmp_path / "x.py") >= {"Lane", "hire", "heir", "_told", "mishaps"}


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
        "a task that somebody cancelled",
        '"""Let the reader run."""',
        "what is handed over",
        "the timer is set anew",
        "an item that is asked for",
        "it is done all the same",
        "a worker is hired",
        "that is no stream",
        "nobody else reads it",
        "it would wait for ever",
        "emitted after so many seconds",
        "def test it ends() -> None:",
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
        "at all the same time, or all the same as before",
        "a turn is over the limit",
        "hand-written code",
        "there is no stream, and it is no longer read",
        '"""Return the next item."""',
    ],
)
def test_good_english_is_left_alone(text: str) -> None:
    rest = re.sub(RIGHT, "", text)
    assert not any(re.search(habit, rest, re.IGNORECASE) for habit in HABITS)
