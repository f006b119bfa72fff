"""Load on one core: wrk as fast as answers come, h2load at a given rate; what a request cost."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gateway.proxies import LOAD_CORE, Proxy
from benchmarks.stack import percentile

CONNECTIONS = 64

POST = """
wrk.method = "POST"
wrk.body = string.rep("x", 16384)
wrk.headers["Content-Type"] = "application/octet-stream"
"""

VARIED = """
local n = 0
request = function()
  n = n + 1
  return wrk.format("GET", nil, {["X-Trace"] = tostring(n), ["User-Agent"] = "wrk"})
end
"""
"""Every head another: nothing that was remembered of one helps the next."""

UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of load: what is asked for, and the script of wrk that does it."""

    name: str
    path: str
    script: str = ""


KINDS = (
    Kind("small", "web/small"),
    Kind("varied", "web/small", VARIED),
    Kind("64 KiB", "web/large"),
    Kind("POST 16 KiB", "web/post", POST),
)


@dataclass(frozen=True, slots=True)
class Result:
    """One run: requests a second, and seconds until an answer at two percentiles."""

    rate: float
    p50: float
    p99: float
    cost: float
    """Microseconds of processor time of the proxy for each request."""
    failed: int


def run(proxy: Proxy, kind: Kind, seconds: int, directory: Path) -> Result:
    """wrk on *proxy*, closed loop."""
    command = [
        *("taskset", "-c", str(LOAD_CORE), "wrk", "-t", "1", "-c", str(CONNECTIONS)),
        *("-d", f"{seconds}s", "--latency", proxy.url(kind.path)),
    ]
    if kind.script:
        script = directory / "script.lua"
        script.write_text(kind.script)
        command += ["-s", str(script)]
    before = proxy.seconds()
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = proxy.seconds() - before
    requests = int(_find(r"(\d+) requests in", output))
    errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    other = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    failed = sum(map(int, errors.groups())) if errors else 0
    return Result(
        rate=float(_find(r"Requests/sec:\s+([\d.]+)", output)),
        p50=_seconds(_find(r"\n +50% +(\S+)", output)),
        p99=_seconds(_find(r"\n +99% +(\S+)", output)),
        cost=used / max(1, requests) * 1e6,
        failed=failed + (int(other[1]) if other else 0),
    )


def paced(
    proxy: Proxy, path: str, rate: float, seconds: int, directory: Path, core: int = LOAD_CORE
) -> list[float]:
    """Seconds until each answer at *rate* requests a second, by h2load."""
    log = directory / "paced.log"
    log.unlink(missing_ok=True)
    clients = 32
    command = [
        *("taskset", "-c", str(core), "h2load", "--h1", "-t", "1", "-c", str(clients)),
        *("--rps", f"{rate / clients:.2f}", "-D", str(seconds), "--log-file", str(log)),
        proxy.url(path),
    ]
    subprocess.run(command, capture_output=True, text=True, check=True)
    rows = (line.split("\t") for line in log.read_text().splitlines())
    return [int(row[2]) / 1e6 for row in rows if row[1] == "200"]


def p50_p99(waits: list[float]) -> tuple[float, float]:
    return percentile(waits, 0.5), percentile(waits, 0.99)


def _find(pattern: str, output: str) -> str:
    match = re.search(pattern, output)
    if match is None:
        raise SystemExit(f"error: wrk said:\n{output}")
    return match[1]


def _seconds(text: str) -> float:
    match = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text)
    assert match is not None, text
    return float(match[1]) * UNITS[match[2]]
