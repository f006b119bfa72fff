"""The cores: cache, balancer, outliers, retries, routes, addresses, bodies, DNS answers."""

import ipaddress
import random
import struct
from collections import Counter
from collections.abc import Callable, Sequence

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver_gateway import addresses, bodies, exchange, fallback, headers, routing, srv
from resolver_gateway.balancer import Ballot, Upstream, pick, upstream
from resolver_gateway.cache import MISS, Absent, Fresh, SrvCache, Stale
from resolver_gateway.fields import MAX_REMEMBERED
from resolver_gateway.outlier import FAILURES_IN_A_ROW, OutlierDetector
from resolver_gateway.remembered import MAX_HEADS
from resolver_gateway.request import Refusal, RequestHead, RequestParser
from resolver_gateway.response import ResponseParser
from resolver_gateway.retry import Breaker, Failure, RetryBudget, may_retry
from resolver_gateway.srv import Resolution


def ups(*weights: int, priority: int = 0) -> tuple[Upstream, ...]:
    return tuple(
        upstream("s", f"i{n}", f"10.0.0.{n + 1}", 80, priority, w) for n, w in enumerate(weights)
    )


# --- cache


def test_an_answer_is_fresh_then_stale_then_gone() -> None:
    cache = SrvCache(stale_bound=300)
    cache.store("s", Resolution(ups(1), 10.0), 100.0, 0.0)

    assert cache.lookup("s", 107.9) == Fresh(Resolution(ups(1), 10.0))
    assert cache.lookup("s", 108.1) == Fresh(Resolution(ups(1), 10.0), refresh=True)
    assert cache.lookup("s", 110.0) == Stale(Resolution(ups(1), 10.0), 0.0, ask=True, wait=True)
    assert cache.lookup("s", 410.0) == Stale(Resolution(ups(1), 10.0), 300.0, ask=True, wait=True)
    assert cache.lookup("s", 410.1) is MISS


def test_a_stale_answer_that_nobody_renews_is_used_without_waiting_each_time() -> None:
    cache = SrvCache(stale_bound=300)
    cache.store("s", Resolution(ups(1), 10.0), 0.0, 0.0)
    cache.unanswered("s", 11.0)

    assert cache.lookup("s", 11.25) == Stale(Resolution(ups(1), 10.0), 1.25, False, wait=False)
    assert cache.lookup("s", 12.0) == Stale(Resolution(ups(1), 10.0), 2.0, ask=True, wait=False)


def test_an_absence_holds_for_its_own_ttl() -> None:
    cache = SrvCache(stale_bound=300)
    cache.store("s", srv.Absent(True, 5.0), 0.0, 0.0)

    assert cache.lookup("s", 4.0) == Absent(True, 1.0)
    assert cache.lookup("s", 5.0) is MISS


def test_an_answer_of_ttl_0_is_never_fresh() -> None:
    cache = SrvCache(stale_bound=300)
    cache.store("s", Resolution(ups(1), 0.0), 0.0, 0.5)

    assert isinstance(cache.lookup("s", 0.0), Stale)


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcdef"),
            st.floats(0, 100),
            st.booleans(),
            st.floats(0, 20),
        ),
        max_size=60,
    )
)
def test_nothing_is_served_past_ttl_and_bound_and_nothing_beyond_capacity(
    steps: list[tuple[str, float, bool, float]],
) -> None:
    cache = SrvCache(stale_bound=30, capacity=3, negative_capacity=2)
    now = 0.0
    stored: dict[str, float] = {}
    for name, ttl, present, wait in steps:
        now += wait
        found = cache.lookup(name, now)
        if isinstance(found, Fresh):
            assert now < stored[name]
        if isinstance(found, Stale):
            assert stored[name] <= now <= stored[name] + 30
        answer = Resolution(ups(1), ttl) if present else srv.Absent(True, ttl)
        cache.store(name, answer, now, 0.3)
        stored[name] = now + ttl
        assert len(cache) <= 3


# --- balancer


def test_frequencies_follow_the_weights() -> None:
    rng = random.Random(7).random
    counted = Counter(pick(ups(10, 30, 60), rng).instance for _ in range(20_000))

    assert counted["i0"] == pytest.approx(2000, rel=0.1)
    assert counted["i1"] == pytest.approx(6000, rel=0.1)
    assert counted["i2"] == pytest.approx(12000, rel=0.1)


