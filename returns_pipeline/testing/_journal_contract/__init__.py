"""The guarantees of a journal, as cases: functions, each under the claim that it checks."""

from returns_pipeline.testing._journal_contract import (
    callers,
    order,
    owners,
    positions,
    recording,
    states,
)
from returns_pipeline.testing._journal_contract.owners import EVICTED

__all__ = ["CASES", "EVICTED"]

CASES = {
    **recording.CASES,
    **order.CASES,
    **owners.CASES,
    **states.CASES,
    **callers.CASES,
    **positions.CASES,
}
