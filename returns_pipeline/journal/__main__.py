"""``python -m returns_pipeline.journal``: see `returns_pipeline.journal.command`."""

import sys

from returns_pipeline.journal.command import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