def test_weight_0_has_a_very_small_chance_beside_others_and_an_equal_one_alone() -> None:
    """RFC 2782: the 0 of 0..sum is theirs."""
    rng = random.Random(7).random
    beside = Counter(pick(ups(0, 99), rng).instance for _ in range(20_000))
    alone = Counter(pick(ups(0, 0), rng).instance for _ in range(2_000))

    assert 100 < beside["i0"] < 320
    assert alone["i0"] == pytest.approx(1000, rel=0.15)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 65535)), min_size=1, max_size=20),
    st.floats(0, 1, exclude_max=True),
)
def test_only_the_lowest_priority_is_chosen(pairs: list[tuple[int, int]], drawn: float) -> None:
    found = [upstream("s", str(i), "10.0.0.1", i + 1, p, w) for i, (p, w) in enumerate(pairs)]

    chosen = Ballot(found).pick(lambda: drawn)

    assert chosen.priority == min(p for p, _ in pairs)


# --- outliers


def test_five_failures_in_a_row_eject_for_30_s_then_one_probe_decides() -> None:
    three = ups(1, 1, 1)
    outliers = OutlierDetector()
    for _ in range(FAILURES_IN_A_ROW - 1):
        assert not outliers.record(three[0], False, 0.0, three)
    assert outliers.record(three[0], False, 0.0, three)

    assert outliers.admit(three, 29.9) == list(three[1:])
    assert outliers.admit(three, 30.0) == list(three)
    outliers.chosen(three[0], 30.0)
    assert outliers.admit(three, 30.1) == list(three[1:])  # the probe is under way
    assert outliers.record(three[0], False, 31.0, three)
    assert outliers.admit(three, 90.0) == list(three[1:])  # twice as long
    assert outliers.admit(three, 91.0) == list(three)
    outliers.chosen(three[0], 91.0)
    outliers.record(three[0], True, 92.0, three)
    assert outliers.all_well


def test_half_of_twenty_failures_eject_without_a_row() -> None:
    two = ups(1, 1)
    outliers = OutlierDetector()
    for n in range(19):
        assert not outliers.record(two[0], n % 2 == 0, 1.0, two)
    assert outliers.record(two[0], False, 1.0, two)


@given(
    st.integers(1, 8),
    st.lists(st.tuples(st.integers(0, 7), st.booleans(), st.floats(0, 40)), max_size=120),
)
def test_at_least_half_is_admitted_and_never_nobody(
    size: int, events: list[tuple[int, bool, float]]
) -> None:
    members = ups(*[1] * size)
    outliers = OutlierDetector()
    now = 0.0
    for index, ok, wait in events:
        now += wait
        member = members[index % size]
        outliers.chosen(member, now)
        outliers.record(member, ok, now, members)
        admitted = outliers.admit(members, now)
        assert len(admitted) >= size - size // 2
        assert admitted
        assert outliers.admit(members[:1], now)  # the set may shrink to one that is ejected


# --- retries, budget, breaker


@pytest.mark.parametrize(
    ("failure", "method", "answering", "replayable", "allowed"),
    [
        (Failure.REFUSED, b"POST", False, False, True),
        (Failure.CONNECT_TIMEOUT, b"POST", False, True, True),
        (Failure.CLOSED, b"POST", False, True, False),
        (Failure.CLOSED, b"GET", False, True, True),
        (Failure.CLOSED, b"PUT", False, False, False),
        (Failure.CLOSED, b"GET", True, True, False),
        (Failure.REFUSED, b"GET", True, True, False),
        (Failure.TIMEOUT, b"GET", False, True, False),
        (Failure.PROTOCOL, b"DELETE", False, True, True),
    ],
)
def test_what_may_be_tried_again(
    failure: Failure, method: bytes, answering: bool, replayable: bool, allowed: bool
) -> None:
    assert may_retry(failure, method, answering=answering, replayable=replayable) is allowed


def test_retries_are_at_most_a_fifth_beyond_the_small_minimum() -> None:
    budget = RetryBudget()
    for n in range(1000):
        budget.count(n / 200)  # five seconds

    assert sum(budget.allows(5.0) for _ in range(1000)) == 30 + 200


def test_the_breaker_opens_after_three_in_a_row_when_nothing_is_left() -> None:
    breaker = Breaker()
    assert not breaker.failure(0.0, nothing_left=True)
    breaker.success()
    assert not any(breaker.failure(0.0, nothing_left=False) for _ in range(5))
    assert breaker.failure(1.0, nothing_left=True)

    assert not breaker.admits(30.9)
    assert breaker.admits(31.0)
    assert not breaker.admits(31.1)  # one at a time
    assert breaker.failure(32.0, nothing_left=False)  # the one failed
    assert not breaker.admits(61.9)
    assert breaker.admits(62.0)
    breaker.success()
    assert breaker.admits(62.1)


