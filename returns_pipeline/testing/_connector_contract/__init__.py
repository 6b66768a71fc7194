"""The guarantees of a connector, as cases: functions, each under the claim that it checks."""

from returns_pipeline.testing._connector_contract import (
    calls,
    connections,
    counts,
    delivery,
    members,
)

__all__ = ["CASES", "CONNECTION_CASES"]

CASES = {**calls.CASES, **delivery.CASES, **members.CASES, **counts.CASES}
# Those that need a way to break connections.
CONNECTION_CASES = connections.CASES
