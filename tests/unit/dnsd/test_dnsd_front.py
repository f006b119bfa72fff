"""The second way to memory, which must say what the first would, and what strangers get."""

import random

import dns.message
import dns.rcode
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnsd.cookies import Cookies
from dnsd.front import Front, kind_of, respell
from dnsd.limits import BURST, Limited, RateLimiter
from dnsd.metrics import Counts
from dnsd.query import Query, parse_query
from dnsd.responder import AMPLIFICATION, Peer
from registry.model import Port
from tests.support.dns import counts, flag_word, header, opt, option, query, question, wire_name
from tests.support.dnsd import LOCAL, Dnsd, instance

CLIENT = bytes.fromhex("2464c4abcf10c957")
STRANGER = Peer(b"\xc6\x33\x64\x64", trusted=False)
NOW = 1_800_000_000.0
SMALL, LARGE = 3, 40
TYPES = (1, 2, 5, 6, 12, 16, 28, 33, 65, 255, 1000)
NAMES = (
    "svc.internal.",
    "ns1.svc.internal.",
    "_tcp.svc.internal.",
    "few.svc.internal.",
    "i1.few.svc.internal.",
    "_http._tcp.few.svc.internal.",
    "_few._tcp.svc.internal.",
    "many.svc.internal.",
    "_http._tcp.many.svc.internal.",
    "absent.svc.internal.",
    "a.b.c.few.svc.internal.",
    "example.org.",
    ".",
)


class Stage:
    """A front over what a few services are, and a responder that answers without memory."""

    def __init__(self, limiter: RateLimiter | None = None) -> None:
        self.cookies = Cookies((b"a secret of ours",), lambda: NOW)
        self.dnsd = Dnsd(
            *(instance("few", f"i{n}", (f"10.0.0.{n}", f"2001:db8::{n}")) for n in range(SMALL)),
            *(
                instance("many", f"an-instance-{n}", (f"10.0.1.{n}",), metadata={"k": "v" * 200})
                for n in range(LARGE)
            ),
            cookies=self.cookies,
        )
        self.counts = Counts()
        self.front = Front(
            self.dnsd.responder,
            self.dnsd.memo,
            self.counts,
            cookies=self.cookies,
            limiter=limiter,
        )

    def ask(self, packet: bytes, peer: Peer = LOCAL, now: float = 0.0) -> bytes:
        reply = self.front.answer(packet, peer, now)
        assert reply is not None
        return reply

    def good_cookie(self, peer: Peer) -> bytes:
        return self.cookies.judge(CLIENT, peer.address).option[4:]


def spelled(name: str, seed: int) -> str:
    rng = random.Random(seed)
    return "".join(rng.choice((c.lower(), c.upper())) for c in name)


REQUESTS = st.builds(
    lambda name, seed, rtype, edns, do, rd, ad, cookie, tail: (
        name,
        seed,
        rtype,
        edns,
        do,
        rd,
        ad,
        cookie,
        tail,
    ),
    st.sampled_from(NAMES),
    st.integers(0, 1 << 16),
    st.sampled_from(TYPES),
    st.sampled_from([None, 0, 512, 600, 1232, 4096]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["none", "new", "good", "bad", "short", "long", "twice", "other"]),
    st.sampled_from([b"", b"x", opt(), option(10, CLIENT)]),
)


def packet_of(stage: Stage, peer: Peer, drawn: tuple[object, ...]) -> bytes:
    name, seed, rtype, edns, do, rd, ad, cookie, tail = drawn
    assert isinstance(name, str)
    assert isinstance(seed, int)
    assert isinstance(rtype, int)
    assert isinstance(tail, bytes)
    options = {
        "none": b"",
        "new": option(10, CLIENT),
        "good": option(10, stage.good_cookie(peer)),
        "bad": option(10, CLIENT + bytes(16)),
        "short": option(10, b"short"),
        "long": option(10, CLIENT + bytes(32)),
        "twice": option(10, CLIENT) + option(10, CLIENT),
        "other": option(65001, CLIENT),
    }[str(cookie)]
    flags = (0x0100 if rd else 0) | (0x20 if ad else 0)
    body = question(spelled(name, seed), rtype)
    if not isinstance(edns, int):
        return header(flags) + body + tail
    return header(flags, ar=1) + body + opt(edns, 0, 0x8000 if do else 0, options) + tail


