"""NOTIFY: when it is sent, what it says, which replies count."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.tsig
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsd import notify
from dnsd.config import Secondary
from dnsd.keyring import read_keys
from dnsd.metrics import Counts
from dnsd.notifier import Notifier
from dnsd.notify import GiveUp, Notice, Send, Wait, compose, outcome_of
from registry.runtime.config import HostPort
from tests.support.dnsd import APEX
from tests.support.primary import KEYS, World, keyring
from tests.support.waiting import until

# --- when ---------------------------------------------------------------------------------------


class Story:
    """A notice whose clock the test moves; `sent` holds (time, serial) of what left."""

    def __init__(self, settling: float = 0.0) -> None:
        self.notice = Notice(settling)
        self.now = 100.0
        self.sent: list[tuple[float, int]] = []
        self.gave_up = False

    def run(self, serial: int | None, seconds: float = 0.0) -> None:
        """Let *seconds* pass with the zone at *serial*."""
        end = self.now + seconds
        while True:
            match self.notice.next_action(serial, self.now):
                case Send(told):
                    self.notice.sent(self.now)
                    self.sent.append((self.now - 100.0, told))
                case GiveUp():
                    self.gave_up = True
                case Wait(wait):
                    if self.now + wait > end:
                        self.now = end
                        return
                    self.now += wait

    @property
    def times(self) -> list[float]:
        return [at for at, _ in self.sent]


def test_x16_the_first_serial_is_told_at_once_and_no_serial_not_at_all() -> None:
    story = Story()
    story.run(None, 10)
    assert story.sent == []

    story.run(7)

    assert story.sent == [(10.0, 7)]


def test_x19_without_a_reply_it_is_repeated_five_times_and_then_no_more() -> None:
    story = Story()

    story.run(7, 1000)

    assert story.times == [0, 2, 6, 14, 30, 62]
    assert story.gave_up


def test_x20_after_a_reply_there_is_silence_until_the_next_change() -> None:
    story = Story()
    story.run(7, 3)
    story.notice.done()
    story.run(7, 1000)
    assert story.times == [0, 2]

    story.run(8)

    assert story.sent[-1] == (1003, 8)


def test_x19_a_new_change_starts_afresh() -> None:
    story = Story()
    story.run(7, 40)
    assert story.times == [0, 2, 6, 14, 30]

    story.run(8, 10)

    assert story.times[5:] == [40, 42, 46]


def test_x17_of_many_changes_one_a_second_is_told_and_the_last_for_sure() -> None:
    story = Story()
    for n in range(500):
        story.run(n, 0.01)
        story.notice.done()
    story.run(499, 1000)
    story.notice.done()

    gaps = [b - a for a, b in zip(story.times, story.times[1:], strict=False)]
    assert min(gaps) >= notify.INTERVAL
    assert [serial for at, serial in story.sent if at < 6.5][-1] == 499
    assert len([at for at in story.times if at < 5.0]) == 5


def test_x21_several_workers_have_a_moment_to_fold_the_change_in() -> None:
    story = Story(settling=0.25)

    story.run(7, 0.2)
    assert story.sent == []
    story.run(7, 0.1)

    assert story.times == [0.25]


def test_x21_changes_in_a_row_do_not_put_it_off_for_ever() -> None:
    story = Story(settling=0.25)
    for n in range(300):
        story.run(n, 0.01)
        story.notice.done()

    assert story.times[0] <= notify.INTERVAL
    assert len(story.sent) >= 2


def test_x21_the_last_of_many_changes_settles_before_it_is_told() -> None:
    story = Story(settling=0.25)
    story.run(1, 0.25)
    story.notice.done()
    story.run(2, 0.9)  # due one second after the first was told
    story.run(3, 0.2)
    story.notice.done()
    story.run(3, 1.5)
    story.notice.done()
    story.run(3, 1000)

    # Told a tenth of a second after the change, so not to be relied on; and once more.
    assert story.sent == [(0.25, 1), (1.25, 3), (2.25, 3)]


def test_a_reply_to_what_was_told_before_does_not_silence_the_next() -> None:
    story = Story()
    story.run(7)
    story.run(8)  # within the second: it waits
    story.notice.done()

    story.run(8, 2)

    assert story.sent[1] == (1.0, 8)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(0, 2), st.booleans()), max_size=40),
    st.sampled_from([0.0, 0.25]),
)
def test_x17_never_two_within_a_second(
    steps: list[tuple[int, float, bool]], settling: float
) -> None:
    story = Story(settling)
    for serial, seconds, replied in steps:
        story.run(serial, seconds)
        if replied:
            story.notice.done()

    assert all(
        b - a >= notify.INTERVAL - 1e-9 for a, b in zip(story.times, story.times[1:], strict=False)
    )


# --- what ---------------------------------------------------------------------------------------


KEY = next(iter(read_keys(KEYS).values()))


@pytest.mark.parametrize("signed", [True, False])
def test_x16_it_is_a_question_for_the_soa_with_the_new_soa_in_the_answer(signed: bool) -> None:
    world = World()
    sent = compose(world.table.zones[0], 4711, 99, KEY if signed else None, time.time())

    message = dns.message.from_wire(sent.packet, keyring=keyring())

    assert message.opcode() == dns.opcode.NOTIFY
    assert message.flags & 0x87FF == dns.flags.AA
    assert (message.id, message.had_tsig) == (99, signed)
    (asked,) = message.question
    assert (str(asked.name), asked.rdtype) == (APEX, dns.rdatatype.SOA)
    (answer,) = message.answer
    assert answer[0].serial == 4711


def reply_to(
    packet: bytes, rcode: int = 0, *, secret: bool = True, ring: object = None
) -> dns.message.Message:
    """What a secondary answers; signed if it was asked so, unless not *secret*."""
    asked = dns.message.from_wire(packet, keyring=ring or keyring())
    reply = dns.message.make_response(asked)
    reply.flags |= dns.flags.AA
    reply.answer.clear()
    reply.set_rcode(dns.rcode.Rcode(rcode))
    if not secret:
        reply.keyring = None
    return reply


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize(
    ("rcode", "outcome"),
    [(0, "accepted"), (4, "accepted"), (5, "refused"), (9, "refused"), (2, "refused")],
)
def test_x20_what_a_reply_means(rcode: int, outcome: str, signed: bool) -> None:
    world = World()
    sent = compose(world.table.zones[0], 1, 99, KEY if signed else None, time.time())
    reply = reply_to(sent.packet, rcode).to_wire()

    assert outcome_of(reply, sent, time.time()) == outcome


def unsigned(rcode: int = 0, **change: object) -> bytes:
    packet = compose(World().table.zones[0], 1, 99, None, 0.0).packet
    reply = reply_to(packet, rcode)
    for name, value in change.items():
        setattr(reply, name, value)
    return reply.to_wire()


def test_x20_what_is_no_reply_to_it_is_ignored() -> None:
    sent = compose(World().table.zones[0], 1, 99, None, 0.0)
    other = dns.message.make_query("other.example.", "SOA").question

    assert outcome_of(unsigned(), sent, 0.0) == "accepted"
    assert outcome_of(unsigned(id=98), sent, 0.0) is None
    assert outcome_of(unsigned(question=other), sent, 0.0) is None
    assert outcome_of(sent.packet, sent, 0.0) is None
    assert outcome_of(unsigned(flags=dns.flags.QR), sent, 0.0) is None
    assert outcome_of(b"", sent, 0.0) is None
    assert outcome_of(unsigned(question=[]), sent, 0.0) == "accepted"


def test_x20_a_signed_one_needs_a_signed_reply() -> None:
    sent = compose(World().table.zones[0], 1, 99, KEY, time.time())

    assert outcome_of(unsigned(), sent, time.time()) is None
    assert outcome_of(unsigned(9), sent, time.time()) == "refused"
    good = reply_to(sent.packet).to_wire()
    assert outcome_of(good, sent, time.time()) == "accepted"
    assert outcome_of(good, sent, time.time() + 1000) is None
    assert outcome_of(good[:-1] + b"\1", sent, time.time()) is None


@given(st.binary(max_size=100))
def test_any_octets_are_a_reply_or_not(octets: bytes) -> None:
    sent = compose(World().table.zones[0], 1, 0x6363, KEY, 0.0)

    assert outcome_of(b"cc\xa0" + octets, sent, 0.0) in (None, "refused")


# --- over real sockets --------------------------------------------------------------------------


class ASecondary(asyncio.DatagramProtocol):
    """Hears NOTIFY and answers it with `rcode`, or not at all."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, tuple[str, int]]] = []
        self.rcode: int | None = 0
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        message = dns.message.from_wire(data, keyring=keyring())
        self.heard.append((message.answer[0][0].serial, addr))
        if self.rcode is not None and self.transport is not None:
            self.transport.sendto(reply_to(data, self.rcode).to_wire(), addr)

    @property
    def address(self) -> HostPort:
        assert self.transport is not None
        return HostPort(*self.transport.get_extra_info("sockname")[:2])

    @property
    def serials(self) -> list[int]:
        return [serial for serial, _ in self.heard]


