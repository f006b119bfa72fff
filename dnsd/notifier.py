"""Tells the secondaries that a zone changed: a task for each zone and secondary."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from dnsd.config import Secondary
from dnsd.keyring import Keyring
from dnsd.metrics import Counts
from dnsd.notify import GiveUp, Message, Notice, Outcome, Send, Wait, compose, outcome_of
from dnsd.served import ServedZone
from registry.runtime import logs

SETTLING = 0.25
"""Seconds from a change to its NOTIFY where there are several workers: each follows the store by
itself, most of them within milliseconds.  A secondary that finds one older still hears of the
next change, or asks again after the zone's refresh time."""

log = logs.get("dnsd")


@dataclass(slots=True)
class _Told:
    """What was last sent, and the reply to it."""

    message: Message | None = None
    outcome: Outcome | None = None


class Notifier:
    """Keeps *secondaries* informed of the serial of *zones*.

    *serial* gives the present one, None while there is none; whoever moves it calls `changed`.
    *sources* are the addresses to send from, by IP version.
    """

    def __init__(
        self,
        zones: Sequence[ServedZone],
        secondaries: Sequence[Secondary],
        serial: Callable[[], int | None],
        keys: Callable[[], Keyring],
        counts: Counts,
        *,
        sources: Mapping[int, str],
        settling: float = 0.0,
    ) -> None:
        self._zones = tuple(zones)
        self._secondaries = tuple(secondaries)
        self._serial = serial
        self._keys = keys
        self._counts = counts
        self._sources = sources
        self._settling = settling
        self._wakes: set[asyncio.Event] = set()

    def __repr__(self) -> str:
        return f"<Notifier of {len(self._secondaries)} secondaries>"

    def changed(self) -> None:
        """The serial moved, or may have."""
        for wake in self._wakes:
            wake.set()

    async def run(self) -> None:
        """Tell them, for ever."""
        if not self._secondaries:
            await asyncio.Event().wait()
        async with asyncio.TaskGroup() as tasks:
            for served in self._zones:
                for secondary in self._secondaries:
                    tasks.create_task(self._inform(served, secondary))

    async def _inform(self, served: ServedZone, secondary: Secondary) -> None:
        loop = asyncio.get_running_loop()
        notice, told, wake = Notice(self._settling), _Told(), asyncio.Event()
        state = logs.Transition(log, "accepted")
        line = _Line(told, wake)
        self._wakes.add(wake)
        try:
            while True:
                wake.clear()
                if told.outcome is not None:
                    self._conclude(told.outcome, state, served, secondary)
                    told.message = told.outcome = None
                    notice.done()
                match notice.next_action(self._serial(), loop.time()):
                    case Send(serial):
                        key = None if secondary.key is None else self._keys().get(secondary.key)
                        told.message = compose(
                            served, serial, random.randrange(1 << 16), key, time.time()
                        )
                        notice.sent(loop.time())
                        try:
                            await line.send(told.message.packet, secondary, self._sources)
                        except OSError:
                            told.outcome = "unreachable"
                    case GiveUp():
                        told.outcome = "unanswered"
                    case Wait(seconds):
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(seconds):
                                await wake.wait()
        finally:
            self._wakes.discard(wake)
            line.close()

    def _conclude(
        self, outcome: Outcome, state: logs.Transition, served: ServedZone, secondary: Secondary
    ) -> None:
        self._counts.notifies[outcome] += 1
        state.enter(
            outcome,
            "secondary hears of changes" if outcome == "accepted" else "secondary not informed",
            level="info" if outcome == "accepted" else "warning",
            zone=served.zone.apex,
            secondary=secondary.address,
            why=outcome,
        )


class _Line(asyncio.DatagramProtocol):
    """A connected socket: so that only the secondary's own replies come in, and ICMP errors."""

    def __init__(self, told: _Told, wake: asyncio.Event) -> None:
        self._told = told
        self._wake = wake
        self._transport: asyncio.DatagramTransport | None = None

    async def send(self, packet: bytes, to: Secondary, sources: Mapping[int, str]) -> None:
        """Send *packet*; OSError when there is no way."""
        if self._transport is None:
            host = to.address.host
            source = sources.get(6 if ":" in host else 4)
            loop = asyncio.get_running_loop()
            await loop.create_datagram_endpoint(
                lambda: self,
                local_addr=None if source is None else (source, 0),
                remote_addr=(host, to.address.port),
            )
        assert self._transport is not None
        self._transport.sendto(packet)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def datagram_received(self, data: bytes, addr: object) -> None:
        if self._told.message is not None and self._told.outcome is None:
            self._told.outcome = outcome_of(data, self._told.message, time.time())
            self._wake.set()

    def error_received(self, exc: Exception) -> None:
        if self._told.message is not None:
            self._told.outcome = "unreachable"
            self._wake.set()