@settings(max_examples=300, deadline=None)
@given(REQUESTS, st.booleans(), st.booleans())
def test_the_second_way_says_what_the_first_would(
    drawn: tuple[object, ...], trusted: bool, warm: bool
) -> None:
    peer = LOCAL if trusted else STRANGER
    stage = STAGE
    packet = packet_of(stage, peer, drawn)
    if warm:  # the same in lower case is remembered
        stage.front.answer(packet[:12] + packet[12:].lower(), peer, 0.0)

    reply = stage.ask(packet, peer)
    slow = stage.dnsd.raw(packet, peer)

    assert slow is not None
    if len(slow) == len(reply) and counts(slow)[1] <= 1:
        assert reply == slow
    assert _shape(reply) == _shape(slow)


def _shape(reply: bytes) -> object:
    """All of a reply but which of several records it has, and in which order."""
    answer = dns.message.from_wire(reply)
    found = [
        frozenset((str(s.name), s.rdtype, s.ttl, s.rdclass) for s in section)
        for section in (answer.answer, answer.authority)
    ]
    octets = reply[:6], reply[12 : 12 + _question_size(reply)]
    options = [(o.otype, o.to_wire()) for o in answer.options]
    return octets, found, options, answer.edns, answer.payload, answer.ednsflags


def _question_size(reply: bytes) -> int:
    at = 12
    while reply[at]:
        at += reply[at] + 1
    return at + 5 - 12


STAGE = Stage()
"""One for all examples: what earlier ones left in memory must not show."""


@given(st.binary(max_size=120))
def test_only_what_is_plain_has_the_form_of_something_plain(request_: bytes) -> None:
    """Whatever its octets: if its form is a plain request's, it is one but for case and cookie."""
    found = respell(request_)
    if found is None:
        return
    form, _, cookie = found
    parsed = parse_query(b"\0\0" + form)
    if isinstance(parsed, Query) and parsed.plain:
        own = parse_query(b"\0\0" + request_)
        assert isinstance(own, Query)
        assert (own.key, own.qtype, own.qclass) == (parsed.key, parsed.qtype, parsed.qclass)
        assert own.cookie == (cookie or None)


def test_any_case_any_cookie_one_place_in_memory() -> None:
    stage = Stage()
    for seed in range(50):
        name = spelled("_http._tcp.few.svc.internal.", seed)
        cookie = seed.to_bytes(8, "big")
        for options in ([], [(10, cookie)], [(10, stage.good_cookie(LOCAL))]):
            packet = query(name, "SRV", edns=1232, options=options)
            reply = stage.ask(packet)
            answer = dns.message.from_wire(reply)
            assert dns.message.from_wire(packet).is_response(answer)
            assert reply[12 : 12 + len(wire_name(name))] == wire_name(name)
            assert len(answer.answer[0]) == SMALL
            assert len(answer.options) == len(options)
    assert len(stage.dnsd.memo) == 1
    assert sum(stage.counts.replies.values()) == 1
    assert stage.dnsd.memo.hits().total() == 149


def test_b8_floods_of_random_names_cases_cookies_and_options_leave_nothing() -> None:
    stage = Stage(RateLimiter(200, 2, b"seed"))
    rng = random.Random(1)
    for peer in (LOCAL, STRANGER):
        for n in range(500):
            random_name = f"x{rng.getrandbits(60):x}.svc.internal."
            seed = rng.getrandbits(30)
            for packet in (
                query(random_name),
                query(spelled(random_name, seed)),
                query(spelled("few.svc.internal.", seed)),
                query("few.svc.internal.", edns=1232, options=[(10, rng.randbytes(8))]),
                query("few.svc.internal.", edns=1232, options=[(10, rng.randbytes(24))]),
                query("few.svc.internal.", edns=1232, options=[(65001, rng.randbytes(20))]),
                query(spelled("example.org.", seed)),
            ):
                stage.front.answer(packet, peer, float(n))
    assert len(stage.dnsd.memo) <= 4


# --- strangers -----------------------------------------------------------------------------------


def limited(stage: Stage, packet: bytes, times: int, peer: Peer = STRANGER) -> list[bytes | None]:
    return [stage.front.answer(packet, peer, 100.0) for _ in range(times)]


