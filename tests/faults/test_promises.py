"""The faults of `python -m benchmarks.chaos` that are over soon, with few instances: real processes
are broken, somebody asks DNS for every service all the while, and the promise must hold.
"""

import pytest

from benchmarks.chaos import faults
from benchmarks.chaos.faults import Fault, Scale, Skipped

FEW = Scale(instances=30, lease=5, outage=6.5, deaths=0)
"""The outage is longer than a lease: who cannot renew would leave, if that time counted."""

ONE_DIES = Scale(instances=30, lease=5, outage=1.0, deaths=1)


@pytest.mark.parametrize(
    ("fault", "scale"),
    [
        (faults.store_paused, FEW),
        (faults.flushed, FEW),
        (faults.out_of_memory, FEW),
        (faults.disk_full, FEW),
        (faults.clock_off, ONE_DIES),
        (faults.late_heartbeats, ONE_DIES),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_a_promise_holds_through_its_fault(fault: Fault, scale: Scale) -> None:
    try:
        verdict = await fault(scale)
    except Skipped as reason:
        pytest.skip(str(reason))

    assert verdict.kept, f"{verdict.fault}: {verdict.promise}; measured: {verdict.measured}"