# --- routes


def routed(router: routing.Router, target: bytes) -> routing.Route:
    return router.route(RequestHead(b"GET", target, 1))


@pytest.mark.parametrize(
    ("target", "service", "rest"),
    [
        (b"/v2/payments/a/b?c=d", "payments", b"/a/b?c=d"),
        (b"/v2/payments/", "payments", b"/"),
        (b"/v2/payments", "payments", b"/"),
        (b"/v2/payments?x=1", "payments", b"/?x=1"),
        (b"/v2/nmap_service/x", "nmap-service", b"/x"),
        (b"/v2/NMAP_SERVICE_URL/x", "nmap-service", b"/x"),
        (b"/v2/Nmap-Service/x", "nmap-service", b"/x"),
        (b"/v2/s/a/../b", "s", b"/a/../b"),
        (b"/v2/s/...", "s", b"/..."),
        (b"/v2/s/..a/b..", "s", b"/..a/b.."),
        (b"/v2/s/a%2Fb;c//d", "s", b"/a%2Fb;c//d"),
        (b"/v2/s/?q=../..", "s", b"/?q=../.."),
        (b"/v2/s//x", "s", b"//x"),
    ],
)
def test_the_route_of_a_target(target: bytes, service: str, rest: bytes) -> None:
    router = routing.Router()
    assert router.known(target) is None
    route = routed(router, target)

    assert isinstance(route, routing.ToService)
    assert (route.named.name, route.target) == (service, rest)
    # The short cut says the same once the service was seen, or nothing.
    assert router.known(target) in (None, (route.named, route.target))


@pytest.mark.parametrize(
    "rest",
    [
        "..", "../x", "a/../..", "%2e%2e/x", ".%2e/x", "%2E./x", "%252e%252e/x", "..%2fx",
        "a%2f..%2f..%2fx", "a%2fb/../../x", "..\\x", "%5c..%5c..", "..;/x", "..;a=b/x",
        "a//../../x", "./../x", "a/./../../x", "%2e%2e%5cx", "%c0%ae%c0%ae/x", "..%00/x",
        "%25252e%25252e/x", "%2525252525252e./x", "a/%2e%2e/%2e%2e/x",
    ],
)  # fmt: skip
def test_a_path_that_would_climb_out_is_refused(rest: str) -> None:
    router = routing.Router()
    routed(router, b"/v2/s/")

    assert isinstance(routed(router, f"/v2/s/{rest}".encode()), routing.Climbs)
    assert router.known(f"/v2/s/{rest}".encode()) is None


@pytest.mark.parametrize(
    "target",
    [b"/", b"/v2", b"/v2/", b"/v2//s/x", b"/V2/s/x", b"/v2/../x/y", b"/v2/a%62/x", b"/v2/-a/x",
     b"/v2/a.b/x", b"/v2/http:%2f%2fx/", b"/v2/a@b:c/x", b"/v2/a@/x", b"//v2/s/x",
     b"/v2/" + b"a" * 64 + b"/x", b"/v2/catalog/x", b"/gateway/", b"/gateway/statusx",
     b"/%762/s/x"],
)  # fmt: skip
def test_everything_else_is_no_route(target: bytes) -> None:
    assert isinstance(routed(routing.Router(), target), routing.NoRoute)


def test_our_own_pages() -> None:
    router = routing.Router()

    assert routed(router, b"/gateway/status?x") == routing.StatusPage()
    page = routed(router, b"/gateway/health-check/Web_App")
    assert isinstance(page, routing.HealthCheck)
    assert (page.named.name, page.listed) == ("web-app", "Web_App")


# --- addresses


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "169.254.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "fe80::1",
     "fd00:ec2::254", "100.100.100.200", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "0.1.2.3",
     "2002:a9fe:a9fe::", "255.255.255.255", "localhost", "2130706433"],
)  # fmt: skip
def test_addresses_that_nothing_is_sent_to(address: str) -> None:
    assert addresses.problem_of(address, 80, (), ()) is not None


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "192.168.1.1", "::1", "fd00::1"])
def test_loopback_and_private_addresses_are_where_services_are(address: str) -> None:
    assert addresses.problem_of(address, 80, (), ()) is None


