"""``python -m returns_pipeline.worker``: see `returns_pipeline.worker._cli`."""

import sys

from returns_pipeline.worker._early import EarlySignals
from returns_pipeline.worker._signals import handling

__all__: list[str] = []


def _run() -> int:
    early = EarlySignals()
    with handling(early):
        # All other imports take time, above all those of the user's module.
        from returns_pipeline.worker._cli import main  # noqa: PLC0415

        return main(sys.argv[1:], early)


if __name__ == "__main__":
    sys.exit(_run())
