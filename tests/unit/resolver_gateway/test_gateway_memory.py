"""Great bodies pass in constant memory: measured on the process, on the loop that it really has."""

import asyncio
from pathlib import Path

from registry.runtime.config import HostPort
from tests.support.gateway_process import GatewayProcess
from tests.support.http import DnsStub, head_fields

SIZE = 256 << 20
PIECE = b"x" * (1 << 18)

ALLOWED_KIB = 4 * 1024
"""A sixty-fourth of one of the bodies: buffers, and what the allocator rounds up to."""


def peak_kib(pid: int) -> int:
    """The most resident memory that *pid* has had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise AssertionError("no VmHWM")


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes a body of any length, answers with one in chunks."""
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            break
        left = int(head_fields(head).get("content-length", "0"))
        while left:
            left -= len(await reader.read(left))
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(SIZE // len(PIECE) if head.startswith(b"GET /great") else 1):
            writer.write(b"%x\r\n%b\r\n" % (len(PIECE), PIECE))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
    writer.close()


async def _download(address: HostPort, path: bytes) -> int:
    """The octets of the answer, chunks and all."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET /v2/payments/%b HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n" % path)
    found = 0
    while data := await reader.read(1 << 20):
        found += len(data)
    writer.close()
    return found


async def _upload(address: HostPort, size: int) -> bytes:
    """The status line of the answer to a body of *size*."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(
        b"PUT /v2/payments/ HTTP/1.1\r\nHost: g\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        % size
    )
    for _ in range(size // len(PIECE)):
        writer.write(PIECE)
        await writer.drain()
    line = await reader.readline()
    writer.close()
    return line


async def test_256_mib_each_way_pass_in_constant_memory(tmp_path: Path) -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", 0)
    stub = DnsStub()
    port = server.sockets[0].getsockname()[1]
    stub.instances["payments"] = [("e", "127.0.0.1", port, 0, 1)]
    dns = await stub.start()
    async with GatewayProcess(tmp_path, dns) as process:
        address = HostPort.parse(process.addresses["gateway"].removeprefix("http://"))
        assert await _download(address, b"small") > len(PIECE)
        assert (await _upload(address, len(PIECE))).startswith(b"HTTP/1.1 200")
        before = peak_kib(process.process.pid)
        found, line = await asyncio.gather(_download(address, b"great"), _upload(address, SIZE))
        grown = peak_kib(process.process.pid) - before

        assert found > SIZE
        assert line.startswith(b"HTTP/1.1 200")
        assert grown < ALLOWED_KIB
    server.close()
    stub.stop()
