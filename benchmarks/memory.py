"""What each part of `callboard up --demo` weighs: PSS, as the kernel shares it out.

python -m benchmarks.memory [--idle 60] [--ready-file FILE]

Starts the demo on free ports and waits idle before it weighs; with --ready-file it weighs one
that runs already, at once.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import stack

GOAL_MB = 300.0
"""For the whole of it, the demo's services included."""

KIB = 1024
MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Weight:
    """One process: which part it belongs to, and its proportional set size in octets."""

    part: str
    pid: int
    pss: int
    command: str


def main() -> int:
    """Run it; exit status 1 when the sum misses the goal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--idle", type=float, default=60.0, help="seconds to wait before")
    parser.add_argument("--ready-file", type=Path, help="of a `callboard up` that runs already")
    options = parser.parse_args()
    try:
        if options.ready_file is not None:
            weights = weigh(stack.attached(options.ready_file))
        else:
            with stack.started("--demo") as running:
                time.sleep(options.idle)
                weights = weigh(running)
    except (stack.NotReady, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print_table(weights)
    return 0 if sum(w.pss for w in weights) <= GOAL_MB * MB else 1


def weigh(running: stack.Stack) -> list[Weight]:
    """Every process at or below `up`; those that no part claims are the demo's services."""
    part_of = {pid: part for part, pids in running.pids.items() for pid in pids}
    part_of.setdefault(running.up, "up")
    found = []
    for pid in stack.descendants(running.up):
        pss = proportional_set_size(pid)
        if pss is not None:
            command = " ".join(stack.command_line(pid)[1:])
            found.append(Weight(part_of.get(pid, "services"), pid, pss, command))
    return found


def proportional_set_size(pid: int) -> int | None:
    """Its memory, with each shared page divided by the number that share it; None when gone."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    lines = (line.split() for line in rollup.splitlines())
    return next((int(words[1]) * KIB for words in lines if words[0] == "Pss:"), None)


def print_table(weights: list[Weight]) -> None:
    """Per part its processes and their sum, then the whole."""
    for part in dict.fromkeys(w.part for w in weights):
        mine = [w for w in weights if w.part == part]
        sizes = " + ".join(f"{w.pss / MB:.1f}" for w in mine)
        print(f"{part:10} {sum(w.pss for w in mine) / MB:7.1f} MB   {sizes}")
    total = sum(w.pss for w in weights) / MB
    verdict = "met" if total <= GOAL_MB else "MISSED"
    print(f"{'all':10} {total:7.1f} MB   goal: at most {GOAL_MB:g} MB: {verdict}")


if __name__ == "__main__":
    sys.exit(main())