def test_the_gateway_itself_is_no_upstream_and_a_network_can_be_allowed() -> None:
    allowed = (ipaddress.ip_network("169.254.0.0/16"),)
    own = (("0.0.0.0", 8000),)

    assert addresses.problem_of("169.254.7.7", 80, (), allowed) is None
    assert addresses.problem_of("127.0.0.1", 8000, own, allowed) == "it is the gateway itself"
    assert addresses.problem_of("127.0.0.1", 8001, own, allowed) is None
    assert addresses.problem_of("10.0.0.1", 0, (), ()) is not None


# --- fallback


def test_the_variables_of_a_service_in_their_order() -> None:
    environ = {
        "NMAP_SERVICE_SERVICE_URL": "http://two:2",
        "NMAP_SERVICE_ENDPOINT": "http://three:3",
        "NMAP_SERVICE_URL": "https://one/base/",
    }

    assert fallback.place_of("nmap-service", environ) == fallback.Place("one", 443, True, b"/base")
    del environ["NMAP_SERVICE_URL"]
    assert fallback.place_of("nmap-service", environ) == fallback.Place("two", 2, False, b"")
    assert fallback.place_of("other", environ) is None


@pytest.mark.parametrize("value", ["ftp://x", "http://", "http://x:99999", "http://x/ a", ""])
def test_a_variable_that_is_no_url_counts_as_not_set(value: str) -> None:
    assert fallback.place_of("s", {"S_URL": value}) is None


# --- heads


HEAD_BYTES = st.one_of(
    st.binary(max_size=200),
    st.lists(
        st.sampled_from(
            [b"GET /v2/a/b HTTP/1.1", b"\r\n", b"Host: g", b"Content-Length: 5", b":", b" ", b"\n",
             b"Transfer-Encoding: chunked", b"\r", b"Connection: close", b"X: y", b"\x00", b"\t"]
        ),
        max_size=14,
    ).map(b"".join),
)  # fmt: skip


@given(HEAD_BYTES)
def test_any_bytes_are_a_request_or_a_refusal(data: bytes) -> None:
    found = RequestParser().parse(data + b"\r\n\r\n")

    assert isinstance(found, RequestHead | Refusal)
    if isinstance(found, RequestHead):
        assert not (found.chunked and found.length is not None)
        for line in found.block.splitlines(keepends=True):
            assert line.endswith(b"\r\n")
            assert not any(c in line[:-2] for c in b"\r\n\x00")


@given(HEAD_BYTES)
def test_any_bytes_are_a_response_or_a_refusal(data: bytes) -> None:
    found = ResponseParser().parse(data + b"\r\n\r\n")

    assert isinstance(found, Refusal) or 100 <= found.status <= 599


def test_lines_and_heads_that_are_remembered_are_bounded_and_read_the_same() -> None:
    parser = RequestParser()
    head = b"GET / HTTP/1.1\r\nHost: g\r\nX-%d: y\r\n\r\n"
    for n in range(5000):
        assert isinstance(parser.parse(head % n), RequestHead)
    assert not parser.remembered.heads  # none came twice

    for n in range(4000, 5000):
        again = parser.parse(head % n)
        assert isinstance(again, RequestHead)
        assert again.block == b"X-%d: y\r\n" % n
    assert 0 < len(parser.remembered.heads) <= MAX_HEADS
    assert len(parser._reader.remembered) <= MAX_REMEMBERED
    assert parser.parse(head % 4999) is parser.parse(head % 4999)


@pytest.mark.parametrize("name", ["Authorization", "COOKIE", "X-Api-Key", "Proxy-Authorization"])
def test_secrets_are_not_remembered(name: str) -> None:
    parser = RequestParser()
    for _ in range(3):
        parser.parse(f"GET / HTTP/1.1\r\nHost: g\r\n{name}: canary\r\n\r\n".encode())
    answers = ResponseParser()
    for _ in range(3):
        answers.parse(b"HTTP/1.1 200 OK\r\nSet-Cookie: canary\r\n\r\n")

    assert "canary" not in repr((parser._reader.remembered, parser.remembered.heads))
    assert "canary" not in repr((answers._reader.remembered, answers.remembered.heads))


# --- bodies


