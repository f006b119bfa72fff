"""Cookies: RFC 9018's own examples, times and secrets, and what each cookie gets in reply."""

import os

import dns.edns
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsd.cookies import FULL, REMEMBERED, Cookies
from dnsd.responder import Peer
from dnsd.siphash import siphash, siphash_slowly
from registry.model import Instance
from tests.support.dns import counts, flag_word, header, opt, option, query, question
from tests.support.dnsd import LOCAL, LOCAL_TCP, Dnsd, instance

SECRET = bytes.fromhex("e5e973e5a6b2a43f48e7dc849e37bfcf")
NEW_SECRET = bytes.fromhex("445536bcd2513298075a5d379663c962")
CLIENT = bytes.fromhex("2464c4abcf10c957")
HOST = bytes((198, 51, 100, 100))
BADCOOKIE_OPT = b"\0\0\x29\x04\xd0\1\0\0\0\0\x1c"
MINE = b"\x7f\0\0\1"
Q = question("payments.svc.internal")


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def cookies_at(now: float, *secrets: bytes) -> Cookies:
    return Cookies(secrets or (SECRET,), Clock(now))


def cookie_of(reply: bytes | None) -> bytes | None:
    """The COOKIE option of a reply, as dnspython reads it."""
    assert reply is not None
    for found in dns.message.from_wire(reply).options:
        if found.otype == dns.edns.OptionType.COOKIE:
            return found.to_wire() or b""
    return None


def asking(cookie: bytes) -> bytes:
    return query("payments.svc.internal.", edns=1232, options=[(10, cookie)])


@given(st.binary(min_size=16, max_size=16), st.binary(max_size=64))
def test_both_hashes_are_the_same(key: bytes, message: bytes) -> None:
    assert siphash(key, message) == siphash_slowly(key, message)


def test_e20_the_hash_is_siphash_2_4() -> None:
    """Of the vectors that its authors published: 15 octets under the key 00 … 0f."""
    assert siphash_slowly(bytes(range(16)), bytes(range(15))) == 0xA129CA6149BE45E5


def test_e20_a1_learning_a_new_server_cookie() -> None:
    verdict = cookies_at(1559731985).judge(CLIENT, HOST)

    assert not verdict.valid
    assert verdict.option == option(
        10, bytes.fromhex("2464c4abcf10c957010000005cf79f111f8130c3eee29480")
    )


def test_e20_a2_the_same_client_later_is_given_a_fresh_one() -> None:
    cookie = bytes.fromhex("2464c4abcf10c957010000005cf79f111f8130c3eee29480")
    verdict = cookies_at(1559734385).judge(cookie, HOST)

    assert verdict.valid
    assert verdict.option == option(
        10, bytes.fromhex("2464c4abcf10c957010000005cf7a871d4a564a1442aca77")
    )


def test_e20_a3_another_client_with_reserved_octets_that_are_not_zero() -> None:
    """The hash covers them as they came; those of the fresh one are zero."""
    cookie = bytes.fromhex("fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5")
    verdict = cookies_at(1559727985).judge(cookie, bytes((203, 0, 113, 203)))
    later = cookies_at(1559734700).judge(cookie, bytes((203, 0, 113, 203)))

    assert verdict.valid
    assert not later.valid  # it is older than an hour
    assert later.option[:20] == option(10, b"\0" * 24)[:4] + cookie[:8] + bytes.fromhex(
        "010000005cf7a9ac"
    )


def test_e20_a4_e24_a_cookie_of_the_old_secret_from_ipv6_is_renewed() -> None:
    cookie = bytes.fromhex("22681ab97d52c298010000005cf7c57926556bd0934c72f8")
    address = bytes.fromhex("20010db80220000159de d0f48769 82b8".replace(" ", ""))
    cookies = cookies_at(1559741961, NEW_SECRET, bytes.fromhex("dd3bdf9344b678b185a6f5cb60fca715"))
    verdict = cookies.judge(cookie, address)

    assert verdict.valid
    assert verdict.option == option(
        10, bytes.fromhex("22681ab97d52c298010000005cf7c609a6bb79d16625507a")
    )


