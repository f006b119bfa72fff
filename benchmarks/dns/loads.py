"""The questions of each mix, and the programs that ask them: dnsperf, and one of ours."""

import asyncio
import random
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.dns import data

QUESTIONS = 200_000
"""Lines that are gone through again and again."""

CLIENTS, WINDOW = 32, 8
"""Of our own program: clients with an address each, and questions of each under way."""

TYPES = {"A": 1, "SRV": 33}
PLAIN_OPT = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run saw; `late` are the answers after more than 10 ms, -1 where nobody looked."""

    answered: int
    lost: int
    rate: float
    late: int = -1


@dataclass(frozen=True, slots=True)
class Mix:
    """Questions in a file, and how they are asked: by dnsperf, or by our program."""

    name: str
    file: Path
    edns: bool = False
    own: bool = False
    cookies: bool = False


MIXES = ("plain", "edns", "case", "cookie")


def mixes(directory: Path, services: int, wanted: Iterable[str]) -> Iterator[Mix]:
    """Those *wanted*, their files written to *directory*."""
    lines = list(data.questions(services, QUESTIONS))
    for name in wanted:
        file = directory / f"questions-{name}"
        if name == "cookie":
            write_packets(file, (packet(line, PLAIN_OPT) for line in lines))
        else:
            rng = random.Random(2)
            spelled = (respelled(line, rng) for line in lines) if name == "case" else lines
            file.write_text("\n".join(spelled) + "\n")
        yield Mix(name, file, edns=name == "edns", own=name == "cookie", cookies=name == "cookie")


def respelled(line: str, rng: random.Random) -> str:
    """A question whose name is in any case."""
    name, _, rtype = line.partition(" ")
    bits = rng.getrandbits(len(name))
    return "".join(c.upper() if bits >> i & 1 else c for i, c in enumerate(name)) + " " + rtype


def packet(line: str, opt: bytes = b"") -> bytes:
    """The question as a message, its ID zero."""
    name, _, rtype = line.partition(" ")
    labels = [label.encode() for label in name.removesuffix(".").split(".")]
    wire = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    head = b"\0\0\0\0\0\1\0\0\0\0" + (b"\0\1" if opt else b"\0\0")
    return head + wire + bytes((0, TYPES[rtype], 0, 1)) + opt


def write_packets(file: Path, packets: Iterable[bytes]) -> None:
    """As our program reads them."""
    file.write_bytes(b"".join(len(p).to_bytes(2, "big") + p for p in packets))


async def build(directory: Path) -> Path | None:
    """Our program, compiled; None when there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    program = directory / "load"
    source = str(Path(__file__).with_name("load.c"))
    compiling = await asyncio.create_subprocess_exec(compiler, "-O2", "-o", str(program), source)
    return program if await compiling.wait() == 0 else None


async def run(mix: Mix, port: int, seconds: int, *, core: int, program: Path | None) -> Outcome:
    """Ask the server at *port*, as fast as it answers, from *core*."""
    if mix.own:
        assert program is not None
        ours = [str(program), str(port), str(seconds), str(CLIENTS), str(WINDOW)]
        output = await _output(core, [*ours, str(int(mix.cookies)), str(mix.file)])
        answered, lost, late, took = output.split()
        return Outcome(int(answered), int(lost), int(answered) / float(took), int(late))
    command = ["dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", str(mix.file)]
    command += ["-l", str(seconds), *(["-e"] if mix.edns else [])]
    output = await _output(core, command)
    found = {
        key: re.search(rf"Queries {key}:\s+([\d.]+)", output)
        for key in ("completed", "lost", "per second")
    }
    if not all(found.values()):
        raise SystemExit(f"error: dnsperf failed:\n{output}")
    completed, lost_, rate = (float(m.group(1)) for m in found.values() if m is not None)
    return Outcome(int(completed), int(lost_), rate)


async def _output(core: int, command: list[str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *("taskset", "-c", str(core), *command),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    if process.returncode != 0:
        raise SystemExit(f"error: {command[0]} failed:\n{output}")
    return output


def floods(directory: Path, services: int) -> Iterator[tuple[str, Mix]]:
    """What should leave nothing behind: random names, cases, cookies, options, sizes."""
    rng = random.Random(3)
    lines = list(data.questions(services, QUESTIONS))

    def some_option() -> bytes:
        code = rng.choice((10, 65001, rng.randrange(1 << 16)))
        octets = rng.randbytes(rng.choice((8, 24, rng.randrange(40))))
        return code.to_bytes(2, "big") + len(octets).to_bytes(2, "big") + octets

    def opt(size: int, options: bytes) -> bytes:
        fixed = b"\0\0\x29" + size.to_bytes(2, "big") + bytes(4)
        return fixed + len(options).to_bytes(2, "big") + options

    kinds = {
        "random names": (packet(f"x{rng.getrandbits(64):x}.{data.APEX} A") for _ in lines),
        "random case": (packet(respelled(line, rng)) for line in lines),
        "random options": (packet(line, opt(1232, some_option())) for line in lines),
        "random sizes": (packet(line, opt(rng.randrange(1 << 16), b"")) for line in lines),
    }
    for name, packets in kinds.items():
        file = directory / name.replace(" ", "-")
        write_packets(file, packets)
        yield name, Mix(name, file, own=True)
