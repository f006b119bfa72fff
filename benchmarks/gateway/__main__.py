"""`python -m benchmarks.gateway`: the proxies on one core in turn, load and upstreams on another.

Exits 1 when a goal is missed; rates are compared within one run only, on the same machine.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from benchmarks.gateway import crowd, load, proxies, shares
from benchmarks.gateway.load import KINDS, Result
from benchmarks.gateway.proxies import LOAD_CORE, Proxy, Stage

IDLE = 1000
DRIPPERS, READERS = 1000, 200

SETTLE = 3.0
"""Seconds for a crowd to be where it is going to stay."""

QUIET_RATE = 2000.0
"""Requests a second of the others beside the slow ones: some waits, and no queue by itself."""

OURS = "Callboard"


@dataclass
class Findings:
    """What was measured, and which goals were missed."""

    results: dict[tuple[str, str], list[Result]] = field(default_factory=dict)
    """By proxy and kind of load, one a round."""
    missed: list[str] = field(default_factory=list)

    def median(self, name: str, kind: str, of: Callable[[Result], float]) -> float:
        return statistics.median(map(of, self.results[name, kind]))

    def goal(self, text: str, value: float, least: float | None, most: float | None = None) -> None:
        """Say how *value* compares with a goal, and remember it when missed."""
        met = (least is None or value >= least) and (most is None or value <= most)
        bound = f"at least {least:g}" if least is not None else f"at most {most:g}"
        print(f"{text}: {value:.2f} ({bound}){'' if met else '  MISSED'}", flush=True)
        if not met:
            self.missed.append(text)


def main() -> int:
    """Parse, run, print; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of load, each proxy and round")
    parser.add_argument(
        "--programs", default="", metavar="DIR", help="where envoy and traefik are, if not on PATH"
    )
    parser.add_argument(
        "--parts",
        default="idle,load,paced,slow,workers",
        metavar="NAME[,...]",
        help="what to measure: idle, load, paced, slow, workers",
    )
    options = parser.parse_args()
    needed = {"nginx": "nginx", "wrk": "wrk", "h2load": "nghttp2-client", "taskset": "util-linux"}
    missing = [package for name, package in needed.items() if proxies.program(name) is None]
    if missing:
        print(f"error: needed (Debian): {' '.join(missing)}")
        return 2
    if (os.cpu_count() or 1) < 2:
        print("error: two cores are needed, one for the proxy and one for the load")
        return 2
    with tempfile.TemporaryDirectory(prefix="bench-gateway-", dir=_memory()) as directory:
        stage = Stage(Path(directory))
        try:
            return _run(stage, options)
        finally:
            stage.stop()


def _memory() -> str | None:
    """Files that are answered come from memory, where there is such a place."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _run(stage: Stage, options: argparse.Namespace) -> int:
    proxies.start_upstreams(stage)
    running = _start_all(stage, options.programs)
    found = Findings()
    parts = options.parts.split(",")
    if "idle" in parts:
        _idle(running, found)
    if "load" in parts or "paced" in parts:
        _load(running, found, options.rounds, options.seconds, stage.directory)
    if "paced" in parts:
        _paced(running, found, options.rounds, options.seconds, stage.directory)
    if "slow" in parts:
        _slow(running[0], found, options.rounds, options.seconds, stage)
    if "workers" in parts:
        _workers(stage, found, options.rounds, options.seconds)
    return int(bool(found.missed))


def _start_all(stage: Stage, directory: str) -> list[Proxy]:
    running = [proxies.start_ours(stage)]
    for name, (program, start) in proxies.PEERS.items():
        path = proxies.program(program, directory)
        if path is None:
            print(f"{name}: skipped, {program} is not installed")
        else:
            running.append(start(stage, path))
    return running


def _load(
    running: list[Proxy], found: Findings, rounds: int, seconds: int, directory: Path
) -> None:
    """As fast as answers come: rates, waits, and what a request costs."""
    print(f"{'':12}{'':12}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'us CPU':>9}{'failed':>8}")
    for kind in KINDS:
        for proxy in running:
            load.run(proxy, kind, 1, directory)
        for _ in range(rounds):
            for proxy in running:
                result = load.run(proxy, kind, seconds, directory)
                found.results.setdefault((proxy.name, kind.name), []).append(result)
        for proxy in running:
            _print_row(found, proxy.name, kind.name)
    for proxy in running:
        print(f"memory       {proxy.name:12}{proxy.kib() / 1024:10.1f} MB")
    _ratio(found, "small", "Envoy", 1.3)
    _ratio(found, "small", "Traefik", 1.6)
    _ratio(found, "64 KiB", "nginx", 0.6)


def _print_row(found: Findings, name: str, kind: str) -> None:
    rate, p50, p99, cost = (
        found.median(name, kind, attrgetter(what)) for what in ("rate", "p50", "p99", "cost")
    )
    failed = sum(r.failed for r in found.results[name, kind])
    print(
        f"{kind:12}{name:12}{rate:12,.0f}{p50 * 1e3:9.2f}{p99 * 1e3:9.2f}{cost:9.1f}{failed:8}",
        flush=True,
    )


def _ratio(found: Findings, kind: str, peer: str, least: float) -> None:
    if (peer, kind) not in found.results:
        return
    ours, theirs = (found.median(name, kind, lambda r: r.rate) for name in (OURS, peer))
    found.goal(f"{kind}, rate beside {peer}'s", ours / theirs, least)
    ours, theirs = (found.median(name, kind, lambda r: r.cost) for name in (OURS, peer))
    print(f"{kind}, {peer}'s processor time beside ours: {theirs / ours:.2f}")


def _paced(
    running: list[Proxy], found: Findings, rounds: int, seconds: int, directory: Path
) -> None:
    """p99 at 70 % of Envoy's highest rate."""
    ours = running[0]
    envoy = next((p for p in running if p.name == "Envoy"), None)
    if envoy is None:
        print("paced: skipped without Envoy")
        return
    rate = 0.7 * max(r.rate for r in found.results["Envoy", "small"])
    waits: dict[str, list[float]] = {ours.name: [], envoy.name: []}
    for _ in range(rounds):
        for proxy in (ours, envoy):
            p50, p99 = load.p50_p99(load.paced(proxy, "web/small", rate, seconds, directory))
            waits[proxy.name].append(p99)
            print(
                f"paced {rate:,.0f}/s  {proxy.name:12} p50 {p50 * 1e3:.2f} p99 {p99 * 1e3:.2f} ms",
                flush=True,
            )
    medians = [statistics.median(waits[p.name]) for p in (ours, envoy)]
    found.goal("p99 at 70 % of Envoy's rate, beside Envoy's", medians[0] / medians[1], None, 1.0)