@pytest.mark.parametrize(
    ("age", "valid", "renewed"),
    [
        (-301, False, True),
        (-300, True, False),
        (0, True, False),
        (1800, True, False),
        (1801, True, True),
        (3600, True, True),
        (3601, False, True),
    ],
)
@pytest.mark.parametrize("made", [1_800_000_000, 2**32 - 100, 2**32 + 50])
def test_e21_e19_how_old_a_cookie_may_be(age: int, valid: bool, renewed: bool, made: int) -> None:
    cookie = cookies_at(made).judge(CLIENT, HOST).option[4:]
    verdict = cookies_at(made + age).judge(cookie, HOST)

    assert verdict.valid is valid
    assert (verdict.option[4:] != cookie) is renewed


def test_e16_whatever_is_wrong_with_it_it_is_not_valid_and_a_fresh_one_comes() -> None:
    cookies = cookies_at(1_800_000_000)
    good = cookies.judge(CLIENT, HOST).option[4:]
    assert cookies.judge(good, HOST).valid

    wrong = [good[:i] + bytes((good[i] ^ 1,)) + good[i + 1 :] for i in range(FULL)]
    wrong += [good[:-1], good + b"\0", good[:16], good + bytes(16)]
    for cookie in wrong:
        verdict = cookies.judge(cookie, HOST)
        assert not verdict.valid
        assert cookies.judge(verdict.option[4:], HOST).valid
    assert not cookies.judge(good, bytes((198, 51, 100, 101))).valid


def test_e24_three_stages_of_a_new_secret_lose_nobody() -> None:
    clock = Clock(1_800_000_000)
    one, two = Cookies((SECRET,), clock), Cookies((SECRET,), clock)
    held = one.judge(CLIENT, HOST).option[4:]
    for secrets in ((SECRET, NEW_SECRET), (NEW_SECRET, SECRET), (NEW_SECRET,)):
        one.use(secrets)
        for server in (one, two):  # the replicas get there one after the other
            verdict = server.judge(held, HOST)
            assert verdict.valid
            held = verdict.option[4:]
        two.use(secrets)
        held = two.judge(held, HOST).option[4:]  # long before the next stage

    assert held == Cookies((NEW_SECRET,), clock).judge(CLIENT, HOST).option[4:]


def test_verdicts_are_remembered_within_bounds_and_for_a_minute() -> None:
    clock = Clock(1_800_000_000)
    cookies = Cookies((SECRET,), clock)
    held = cookies.judge(CLIENT, HOST).option[4:]
    for n in range(2 * REMEMBERED):
        cookies.judge(n.to_bytes(8, "big"), HOST)
    assert cookies.judge(held, HOST).valid
    clock.now += 3601
    assert not cookies.judge(held, HOST).valid
    assert cookies.counts == {"new": 1 + 2 * REMEMBERED, "valid": 1, "bad": 1}


@pytest.fixture
def cookies() -> Cookies:
    return cookies_at(1_800_000_000)


@pytest.fixture
def dnsd(cookies: Cookies) -> Dnsd:
    return Dnsd(instance(), cookies=cookies)


@pytest.mark.parametrize("peer", [LOCAL, LOCAL_TCP])
def test_e15_e16_e18_e19_every_cookie_is_answered_with_one(
    dnsd: Dnsd, cookies: Cookies, peer: Peer
) -> None:
    fresh = cookies.judge(CLIENT, MINE).option[4:]
    for sent in (CLIENT, fresh, CLIENT + bytes(16), CLIENT + bytes(8), CLIENT + bytes(32)):
        reply = dnsd.raw(asking(sent), peer)
        assert reply is not None
        assert flag_word(reply) == 0x8400
        assert cookie_of(reply) == fresh


