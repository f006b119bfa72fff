"""`python -m benchmarks.dns`: all servers on one core in turn, the load on another.

Exits 1 when dnsd is slower than BIND, or when its answers have another shape than a peer's.
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import socket
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from benchmarks.dns import data, loads, servers
from benchmarks.dns.loads import Mix, Outcome
from benchmarks.dns.servers import Server, Stage

SERVER_CORE, LOAD_CORE = 0, 1


@dataclass(slots=True)
class Score:
    """What was measured of one server, a value for each round."""

    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    lost: int = 0
    megabytes: float = 0.0

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    @property
    def cost(self) -> float:
        return statistics.median(self.costs)


def main() -> int:
    """Parse, run, print; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dns", description=__doc__)
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--instances", type=int, default=3, help="of each service, at most 16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of load, each time")
    parser.add_argument(
        "--mix",
        default=",".join(loads.MIXES),
        metavar="NAME[,...]",
        help="of plain, edns, case (names in random case), cookie (of each client)",
    )
    parser.add_argument(
        "--changes", type=int, default=0, help="dnsd alone, with and without so many a second"
    )
    parser.add_argument(
        "--floods", action="store_true", help="dnsd alone: its memory before and after floods"
    )
    parser.add_argument(
        "--only", default="", metavar="NAME[,...]", help="servers to measure, dnsd among them"
    )
    options = parser.parse_args()
    if shutil.which("dnsperf") is None or shutil.which("taskset") is None:
        print("error: dnsperf and taskset are needed (Debian: dnsperf, util-linux)")
        return 2
    if (os.cpu_count() or 1) < 2:
        print("error: two cores are needed, one for the server and one for the load")
        return 2
    with tempfile.TemporaryDirectory(prefix="bench-dns-") as directory:
        return asyncio.run(_run(options, Path(directory)))


async def _run(options: argparse.Namespace, directory: Path) -> int:
    wanted = [name.strip() for name in options.mix.split(",") if name.strip()]
    if strange := set(wanted) - set(loads.MIXES):
        print(f"error: no such mix: {', '.join(sorted(strange))}")
        return 2
    (directory / "zone").write_text(data.zone_file(options.services, options.instances))
    program = await loads.build(directory)
    if program is None and "cookie" in wanted:
        print("cookie: skipped, no C compiler")
        wanted.remove("cookie")
    alone = options.changes or options.floods
    if alone and program is None:
        print("error: no C compiler")
        return 2
    stage = Stage(directory, SERVER_CORE)
    sweeping: asyncio.Task[None] | None = None
    try:
        url = await servers.start_store(stage, options.services, options.instances)
        sweeping = asyncio.create_task(servers.keep_swept(url))
        running = await _start_all(stage, url, "dnsd" if alone else options.only)
        if options.changes:
            return await _with_changes(running[0], url, directory, options, program)
        if options.floods:
            return await _floods(running[0], directory, options, program)
        shapes = {s.name: await _shape(s) for s in running if s.name != "C echo"}
        status = 0
        for mix in loads.mixes(directory, options.services, wanted):
            print(f"--- {mix.name}")
            scores = await _measure(running, mix, options, program)
            status |= _report(running, scores, shapes)
        return status
    finally:
        if sweeping is not None:
            sweeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sweeping
        await stage.stop()


async def _start_all(stage: Stage, url: str, only: str) -> list[Server]:
    starters: dict[str, Callable[[int], Awaitable[Server | None]]] = {
        "dnsd": lambda port: servers.start_dnsd(stage, port, url),
        "Knot": lambda port: servers.start_knot(stage, port),
        "NSD": lambda port: servers.start_nsd(stage, port),
        "BIND": lambda port: servers.start_bind(stage, port),
        "CoreDNS": lambda port: servers.start_coredns(stage, port),
        "C echo": lambda port: servers.start_echo(stage, port),
    }
    missing = servers.missing_peers()
    wanted = {name.strip().lower() for name in only.split(",") if name.strip()}
    running = []
    for name, start in starters.items():
        if wanted and name.lower() not in wanted:
            continue
        if name in missing:
            print(f"{name}: skipped, {missing[name]} is not installed")
            continue
        server = await start(_free_port())
        if server is None:
            why = "COREDNS names no program" if name == "CoreDNS" else "no C compiler"
            print(f"{name}: skipped, {why}")
            continue
        if name != "C echo":
            await _until_it_answers(server)
        running.append(server)
    return running


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def _ask(server: Server, name: str, rtype: str) -> dns.message.Message:
    query = dns.message.make_query(name, rtype)
    return await dns.asyncquery.udp(query, "127.0.0.1", port=server.port, timeout=1)


async def _until_it_answers(server: Server) -> None:
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(Exception):
                answer = await _ask(server, f"svc0.{data.APEX}", "A")
                if answer.rcode() == dns.rcode.NOERROR:
                    return
            await asyncio.sleep(0.1)


