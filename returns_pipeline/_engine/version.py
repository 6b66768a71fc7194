"""The version of the package, as it is installed."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

__all__ = ["__version__"]

__version__: Final = version("returns-pipeline")