def test_e16_of_several_the_first_counts(dnsd: Dnsd, cookies: Cookies) -> None:
    two = option(10, CLIENT) + option(10, b"another.")
    reply = dnsd.raw(header(ar=1) + Q + opt(rdata=two))

    assert cookie_of(reply) == cookies.judge(CLIENT, MINE).option[4:]


@pytest.mark.parametrize(
    ("packet", "word"),
    [
        (query("absent.svc.internal.", edns=1232, options=[(10, CLIENT)]), 0x8403),
        (query("example.org.", edns=1232, options=[(10, CLIENT)]), 0x8005),
        (query("svc.internal.", "AXFR", edns=1232, options=[(10, CLIENT)]), 0x8004),
        (query("svc.internal.", qclass="CH", edns=1232, options=[(10, CLIENT)]), 0x8005),
        (header(0x2000, ar=1) + Q + opt(rdata=option(10, CLIENT)), 0xA004),
        (header(qd=2, ar=1) + Q + Q + opt(rdata=option(10, CLIENT)), 0x8001),
        (header(ar=1) + Q + opt(rdata=option(10, CLIENT) + option(19, b"x")), 0x8001),
    ],
)
def test_e23_every_reply_with_an_opt_has_the_cookie(
    dnsd: Dnsd, cookies: Cookies, packet: bytes, word: int
) -> None:
    reply = dnsd.raw(packet)

    assert reply is not None
    assert flag_word(reply) == word
    assert cookie_of(reply) == cookies.judge(CLIENT, MINE).option[4:]


def test_e23_errors_within_have_it_too(cookies: Cookies) -> None:
    dnsd = Dnsd(instance(), state="loading", cookies=cookies)

    assert cookie_of(dnsd.raw(asking(CLIENT))) == cookies.judge(CLIENT, MINE).option[4:]


@pytest.mark.parametrize(
    "packet",
    [
        header(ar=1) + Q + opt(version=1, rdata=option(10, CLIENT)),
        header(ar=1) + Q + opt(rdata=option(10, CLIENT) + b"\0"),
        header(ar=1) + Q + opt(rdata=option(10, b"short")),
        header(ar=1) + Q + opt(rdata=option(100)),
    ],
)
def test_e4_e9_e14_no_cookie_where_none_is_due(dnsd: Dnsd, packet: bytes) -> None:
    assert cookie_of(dnsd.raw(packet)) is None


def test_h7_without_a_question_a_cookie_alone_is_asked_for(dnsd: Dnsd, cookies: Cookies) -> None:
    fresh = cookies.judge(CLIENT, MINE).option
    for sent in (CLIENT, fresh[4:]):
        reply = dnsd.raw(header(qd=0, ar=1) + opt(rdata=option(10, sent)))
        assert reply == header(0x8000, qd=0, ar=1) + opt(rdata=fresh)

    wrong = header(qd=0, ar=1) + opt(rdata=option(10, CLIENT + bytes(16)))
    assert dnsd.raw(wrong) == header(0x8007, qd=0, ar=1) + BADCOOKIE_OPT + fresh
    assert dnsd.raw(wrong, LOCAL_TCP) == header(0x8000, qd=0, ar=1) + opt(rdata=fresh)
    short = header(qd=0, ar=1) + opt(rdata=option(10, b"short"))
    assert dnsd.raw(short) == header(0x8001, qd=0, ar=1) + opt()
    later = header(qd=0, ar=1) + opt(version=1, rdata=option(10, CLIENT))
    assert dnsd.raw(later) == header(0x8000, qd=0, ar=1) + b"\0\0\x29\x04\xd0\1\0\0\0\0\0"


def test_t11_a_cookie_has_its_room(cookies: Cookies) -> None:
    """Whatever the size of the answer: the reply with the cookie fits the asker's buffer."""
    for number in range(1, 70):
        dnsd = Dnsd(*_instances(number), cookies=cookies)
        for size in (512, 700, 1232):
            packet = query("crowd.svc.internal.", edns=size, options=[(10, CLIENT)])
            reply = dnsd.raw(packet)
            assert reply is not None
            assert len(reply) <= size
            assert cookie_of(reply) == cookies.judge(CLIENT, MINE).option[4:]
            found = dns.message.from_wire(reply)
            assert counts(reply)[1] == sum(len(s) for s in found.answer)


