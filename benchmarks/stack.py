"""A `callboard up` to measure: started for it and stopped afterwards, or one that runs already."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent

READY_WITHIN = 60.0
"""Seconds for everything to answer; the demo takes 5 s on an idle machine."""

STOP_WITHIN = 15.0
"""`up` promises 10 s."""


class NotReady(Exception):
    """What was to be measured did not come up; the argument says why."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A running `callboard up`, as its ready file describes it.

    `pids` maps a part to its processes, supervisor first; `up` is the process of the command.
    """

    zone: str
    dns: tuple[str, int]
    registrar: tuple[str, int]
    gateway: tuple[str, int]
    pids: Mapping[str, tuple[int, ...]]
    up: int


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[Stack]:
    """`callboard up` on free ports with an empty store; *arguments* are further options.

    NotReady when it does not come up.
    """
    with tempfile.TemporaryDirectory(prefix="callboard-bench-") as place:
        ready, log = Path(place, "ready.json"), Path(place, "log")
        command = [sys.executable, "-m", "callboard", "up", "--ready-file", str(ready)]
        command += ["--data-dir", f"{place}/data"]
        for option in ("--dns", "--registrar", "--gateway"):
            command += [option, "127.0.0.1:0"]
        with open(log, "wb") as output:
            process = subprocess.Popen(
                [*command, *arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            _wait(process, ready, log)
            yield attached(ready, process.pid)
        finally:
            _stop(process)


def attached(ready_file: Path, up: int | None = None) -> Stack:
    """The stack that wrote *ready_file*; NotReady when there is none."""
    try:
        document: dict[str, Any] = json.loads(ready_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NotReady(f"{ready_file}: {error}") from error
    pids = {part: tuple(found) for part, found in document["pids"].items()}
    return Stack(
        zone=document["zone"],
        dns=_host_port("dns://" + document["dns"]),
        registrar=_host_port(document["registrar"]),
        gateway=_host_port(document["gateway"]),
        pids=pids,
        up=up if up is not None else _parent(pids["registrar"][0]),
    )


def parents() -> dict[int, int]:
    """Every process of the machine and its parent."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                found[int(entry)] = _parent(int(entry))
    return found


def descendants(pid: int) -> list[int]:
    """*pid* and all below it, parents before children."""
    children: dict[int, list[int]] = {}
    for child, parent in parents().items():
        children.setdefault(parent, []).append(child)
    found = [pid]
    for one in found:
        found += sorted(children.get(one, []))
    return found


def command_line(pid: int) -> list[str]:
    """The words of the command of *pid*; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that at least *share* of *values* do not exceed (nearest rank)."""
    ordered = sorted(values)
    rank = -(-len(ordered) * share // 1)  # rounded up
    return ordered[max(0, int(rank) - 1)]


def _parent(pid: int) -> int:
    # The name, in brackets, may hold spaces and brackets: what follows the last one counts.
    return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])


def _host_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def _wait(process: "subprocess.Popen[bytes]", ready: Path, log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            lines = log.read_text(errors="replace").splitlines()
            raise NotReady("callboard up is not ready:\n" + "\n".join(lines[-15:]))
        time.sleep(0.05)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM, and time to stop in order; what remains of its session is killed."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_WITHIN)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
