"""Run every file of benchmarks, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NOT_BENCHMARKS = {"__main__", "harness"}

if __name__ == "__main__":
    here = Path(__file__).parent
    failed = False
    for file in sorted(here.glob("*.py")):
        if file.stem not in NOT_BENCHMARKS:
            command = [sys.executable, str(file), *sys.argv[1:]]
            failed |= subprocess.run(command, check=False).returncode != 0
            print(flush=True)
    sys.exit(failed)
