"""Commands of the documentation, typed into a shell."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path


def shown_by(command: str, place: Path) -> tuple[str, bool]:
    """Run a command in a directory, with the tests' own Python for ``python``.

    Returns:
        What a person would see, and whether the program was killed.
    """
    done = subprocess.run(
        command.replace("python ", f"{shlex.quote(sys.executable)} ", 1),
        cwd=place,
        shell=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "100"},
    )
    if done.returncode not in {-signal.SIGKILL, 128 + signal.SIGKILL}:
        return done.stdout, False
    # As a shell says to a person; some say it here, too, in words of their own.
    return re.sub(r"^.*Killed.*\n", "", done.stdout, flags=re.MULTILINE) + "Killed\n", True
