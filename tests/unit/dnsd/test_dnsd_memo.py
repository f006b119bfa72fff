"""The memory of finished answers: what it holds, for how long, and that it stays bounded."""

from dnsd.memo import LIFE, OVERHEAD, Memo
from dnsd.responder import Peer
from tests.support.dns import flag_word, header, opt, option, query, question, shuffled_case
from tests.support.dnsd import LOCAL, Dnsd, instance

NOTHING = iter(())


def ask(dnsd: Dnsd, packet: bytes, peer: Peer = LOCAL, memo: Memo | None = None) -> bytes:
    """As the packet loop does: from memory, or from the responder and into memory."""
    memo = dnsd.memo if memo is None else memo
    entries = memo.trusted if peer.trusted else memo.strangers
    body = next(entries.get(packet[2:], NOTHING), None)
    if body is not None:
        return packet[:2] + body
    reply = dnsd.reply(packet, peer)
    assert reply.packet is not None
    if reply.keep is not None:
        memo.keep(packet[2:], peer.trusted, reply, reply.keep)
    return reply.packet


def crowd() -> Dnsd:
    return Dnsd(*(instance("crowd", f"c{n}", (f"10.0.0.{n}",)) for n in range(1, 6)))


def test_a_remembered_answer_is_the_one_that_would_be_made() -> None:
    dnsd = Dnsd(instance(), instance("other", "o1"))
    for name, rtype, edns in (
        ("payments.svc.internal.", "A", None),
        ("payments.svc.internal.", "AAAA", 1232),
        ("_http._tcp.payments.svc.internal.", "SRV", 512),
        ("svc.internal.", "SOA", None),
        ("svc.internal.", "NS", 4096),
        ("_tcp.svc.internal.", "A", None),
    ):
        packet = query(name, rtype, edns=edns)
        made = ask(dnsd, packet)
        size = len(dnsd.memo)

        assert [ask(dnsd, packet) for _ in range(3)] == [made] * 3
        assert len(dnsd.memo) == size
        assert ask(dnsd, b"\xff\xfe" + packet[2:]) == b"\xff\xfe" + made[2:]
    assert len(dnsd.memo) == 6


def test_every_request_of_another_form_has_an_answer_of_its_own() -> None:
    """RD, the offered size and DO are in the key: they shape the reply."""
    dnsd = crowd()
    base = query("crowd.svc.internal.", "A")
    for packet in (
        base,
        query("crowd.svc.internal.", "A", rd=True),
        query("crowd.svc.internal.", "A", edns=1232),
        query("crowd.svc.internal.", "A", edns=1232, do=True),
    ):
        for _ in range(2):
            reply = ask(dnsd, packet)
            assert flag_word(reply) & 0x0100 == packet[2] << 8 & 0x0100
            assert (b"\0\0\x29\x04\xd0" in reply) == (b"\0\0\x29\x04\xd0" in packet)


def test_a_change_of_a_service_ends_its_answers_and_no_others() -> None:
    dnsd = Dnsd(instance(), instance("other", "o1"))
    mine, other = query("payments.svc.internal.", "A"), query("other.svc.internal.", "A")
    ask(dnsd, mine)
    ask(dnsd, other)

    dnsd.up(instance("payments", "pay-2", ("10.0.0.2",)))

    assert list(dnsd.memo.trusted) == [other[2:]]
    assert b"\x0a\0\0\2" in ask(dnsd, mine)


def test_the_serial_in_remembered_answers_follows_every_change() -> None:
    dnsd = Dnsd(instance())
    negative = query("payments.svc.internal.", "AAAA")
    before = ask(dnsd, negative)
    for n in range(3):
        dnsd.up(instance("other", f"o{n}"))

        after = ask(dnsd, negative)

        assert negative[2:] in dnsd.memo.trusted, "it was not made anew"
        assert after == dnsd.reply(negative).packet
        assert after != before


def test_zone_wide_answers_end_with_any_change() -> None:
    dnsd = Dnsd(instance())
    for name in ("_tcp.svc.internal.", "svc.internal."):
        ask(dnsd, query(name, "SOA"))
    assert len(dnsd.memo) == 2

    dnsd.up(instance("other", "o1"))

    assert len(dnsd.memo) == 0


