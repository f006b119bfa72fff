"""A fixed share of a processor for each of several processes, by the kernel's scheduler.

With two cores, two workers and the load that keeps both busy do not fit.  Workers that each get a
tenth of a core do, and two of them should answer twice what one of them does.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

CPU = Path("/sys/fs/cgroup/cpu")
"""cgroup version 1; without it none of this can be measured, see `available`."""

PERIOD_US = 10_000
SHARE = 0.1


def available() -> bool:
    """Whether shares can be given out here."""
    return os.access(CPU, os.W_OK)


@contextlib.contextmanager
def limited(pids: Sequence[int]) -> Iterator[None]:
    """Each of *pids* (with its threads) in a group of its own that gets `SHARE` of a core."""
    groups = []
    try:
        for pid in pids:
            group = CPU / f"callboard-bench-{pid}"
            group.mkdir()
            groups.append(group)
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(int(PERIOD_US * SHARE)))
            for task in Path(f"/proc/{pid}/task").iterdir():
                (group / "tasks").write_text(task.name)
        yield
    finally:
        for group in groups:
            for number in (group / "tasks").read_text().split():
                with contextlib.suppress(OSError):
                    (CPU / "tasks").write_text(number)
            group.rmdir()
