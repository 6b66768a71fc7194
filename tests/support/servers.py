"""What a test does without the server or program that it talks to."""

import os
from typing import NoReturn

import pytest


def absent(what: str) -> NoReturn:
    """Skip the running test, which needs ``what``; where ``CI`` is set, fail it."""
    if os.environ.get("CI"):
        pytest.fail(f"needs {what}")
    pytest.skip(f"needs {what}")