def fed(body: bodies.Body, data: bytes, cuts: list[int]) -> tuple[bytes, bytes | None] | None:
    """The body that *data* holds when it comes cut at *cuts*; None when it is malformed."""
    out, start = b"", 0
    for end in [*sorted(set(cuts)), len(data)]:
        part = body.feed(data[start:end])
        if part.problem:
            return None
        out += part.data
        start = end
        if part.done:
            return out, part.rest + data[end:]
    return out, None


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    st.lists(st.integers(0, 400), max_size=12),
    st.binary(max_size=20),
)
def test_any_split_of_a_chunked_body_yields_the_same(
    pieces: list[bytes], cuts: list[int], after: bytes
) -> None:
    data = b"".join(map(bodies.chunk, pieces)) + bodies.LAST_CHUNK + after
    inside = [cut for cut in cuts if cut < len(data)]

    assert fed(bodies.ChunkedBody(), data, inside) == (b"".join(pieces), after)


@given(st.binary(max_size=120), st.lists(st.integers(0, 120), max_size=8))
def test_any_bytes_read_in_any_split_give_the_same_verdict(data: bytes, cuts: list[int]) -> None:
    inside = [cut for cut in cuts if cut < len(data)]
    whole = fed(bodies.ChunkedBody(), data, [])
    split = fed(bodies.ChunkedBody(), data, inside)

    assert whole is None or split is None or whole == split
    assert (whole is None) == (split is None)


@given(st.binary(min_size=1, max_size=50), st.binary(max_size=10), st.lists(st.integers(0, 60)))
def test_a_body_with_a_length_ends_there(body: bytes, after: bytes, cuts: list[int]) -> None:
    data = body + after
    inside = [cut for cut in cuts if 0 < cut < len(data)]

    assert fed(bodies.LengthBody(len(body)), data, inside) == (body, after)


def test_trailers_that_could_mean_something_else_do_not_pass() -> None:
    body = bodies.ChunkedBody()
    body.feed(b"0\r\nX-Sum: 1\r\nContent-Length: 9\r\nHost: e\r\nSet-Cookie: a\r\nVia: x\r\n\r\n")

    assert headers.trailers_that_pass(body.trailers) == [b"X-Sum: 1\r\n"]


# --- the access line


def test_no_value_forges_a_second_line() -> None:
    one = exchange.Exchange(
        b"id", "127.0.0.1", b"GET", b"/a b\x0a\xff", "", "", 0, "", 200, "", 0.001
    )

    for form in ("text", "json"):
        line = exchange.access_line(one, form)
        assert "\n" not in line
        assert line.isprintable()


# --- DNS answers

ZONE = "svc.internal."


def asked(name: str = "_http._tcp.payments.svc.internal.", qtype: int = srv.SRV) -> srv.Question:
    return srv.question(name, qtype, 0x5A5A5A)


RR = tuple[str, int, int, bytes]
"""Owner, type, TTL, rdata."""


def packet(
    question: srv.Question,
    records: Sequence[RR] = (),
    additional: Sequence[RR] = (),
    authority: Sequence[RR] = (),
    rcode: int = 0,
    query_id: int = 7,
    flags: int = 0x8400,
) -> bytes:
    def rr(owner: str, rtype: int, ttl: int, data: bytes) -> bytes:
        wire = b"".join(bytes([len(p)]) + p.encode() for p in owner.rstrip(".").split("."))
        return wire + b"\0" + struct.pack("!HHIH", rtype, 1, ttl, len(data)) + data

    counts = (1, len(records), len(authority), len(additional))
    header = struct.pack("!HHHHHH", query_id, flags | rcode, *counts)
    return header + question.wire + b"".join(rr(*r) for r in (*records, *authority, *additional))


def name_wire(name: str) -> bytes:
    return b"".join(bytes([len(p)]) + p.encode() for p in name.rstrip(".").split(".")) + b"\0"


def srv_rr(
    target: str, port: int = 80, ttl: int = 5, owner: str = "_http._tcp.payments.svc.internal."
) -> RR:
    return (owner, srv.SRV, ttl, struct.pack("!HHH", 1, 2, port) + name_wire(target))


def a_rr(owner: str, address: str = "10.0.0.1", ttl: int = 5) -> RR:
    return (owner, srv.A, ttl, ipaddress.ip_address(address).packed)


def parse(data: bytes, question: srv.Question) -> srv.Reply:
    return srv.parse_srv_response(data, question, 7, "payments", ZONE)


def test_an_answer_with_glue_is_a_resolution_for_the_least_ttl() -> None:
    question = asked()
    target = f"p1.payments.{ZONE}"

    found = parse(packet(question, [srv_rr(target)], [a_rr(target, ttl=3)]), question)

    assert found == Resolution((upstream("payments", "p1", "10.0.0.1", 80, 1, 2),), 3.0)


