"""Run the benchmarks, make the table of the README, or compare with another revision.

```console
python benchmarks                                  # all files, each in a process of its own
python benchmarks windows stages --rounds 5        # some of them
python benchmarks --json run-3.13.json             # and write their figures to a file
python benchmarks --table run-3.11.json run-3.13.json    # the table of the README, from files
python benchmarks --against main                   # fail if anything costs 10 % more than there
```
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import regression
from runs import Run, merged
from table import insert, table

HERE = Path(__file__).parent
README = HERE / "README.md"
NOT_BENCHMARKS = {"__main__", "connectors", "harness", "hot_paths", "regression", "runs", "table"}
FILES = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in NOT_BENCHMARKS)


def run_files(names: list[str], others: list[str], json: Path | None) -> int:
    """Run files, passing on their options; return an exit status."""
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            command = [sys.executable, str(HERE / f"{name}.py"), *others]
            if json is not None:
                command += ["--json", f"{folder}/{name}.json"]
            failed |= subprocess.run(command, check=False).returncode != 0
            print(flush=True)
        written = [Path(folder, f"{name}.json") for name in names]
        runs = [Run.read(path) for path in written if path.exists()]
        if json is not None and runs:
            merged(runs).write(json)
    return int(failed)


def make_table(paths: list[Path]) -> int:
    """Write the table of some runs into the README."""
    made = table([Run.read(path) for path in paths])
    page = insert(README.read_text(encoding="utf-8"), made)
    _ = README.write_text(page, encoding="utf-8")
    return 0


def main() -> int:
    """Carry out the command line, and return an exit status."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks", description=(__doc__ or "").partition("\n")[0]
    )
    _ = parser.add_argument("names", nargs="*", help=f"files to run: {', '.join(FILES)} (all)")
    _ = parser.add_argument("--json", type=Path, help="write the figures to this file")
    _ = parser.add_argument("--table", nargs="+", type=Path, metavar="FILE", help="make the table")
    _ = parser.add_argument("--against", metavar="REVISION", help="compare with it, or a directory")
    _ = parser.add_argument("--rounds", type=int, help="turns of each")
    given, others = parser.parse_known_args()
    if given.table:
        return make_table(given.table)
    if given.against:
        return regression.main(given.against, given.names, given.rounds or regression.ROUNDS)
    if unknown := sorted({*given.names} - {*FILES}):
        parser.error(f"there is no benchmark {', '.join(unknown)}")
    if given.rounds:
        others += ["--rounds", str(given.rounds)]
    return run_files(given.names or FILES, others, given.json)


if __name__ == "__main__":
    sys.exit(main())