@asynccontextmanager
async def a_secondary(host: str = "127.0.0.1") -> AsyncIterator[ASecondary]:
    loop = asyncio.get_running_loop()
    transport, secondary = await loop.create_datagram_endpoint(ASecondary, local_addr=(host, 0))
    try:
        yield secondary
    finally:
        transport.close()
        await asyncio.sleep(0)


@asynccontextmanager
async def notifying(
    world: World, *secondaries: Secondary, sources: dict[int, str] | None = None
) -> AsyncIterator[tuple[Notifier, Counts]]:
    counts = Counts()
    notifier = Notifier(
        world.table.zones,
        secondaries,
        lambda: world.serial if world.settled else None,
        lambda: world.signatures.keys,
        counts,
        sources=sources or {},
    )
    task = asyncio.create_task(notifier.run())
    try:
        yield notifier, counts
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0)


@pytest.mark.parametrize("key", [KEY.name, None])
async def test_each_change_is_told_and_each_reply_counted(key: bytes | None) -> None:
    world = World(revision=7)
    async with (
        a_secondary() as secondary,
        notifying(world, Secondary(secondary.address, key)) as (notifier, counts),
    ):
        await until(lambda: counts.notifies["accepted"] == 1)
        world.forget("nobody")
        notifier.changed()
        await until(lambda: counts.notifies["accepted"] == 2)

    assert secondary.serials == [7, 8]