def test_b8_absent_names_odd_case_cookies_and_refusals_leave_nothing() -> None:
    dnsd = Dnsd(instance())
    spelled = shuffled_case("payments.svc.internal.")
    for packet in (
        query("absent.svc.internal.", "A"),
        query("example.org.", "A"),
        query(spelled, "A"),
        query("payments.svc.internal.", "A", edns=1232, options=[(10, b"12345678")]),
        query("payments.svc.internal.", "A", edns=1232, options=[(65001, b"random")]),
        query("payments.svc.internal.", "A", qclass="CH"),
        query("payments.svc.internal.", "A") + b"tail",
        header(ar=1) + question("payments.svc.internal") + opt(version=1),
        header(ar=1) + question("payments.svc.internal") + opt(rdata=option(12)),
        header(0x2000) + question("payments.svc.internal"),
    ):
        ask(dnsd, packet)

    assert len(dnsd.memo) == 0


def test_b8_random_sizes_and_flags_leave_nothing() -> None:
    """What a reply does not depend on, or hardly anybody offers, shall not fill the memory."""
    dnsd = Dnsd(instance())
    for flags in (0x0020, 0x0010, 0x0040, 0x0400, 0x0200, 0x0080, 0x000F):
        ask(dnsd, header(flags) + question("payments.svc.internal"))
    for size in (0, 511, 513, 1231, 1233, 65535):
        ask(dnsd, query("payments.svc.internal.", edns=size))
    for record in (opt(flags=0x4000), opt(flags=1), opt()[:5] + b"\1" + opt()[6:]):
        ask(dnsd, header(ar=1) + question("payments.svc.internal") + record)

    assert len(dnsd.memo) == 0


def test_strangers_and_trusted_have_each_their_own() -> None:
    dnsd = Dnsd(instance())
    packet = query("payments.svc.internal.", "A")

    ask(dnsd, packet)
    ask(dnsd, packet, Peer(b"\xc6\x33\x64\1", trusted=False))

    assert list(dnsd.memo.trusted) == list(dnsd.memo.strangers) == [packet[2:]]


def test_orders_change_and_are_drawn_anew_after_a_life() -> None:
    dnsd = crowd()
    packet = query("crowd.svc.internal.", "A")

    first_life = {ask(dnsd, packet) for _ in range(LIFE + 1)}
    second_life = {ask(dnsd, packet) for _ in range(LIFE)}

    assert 2 < len(first_life) <= 8
    assert 2 < len(second_life) <= 8
    assert first_life != second_life


def test_hits_are_counted_for_each_kind_also_of_what_was_forgotten() -> None:
    dnsd = crowd()
    a, mx = query("crowd.svc.internal.", "A"), query("crowd.svc.internal.", "MX")
    for _ in range(LIFE + 11):
        ask(dnsd, a)
    for _ in range(4):
        ask(dnsd, mx)
    expected = {(1, 0, False): LIFE + 9, (15, 0, False): 3}  # two misses of A, one of MX

    assert dnsd.memo.hits() == expected
    dnsd.memo.clear()
    assert len(dnsd.memo) == dnsd.memo.size == 0
    assert dnsd.memo.hits() == expected


def test_the_oldest_goes_when_there_are_too_many_or_too_large() -> None:
    dnsd = Dnsd(*(instance("crowd", f"c{n}") for n in range(40)))
    packets = [query(f"c{n}.crowd.svc.internal.", "SRV", edns=1232) for n in range(40)]
    few = Memo(dnsd.table.serial, capacity=10)
    small = Memo(dnsd.table.serial, budget=10 * (OVERHEAD + 400))
    for packet in packets:
        ask(dnsd, packet, memo=few)
        ask(dnsd, packet, memo=small)

    assert list(few.trusted) == [p[2:] for p in packets[-10:]]
    assert small.size <= 10 * (OVERHEAD + 400)
    assert 0 < len(small) < 40
    assert packets[-1][2:] in small.trusted