def _instances(number: int) -> list[Instance]:
    return [instance("crowd", f"c{n}", (f"10.0.0.{n}",)) for n in range(number)]


def test_secrets_are_checked() -> None:
    for secrets in ((), (b"short",), (os.urandom(16),) * 4):
        with pytest.raises(ValueError, match="secrets of 16"):
            Cookies(secrets, Clock(0))


def test_e13_l20_identity_for_those_who_ask() -> None:
    dnsd = Dnsd(instance(), name=b"east-1")
    for packet in (
        query("payments.svc.internal.", edns=1232, options=[(3, b"")]),
        query("absent.svc.internal.", edns=1232, options=[(3, b"payload")]),
        query("example.org.", edns=1232, options=[(3, b""), (3, b"")]),
    ):
        reply = dnsd.raw(packet)
        assert reply is not None
        assert reply.endswith(option(3, b"east-1"))
        assert reply.count(b"east-1") == 1
    unasked = dnsd.raw(query("payments.svc.internal.", edns=1232))
    assert unasked is not None
    assert b"east-1" not in unasked
    nameless = Dnsd(instance()).raw(query("example.org.", edns=1232, options=[(3, b"")]))
    assert nameless is not None
    assert nameless.endswith(b"\x00\x06\x00\x0f\x00\x02\x00\x14")


@pytest.mark.parametrize("name", ["id.server.", "HOSTNAME.bind."])
def test_l20_chaos_names_the_server_if_it_has_a_name(name: str) -> None:
    packet = query(name, "TXT", qclass="CH")
    reply = Dnsd(name=b"east-1").raw(packet)

    assert reply is not None
    answer = dns.message.from_wire(reply)
    assert flag_word(reply) == 0x8400
    assert answer.answer[0].ttl == 0
    assert answer.answer[0].to_text().endswith('0 CH TXT "east-1"')
    assert flag_word(Dnsd().raw(packet) or b"") == 0x8005
    other = Dnsd(name=b"east-1").raw(query(name, "A", qclass="CH"))
    assert flag_word(other or b"") == 0x8005


@pytest.mark.parametrize("name", ["version.bind.", "version.server.", "authors.bind."])
def test_l21_chaos_tells_nothing_else(name: str) -> None:
    reply = Dnsd(name=b"east-1").raw(query(name, "TXT", qclass="CH"))

    assert flag_word(reply or b"") == 0x8005


@pytest.mark.parametrize("value", [b"", b"\0\x64", b"odd"])
def test_e26_keepalive_over_tcp_is_the_idle_time_now_in_force(value: bytes) -> None:
    dnsd = Dnsd(instance())
    packet = query("payments.svc.internal.", edns=1232, options=[(11, value)])
    for idle, units in ((10.0, 100), (2.0, 20), (0.0, 0)):
        reply = dnsd.raw(packet, LOCAL_TCP._replace(idle=idle))
        assert reply is not None
        assert reply.endswith(option(11, units.to_bytes(2, "big")))


def test_c14_whoever_should_leave_is_told_unasked_where_edns_is_spoken() -> None:
    dnsd = Dnsd(instance())
    leaving = LOCAL_TCP._replace(idle=0.0)
    told = dnsd.raw(query("payments.svc.internal.", edns=1232), leaving)
    assert told is not None
    assert told.endswith(option(11, b"\0\0"))
    plain = query("payments.svc.internal.")
    assert dnsd.raw(plain, leaving) == dnsd.raw(plain, LOCAL_TCP)


def test_e25_keepalive_over_udp_is_ignored() -> None:
    reply = Dnsd(instance()).raw(
        query("payments.svc.internal.", edns=1232, options=[(11, b"\0\x64")])
    )

    assert reply is not None
    assert reply.endswith(opt())
    assert dns.message.from_wire(reply).rcode() == dns.rcode.NOERROR
