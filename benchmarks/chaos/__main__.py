"""Every fault in turn, and a table: fault, promise, measured.

python -m benchmarks.chaos [--only NAME …] [--instances 100] [--lease 60] [--outage 90] [--quick]

The last fault has 1,000 instances; the others as many as asked for.  Exit status 1 when a promise
was broken.
"""

import argparse
import asyncio
import sys
import time
from dataclasses import replace

from benchmarks.chaos import faults
from benchmarks.chaos.faults import ALL, Fault, Scale, Skipped, Verdict

MANY = 1_000
"""Instances of the one that counts most: no primary for as long as an outage lasts."""

DEATHS_OF_MANY = 20

QUICK = Scale(instances=50, lease=5, outage=8.0, deaths=3)


def main() -> int:
    """Run them; exit status 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", metavar="NAME", help="only these faults")
    parser.add_argument("--instances", type=int, default=Scale().instances, metavar="N")
    parser.add_argument("--lease", type=int, default=Scale().lease, metavar="SECONDS")
    parser.add_argument("--outage", type=float, default=Scale().outage, metavar="SECONDS")
    parser.add_argument("--quick", action="store_true", help="leases of 5 s, outages of 8 s")
    options = parser.parse_args()
    scale = Scale(options.instances, options.lease, options.outage)
    if options.quick:
        scale = QUICK
    chosen = [f for f in ALL if not options.only or f.__name__ in options.only]
    kept = True
    for fault in chosen:
        mine = scale
        if fault is faults.primary_away and not options.quick:
            mine = replace(scale, instances=max(scale.instances, MANY), deaths=DEATHS_OF_MANY)
        kept &= show(fault, mine)
    return 0 if kept else 1


def show(fault: Fault, scale: Scale) -> bool:
    """Run one and print its row; whether its promise was kept."""
    began = time.monotonic()
    try:
        verdict = asyncio.run(run(fault, scale))
    except Skipped as reason:
        print(f"skipped   {fault.__name__:18} {reason}", flush=True)
        return True
    word = "kept" if verdict.kept else "BROKEN"
    took = time.monotonic() - began
    print(f"{word:9} {fault.__name__:18} {verdict.fault} ({took:.0f} s)", flush=True)
    print(
        f"{'':9} {'promise':18} {verdict.promise}\n{'':9} {'measured':18} {verdict.measured}",
        flush=True,
    )
    return verdict.kept


async def run(fault: Fault, scale: Scale) -> Verdict:
    return await fault(scale)


if __name__ == "__main__":
    sys.exit(main())
