"""Sends transfers: a bounded number at a time, in slices, and to nobody who does not read.

However many there are, one slice is made between two looks at the sockets, so that a question
waits for less than a millisecond or two.
"""

import asyncio
import ipaddress
from collections.abc import Iterator
from typing import Protocol

from dnsd.metrics import Counts
from dnsd.transfer import Transfer
from registry.runtime import logs

AT_ONCE = 4
"""Transfers under way; more wait."""

MAX_WAITING = 100
"""Transfers that wait; more are refused, and asked for again by the secondary."""

STALL = 30.0
"""Seconds in which a secondary must read something.  It may be writing to a disk; a peer with
ordinary questions has less."""

log = logs.get("dnsd")


class Line(Protocol):
    """The connection that a transfer goes over."""

    @property
    def address(self) -> bytes:
        """The peer's, as 4 or 16 octets."""

    def write(self, message: bytes) -> None:
        """Send one message, or keep it until the peer reads."""

    async def writable(self) -> None:
        """Wait until what is kept is little again."""

    def end(self, reason: str) -> None:
        """Close, whatever is under way: the peer must not take what it has for the whole."""


class Outgoing:
    """All transfers of a worker."""

    def __init__(self, counts: Counts, *, at_once: int = AT_ONCE, stall: float = STALL) -> None:
        self._counts = counts
        self._stall = stall
        self._slots = asyncio.Semaphore(at_once)
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting = 0

    def __repr__(self) -> str:
        return f"<Outgoing {self._counts.transfers_active} transfers, {self._waiting} waiting>"

    def start(self, transfer: Transfer, line: Line) -> "asyncio.Task[None] | None":
        """Send *transfer*, now or later; None where it was refused.

        Whoever loses the connection cancels the task.
        """
        if self._waiting >= MAX_WAITING:
            self._counts.transfers[transfer.kind, "refused"] += 1
            line.write(transfer.refusal())
            return None
        task = asyncio.get_running_loop().create_task(self._send(transfer, line))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """End them all."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _send(self, transfer: Transfer, line: Line) -> None:
        result = "aborted"
        try:
            self._waiting += 1
            try:
                await self._slots.acquire()
            finally:
                self._waiting -= 1
            self._counts.transfers_active += 1
            try:
                await self._send_messages(transfer.messages(), line)
                result = "sent"
            finally:
                self._counts.transfers_active -= 1
                self._slots.release()
        except TimeoutError:
            result = "stalled"
            line.end("stalled")
        except Exception:
            result = "failed"
            self._counts.errors += 1
            log.exception("transfer failed", zone=transfer.zone)
            line.end("failed")
        finally:
            self._note(transfer, result, line)

    async def _send_messages(self, messages: Iterator[bytes | None], line: Line) -> None:
        nothing_more = object()
        while True:
            async with self._turn:
                message = next(messages, nothing_more)
                await asyncio.sleep(0)
            if message is nothing_more:
                return
            if isinstance(message, bytes):
                line.write(message)
                async with asyncio.timeout(self._stall):
                    await line.writable()

    def _note(self, transfer: Transfer, result: str, line: Line) -> None:
        self._counts.transfers[transfer.kind, result] += 1
        self._counts.transfer_octets += transfer.octets
        # Differences go out each second where much changes: those are counted, not told.
        level = "debug" if (transfer.kind, result) == ("ixfr", "sent") else "info"
        log.at(
            level,
            "zone transferred" if result == "sent" else "zone not transferred",
            zone=transfer.zone,
            kind=transfer.kind,
            result=result,
            serial=transfer.serial,
            to=ipaddress.ip_address(line.address),
            records=transfer.records,
            octets=transfer.octets,
        )
