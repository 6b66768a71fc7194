"""``python -m returns_pipeline.journal``: see `returns_pipeline.journal._cli`."""

import sys

from returns_pipeline.journal._cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