async def _shape(server: Server) -> tuple[str, ...]:
    """What a server's answers hold, in a form that can be compared.

    The zone's name server, which NSD adds to every answer unless it is to leave out glue too,
    does not count.
    """
    shape = []
    for name, rtype in (
        (f"_http._tcp.svc1.{data.APEX}", "SRV"),
        (f"svc1.{data.APEX}", "A"),
        (f"nothing.{data.APEX}", "A"),
    ):
        answer = await _ask(server, name, rtype)
        sections = (
            "+".join(
                f"{len(s)} {dns.rdatatype.to_text(s.rdtype)}"
                for s in section
                if s.rdtype != dns.rdatatype.NS and s.name.to_text() != f"ns1.{data.APEX}"
            )
            for section in (answer.answer, answer.authority, answer.additional)
        )
        flags = dns.flags.to_text(answer.flags)
        shape.append(f"{rtype}: {dns.rcode.to_text(answer.rcode())} {flags} {' | '.join(sections)}")
    return tuple(shape)


async def _measure(
    running: list[Server], mix: Mix, options: argparse.Namespace, program: Path | None
) -> dict[str, Score]:
    scores = {server.name: Score() for server in running}
    for server in running:
        await _load(server, mix, 1, program)
    for number in range(options.rounds):
        for server in running:
            score = scores[server.name]
            cost, outcome = await _load(server, mix, options.seconds, program)
            score.rates.append(outcome.rate)
            score.costs.append(cost)
            score.lost += outcome.lost
            score.megabytes = server.megabytes()
            print(
                f"round {number + 1}  {server.name:7} {outcome.rate:9,.0f} queries/s"
                f"  {cost:6.2f} us of processor a query  {outcome.lost} lost",
                flush=True,
            )
    return scores


async def _load(
    server: Server, mix: Mix, seconds: int, program: Path | None
) -> tuple[float, Outcome]:
    """(microseconds of processor for each answered query, what the load saw)."""
    before = server.seconds()
    outcome = await loads.run(mix, server.port, seconds, core=LOAD_CORE, program=program)
    return (server.seconds() - before) / max(outcome.answered, 1) * 1e6, outcome


async def _with_changes(
    server: Server, url: str, directory: Path, options: argparse.Namespace, program: Path | None
) -> int:
    """Rate, cost and late answers in alternate rounds, without changes and with them."""
    (plain,) = loads.mixes(directory, options.services, ["cookie"])
    mix = Mix("plain", plain.file, own=True)
    await _load(server, mix, 1, program)
    scores = {False: Score(), True: Score()}
    for _ in range(options.rounds):
        for changing, score in scores.items():
            changes = None
            if changing:
                changes = asyncio.create_task(
                    servers.keep_changing(url, options.changes, options.services)
                )
            cost, outcome = await _load(server, mix, options.seconds, program)
            made = 0
            if changes is not None:
                changes.cancel()
                made = await changes
            score.rates.append(outcome.rate)
            score.costs.append(cost)
            share = outcome.late / max(outcome.answered, 1)
            print(
                f"{made:5} changes  {outcome.rate:9,.0f} queries/s  {cost:6.2f} us/query"
                f"  {share:.4%} after more than 10 ms  {outcome.lost} lost",
                flush=True,
            )
    without, with_ = scores[False], scores[True]
    print(f"rate {with_.rate / without.rate:.2f}x, cost {with_.cost / without.cost:.2f}x")
    return 0


async def _floods(
    server: Server, directory: Path, options: argparse.Namespace, program: Path | None
) -> int:
    """Memory of dnsd before and after each flood."""
    print(f"{'at first':16} {server.megabytes():7.1f} MB PSS")
    for name, mix in loads.floods(directory, options.services):
        cost, outcome = await _load(server, mix, options.seconds, program)
        print(
            f"{name:16} {server.megabytes():7.1f} MB PSS after {outcome.answered:,} queries"
            f" of {cost:.2f} us",
            flush=True,
        )
    return 0


def _report(
    running: list[Server], scores: dict[str, Score], shapes: dict[str, tuple[str, ...]]
) -> int:
    print()
    print(f"{'':8}{'queries/s':>12}{'dnsd is':>10}{'us/query':>10}{'lost':>8}{'MB PSS':>9}")
    ours = scores.get("dnsd")
    for server in running:
        score = scores[server.name]
        ratio = f"{ours.rate / score.rate:9.2f}x" if ours is not None else ""
        print(
            f"{server.name:8}{score.rate:12,.0f}{ratio:>10}{score.cost:10.2f}"
            f"{score.lost:8}{score.megabytes:9.1f}"
        )
    different = len(set(shapes.values())) > 1
    for name, shape in shapes.items() if different else ():
        print(f"answers differ in shape: {name}", *shape, sep="\n  ")
    bind = scores.get("BIND")
    slower = ours is not None and bind is not None and ours.rate < bind.rate
    if slower:
        print("dnsd is slower than BIND")
    return int(slower or different)


if __name__ == "__main__":
    sys.exit(main())