def _idle(running: list[Proxy], found: Findings) -> None:
    """What a connection costs that says nothing, plain and upgraded."""
    for what, request in (("idle connection", crowd.ONE), ("idle WebSocket", crowd.UPGRADE)):
        for proxy in running:
            with crowd.idle(proxy.port, 20, request):
                before = proxy.kib()
                with crowd.idle(proxy.port, IDLE, request):
                    each = (proxy.kib() - before) / IDLE
            if proxy.name == OURS:
                found.goal(f"{what}, KiB", each, None, 12.0)
            else:
                print(f"{what}, KiB, {proxy.name}: {each:.2f}")


def _slow(ours: Proxy, found: Findings, rounds: int, seconds: int, stage: Stage) -> None:
    """The others' p99 beside a crowd of drippers and slow readers, and what those cost."""
    quiet, crowded = [], []
    for _ in range(rounds):
        quiet.append(_p99(ours, seconds, stage.directory))
        before = ours.kib()
        command = [sys.executable, "-m", "benchmarks.gateway.crowd"]
        # Nice, so that what they use of the load's core is not taken for the proxy's waiting.
        pinned = ["nice", "-n", "19", "taskset", "-c", str(LOAD_CORE)]
        numbers = [str(ours.port), str(DRIPPERS), str(READERS)]
        crowding = subprocess.Popen([*pinned, *command, *numbers], cwd=proxies.ROOT)
        try:
            time.sleep(SETTLE)
            crowded.append(_p99(ours, seconds, stage.directory))
            each = (ours.kib() - before) / (DRIPPERS + READERS)
        finally:
            crowding.kill()
            crowding.wait()
        print(
            f"p99 {quiet[-1] * 1e3:.2f} ms alone, {crowded[-1] * 1e3:.2f} ms beside {DRIPPERS}"
            f" drippers and {READERS} slow readers, {each:.1f} KiB each",
            flush=True,
        )
        time.sleep(SETTLE)
    ratio = statistics.median(crowded) / statistics.median(quiet)
    found.goal("p99 beside slow clients, of that without", ratio, None, 1.1)


def _p99(proxy: Proxy, seconds: int, directory: Path) -> float:
    return load.p50_p99(load.paced(proxy, "web/small", QUIET_RATE, seconds, directory))[1]


def _workers(stage: Stage, found: Findings, rounds: int, seconds: int) -> None:
    """Two workers beside one, each with the same share of a core, so that load fits beside them."""
    if not shares.available():
        print("workers: skipped, no cgroup (version 1) whose cpu.cfs_quota_us can be written")
        return
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for number in rates:
            name = f"workers-{number}"
            ours = proxies.start_ours(stage, "--workers", str(number), name=name, core=None)
            pids = proxies.with_children(ours.pid)
            load.run(ours, KINDS[0], 1, stage.directory)
            with shares.limited(pids[-number:]):
                rates[number].append(load.run(ours, KINDS[0], seconds, stage.directory).rate)
            stage.end(ours.pid)
    one, two = (statistics.median(rates[number]) for number in (1, 2))
    share = f"{shares.SHARE:.0%} of a core"
    print(f"workers, {share} each: {one:,.0f}/s with one, {two:,.0f}/s with two")
    found.goal("two workers beside one", two / one, 1.8)


if __name__ == "__main__":
    sys.exit(main())
