"""A relay in front of a store: connections that can be cut, and led to another server."""

import asyncio
import contextlib
import shutil
import tempfile


class Relay:
    """Listens on a Unix socket of its own and passes bytes on to `upstream`."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self._directory = tempfile.mkdtemp(prefix="cb-")
        self._open = True
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"unix://{self._directory}/r"

    async def __aenter__(self) -> "Relay":
        self._server = await asyncio.start_unix_server(self._connected, f"{self._directory}/r")
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._links, return_exceptions=True)
        shutil.rmtree(self._directory)

    def cut(self) -> None:
        """Close what is open and refuse what comes."""
        self._open = False
        for link in self._links:
            link.cancel()

    def lead_to(self, upstream: str) -> None:
        """Close what is open; whoever connects again finds *upstream*."""
        self.cut()
        self.upstream, self._open = upstream, True

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                if self._open:
                    await self._pass_on(reader, writer)
        finally:
            self._links.discard(link)
            writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(self.upstream)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, far_writer))
                group.create_task(_copy(far_reader, writer))
        except* OSError:
            pass
        finally:
            far_writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError("one end closed: so does the other")