def test_missing_glue_is_named_and_can_be_completed() -> None:
    question = asked()
    first, second = f"p1.payments.{ZONE}", f"p2.payments.{ZONE}"
    found = parse(packet(question, [srv_rr(first), srv_rr(second)], [a_rr(first)]), question)
    assert isinstance(found, srv.Incomplete)
    assert found.targets == (second,)

    whole = srv.complete(found, "payments", {second: (("fd00::1",), 2.0)})

    assert isinstance(whole, Resolution)
    assert [u.where for u in whole.upstreams] == ["10.0.0.1:80", "[fd00::1]:80"]
    assert whole.ttl == 2.0


def test_records_out_of_bailiwick_are_dropped() -> None:
    question = asked()
    evil = [
        srv_rr("host.evil.example."),
        srv_rr(f"p1.other.{ZONE}", owner=f"_http._tcp.other.{ZONE}"),
    ]

    assert parse(packet(question, evil, [a_rr("host.evil.example.")]), question) == srv.Absent(
        True, 5.0
    )


@pytest.mark.parametrize(
    "spoil",
    [
        lambda p: b"",
        lambda p: p[:11],
        lambda p: p[:-3],
        lambda p: b"\0\x08" + p[2:],
        lambda p: p[:2] + b"\x04\x00" + p[4:],
        lambda p: p[:12] + p[12:].lower(),
        lambda p: p[:4] + b"\0\2" + p[6:],
        lambda p: p[:4] + b"\0\0" + p[6:],
    ],
)
def test_what_is_not_the_answer_is_not_ours(spoil: Callable[[bytes], bytes]) -> None:
    question = asked()
    target = f"p1.payments.{ZONE}"
    good = packet(question, [srv_rr(target)], [a_rr(target)])

    assert isinstance(parse(spoil(good), question), srv.NotOurs)


def test_negative_answers_hold_for_their_soa() -> None:
    question = asked()
    soa = (ZONE, srv.SOA, 60, name_wire("ns1") + name_wire("h") + struct.pack("!5I", 1, 2, 3, 4, 5))

    assert parse(packet(question, authority=[soa]), question) == srv.Absent(True, 5.0)
    assert parse(packet(question, authority=[soa], rcode=3), question) == srv.Absent(False, 5.0)


def test_servfail_refused_and_referrals_are_failures_not_absences() -> None:
    question = asked()
    ns = ("internal.", srv.NS, 60, name_wire("ns.elsewhere."))

    assert parse(packet(question, rcode=2), question) == srv.Failed("SERVFAIL")
    assert parse(packet(question, rcode=5), question) == srv.Failed("REFUSED")
    assert isinstance(parse(packet(question, authority=[ns], flags=0x8000), question), srv.Failed)


def test_a_truncated_answer_says_so() -> None:
    question = asked()

    assert parse(packet(question, flags=0x8600), question) == srv.Truncated()


def test_ttls_are_capped_and_negative_ones_are_0() -> None:
    question = asked()
    target = f"p1.payments.{ZONE}"
    for ttl, expected in ((2**31 - 1, 3600.0), (2**31, 0.0)):
        found = parse(
            packet(question, [srv_rr(target, ttl=ttl)], [a_rr(target, ttl=9999)]), question
        )
        assert isinstance(found, Resolution)
        assert found.ttl == expected


@given(st.binary(max_size=300))
def test_any_bytes_after_a_good_header_are_understood_or_not(data: bytes) -> None:
    question = asked()
    header = struct.pack("!HHHHHH", 7, 0x8400, 1, 3, 2, 2) + question.wire

    assert isinstance(
        parse(header + data, question),
        Resolution | srv.Absent | srv.Incomplete | srv.Failed | srv.Truncated | srv.NotOurs,
    )


def test_a_pointer_loop_ends() -> None:
    question = asked()
    position = 12 + len(question.wire)
    loop = struct.pack("!H", 0xC000 | position)
    data = struct.pack("!HHHHHH", 7, 0x8400, 1, 1, 0, 0) + question.wire + loop + b"\0" * 10

    assert isinstance(parse(data, question), srv.NotOurs)


@given(st.integers(0, 2**64))
def test_the_query_reads_as_one_with_its_case_mixed(case: int) -> None:
    question = srv.question("_http._tcp.payments.svc.internal.", srv.SRV, case)

    read = dnslib.DNSRecord.parse(srv.query(question, 1234))

    assert (read.header.id, read.q.qtype) == (1234, 33)
    assert str(read.q.qname).lower() == question.name
    assert read.ar[0].rclass == 1232