def test_b4_b5_beyond_the_rate_every_second_answer_asks_to_come_by_tcp() -> None:
    stage = Stage(RateLimiter(200, 2, b"seed"))
    packet = query("few.svc.internal.", edns=1232)
    replies = limited(stage, packet, 300)

    assert all(flag_word(r) == 0x8400 for r in replies[:200] if r)
    over = replies[200:]
    assert over.count(None) == 50
    slips = {r for r in over if r is not None}
    assert slips == {packet[:2] + header(0x8600, ar=1)[2:] + packet[12:-11] + opt()}
    assert stage.counts.limited == {"dropped": 50, "slipped": 50}
    assert stage.front.answer(packet, STRANGER, 101.0) is not None


@pytest.mark.parametrize(("slip", "sent"), [(0, 0), (1, 100), (2, 50), (10, 10)])
def test_b5_how_many_slip_is_a_setting(slip: int, sent: int) -> None:
    stage = Stage(RateLimiter(200, slip, b"seed"))
    over = limited(stage, query("few.svc.internal."), 300)[200:]

    assert len(over) - over.count(None) == sent


def test_b6_e19_the_trusted_and_those_with_a_valid_cookie_are_never_limited() -> None:
    stage = Stage(RateLimiter(1, 2, b"seed"))
    plain = query("few.svc.internal.")
    cookie = [(10, stage.good_cookie(STRANGER))]
    proven = query("FEW.svc.internal.", edns=1232, options=cookie)
    two = query("few.svc.internal.", edns=1232, options=[*cookie, (65001, b"x")])

    assert all(flag_word(r or b"") == 0x8400 for r in limited(stage, plain, 50, LOCAL))
    for packet in (proven, two):
        assert all(flag_word(r or b"") == 0x8400 for r in limited(stage, packet, 50))
    assert not stage.counts.limited


@pytest.mark.parametrize("cookie", [CLIENT, CLIENT + bytes(16)])
def test_e17_under_pressure_a_bad_cookie_gets_badcookie_and_the_right_one(cookie: bytes) -> None:
    stage = Stage(RateLimiter(1, 1, b"seed"))
    packet = query("few.svc.internal.", edns=1232, options=[(10, cookie)])
    first, second = limited(stage, packet, 2)

    assert flag_word(first or b"") == 0x8400
    assert second is not None
    answer = dns.message.from_wire(second)
    assert flag_word(second) == 0x8007
    assert answer.rcode() == dns.rcode.BADCOOKIE
    assert counts(second) == (1, 0, 0, 1)
    fresh = stage.good_cookie(STRANGER)
    assert second.endswith(option(10, fresh))
    again = query("few.svc.internal.", edns=1232, options=[(10, fresh)])
    assert flag_word(stage.ask(again, STRANGER, 100.0)) == 0x8400


def test_e18_over_tcp_nobody_is_limited() -> None:
    stage = Stage(RateLimiter(1, 1, b"seed"))
    peer = STRANGER._replace(tcp=True)
    packet = query("few.svc.internal.", edns=1232, options=[(10, CLIENT + bytes(16))])

    assert all(flag_word(stage.dnsd.raw(packet, peer) or b"") == 0x8400 for _ in range(5))


def test_b4_names_are_counted_each_and_absent_ones_together() -> None:
    stage = Stage(RateLimiter(10, 2, b"seed"))
    absent = [stage.front.answer(query(f"n{n}.svc.internal."), STRANGER, 0.0) for n in range(30)]

    assert absent.count(None) == 10
    assert stage.ask(query("few.svc.internal."), STRANGER)
    assert stage.ask(query("example.org."), STRANGER)
    neighbour = STRANGER._replace(address=b"\xc6\x33\x64\x01")
    assert stage.front.answer(query("another.svc.internal."), neighbour, 0.0) is None
    elsewhere = STRANGER._replace(address=b"\xc6\x33\x65\x01")
    assert stage.ask(query("another.svc.internal."), elsewhere)


def test_b4_kinds_are_read_from_the_reply() -> None:
    stage = Stage()
    apex, few = wire_name("svc.internal"), wire_name("few.svc.internal")
    for packet, kind in (
        (query("FEW.svc.internal."), b"+" + few),
        (
            query("_http._tcp.many.svc.internal.", "SRV"),
            b"+" + wire_name("_http._tcp.many.svc.internal"),
        ),
        (query("few.svc.internal.", "NS"), b"-" + apex),
        (query("ABSENT.SVC.internal."), b"-" + apex),
        (query("svc.internal.", "MX"), b"-" + apex),
        (query("example.org."), b"!"),
        (header(0x2000, qd=0), b"!"),
        (header(qd=0), b"!"),
    ):
        reply = stage.dnsd.raw(packet)
        assert reply is not None
        assert kind_of(reply) == kind