async def test_x18_it_comes_from_the_address_that_was_set() -> None:
    world = World(revision=7)
    async with a_secondary() as secondary:
        told = Secondary(secondary.address, None)
        async with notifying(world, told, sources={4: "127.0.0.9"}) as (_, counts):
            await until(lambda: counts.notifies["accepted"] == 1)

    assert secondary.heard[0][1][0] == "127.0.0.9"


async def test_secondaries_and_zones_are_told_independently() -> None:
    world = World(revision=7, zones=(APEX, "other.example."))
    async with a_secondary() as one, a_secondary() as two:
        two.rcode = 5
        told = [Secondary(s.address, KEY.name) for s in (one, two)]
        async with notifying(world, *told) as (_, counts):
            await until(lambda: counts.notifies["accepted"] == 2)
            await until(lambda: counts.notifies["refused"] == 2)


async def test_x19_icmp_unreachable_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    """And is said once, not at each change."""
    world = World(revision=7)
    async with a_secondary() as secondary:
        address = secondary.address
    async with notifying(world, Secondary(address, None)) as (notifier, counts):
        await until(lambda: counts.notifies["unreachable"] == 1)
        world.forget("nobody")
        notifier.changed()
        await until(lambda: counts.notifies["unreachable"] == 2)

    assert [r.message for r in caplog.records].count("secondary not informed") == 1


async def test_an_address_that_is_not_ours_to_send_from_is_no_way() -> None:
    world = World(revision=7)
    async with a_secondary() as secondary:
        told = Secondary(secondary.address, None)
        async with notifying(world, told, sources={4: "192.0.2.1"}) as (_, counts):
            await until(lambda: counts.notifies["unreachable"] == 1)


async def test_a_secondary_that_comes_late_hears_it_by_a_repetition() -> None:
    world = World(revision=7)
    async with a_secondary() as secondary:
        secondary.rcode = None
        async with notifying(world, Secondary(secondary.address, None)) as (_, counts):
            await until(lambda: secondary.heard)
            secondary.rcode = 0
            await until(lambda: counts.notifies["accepted"] == 1)

    assert secondary.serials == [7, 7]


async def test_x20_a_reply_from_elsewhere_does_not_come_in() -> None:
    world = World(revision=7)
    async with a_secondary() as secondary, a_secondary() as stranger:
        secondary.rcode = None
        async with notifying(world, Secondary(secondary.address, None)) as (_, counts):
            await until(lambda: secondary.heard)
            forged = unsigned()
            assert stranger.transport is not None
            for _ in range(100):
                stranger.transport.sendto(forged, secondary.heard[0][1])
            await asyncio.sleep(0)

            assert counts.notifies.total() == 0


async def test_nothing_is_told_while_there_is_nothing_to_transfer() -> None:
    world = World(revision=7)
    world.settled = False
    async with (
        a_secondary() as secondary,
        notifying(world, Secondary(secondary.address, None)) as (notifier, counts),
    ):
        notifier.changed()
        await asyncio.sleep(0)
        assert not secondary.heard
        world.settled = True
        notifier.changed()
        await until(lambda: counts.notifies["accepted"] == 1)