def test_b4_the_rate_is_what_it_says_over_time() -> None:
    limiter = RateLimiter(50, 0, b"seed")
    sent = sum(limiter.judge(b"\1\2\3\4", b"k", n / 1000) is Limited.SENT for n in range(10_000))

    assert 500 <= sent <= 500 + 50 * BURST + 1


@given(
    st.lists(st.tuples(st.floats(0, 5), st.binary(min_size=4, max_size=4)), max_size=200),
    st.integers(1, 100),
)
def test_no_network_gets_more_than_its_share(asked: list[tuple[float, bytes]], rate: int) -> None:
    limiter = RateLimiter(rate, 0, b"seed", places=7)
    sent: dict[bytes, list[float]] = {}
    for now, address in sorted(asked):
        if limiter.judge(address, b"k", now) is Limited.SENT:
            sent.setdefault(address[:3], []).append(now)
    for times in sent.values():
        for i, start in enumerate(times):
            for j in range(i, len(times)):
                assert j - i + 1 <= rate * (BURST + times[j] - start) + 1


def test_networks_of_ipv6_have_56_bits() -> None:
    limiter = RateLimiter(1, 0, b"seed")
    home = bytes.fromhex("20010db800000100")
    assert limiter.judge(home + bytes(8), b"k", 0.0) is Limited.SENT
    assert limiter.judge(home[:7] + b"\xff" + bytes(8), b"k", 0.0) is Limited.DROPPED
    other = bytes.fromhex("20010db800000200")
    assert limiter.judge(other + bytes(8), b"k", 0.0) is Limited.SENT


def test_p14_b7_no_answer_to_a_stranger_is_ten_times_its_question() -> None:
    """Every name, type and size; errors are at most the question, an OPT, and what it asked for."""
    stage = Stage()
    worst = 0.0
    for name in NAMES:
        for rtype in (*TYPES, 251, 252):
            for edns in (None, 0, 512, 1232, 4096, 65535):
                for cookie in (None, CLIENT, CLIENT + bytes(16)):
                    if cookie is not None and edns is None:
                        continue
                    options = [] if cookie is None else [(10, cookie)]
                    packet = query(name, rtype, edns=edns, options=options)
                    for _ in range(2):
                        reply = stage.ask(packet, STRANGER)
                        worst = max(worst, len(reply) / len(packet))
                        assert len(reply) <= min(1232, AMPLIFICATION * len(packet))
                        if flag_word(reply) & 15 not in (0, 3):
                            asked_for = 28 if cookie else 0
                            assert len(reply) <= len(packet) + 11 + asked_for
    assert 4 < worst <= AMPLIFICATION
    assert not stage.counts.limited


def test_p14_what_a_stranger_does_not_get_has_tc_and_tcp_has_it_all() -> None:
    stage = Stage()
    packet = query("many.svc.internal.", edns=1232)
    reply = stage.ask(packet, STRANGER)

    assert flag_word(reply) == 0x8600
    assert len(reply) <= AMPLIFICATION * len(packet)
    assert counts(reply)[1] > 0
    assert counts(stage.ask(packet, LOCAL))[1] == LARGE
    whole = stage.dnsd.raw(packet, STRANGER._replace(tcp=True))
    assert whole is not None
    assert counts(whole)[1] == LARGE
    proven = query("many.svc.internal.", edns=1232, options=[(10, stage.good_cookie(STRANGER))])
    assert counts(stage.ask(proven, STRANGER))[1] == LARGE


def test_where_a_cookie_leaves_no_room_the_answer_is_made_anew() -> None:
    stage = Stage()
    ports = (Port("http", 1),)
    sizes = set()
    for n in range(80):
        stage.dnsd.up(instance("tight", f"t{n}", (f"10.2.0.{n}",), ports))
        size = 512 if n < 40 else 1232
        bare = stage.ask(query("tight.svc.internal.", edns=size))
        full = stage.ask(query("Tight.svc.internal.", edns=size, options=[(10, CLIENT)]))
        assert len(full) <= size
        assert full.endswith(option(10, stage.good_cookie(LOCAL)))
        sizes.add((flag_word(bare), flag_word(full)))
    assert (0x8400, 0x8600) in sizes
