"""What a request names: versions, tags, zones, hosts, headers; and the file that says more."""

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.runtime.config import settings_of
from resolver_gateway import naming, routing
from resolver_gateway.balancer import Algorithm, Balance
from resolver_gateway.naming import Subset
from resolver_gateway.request import RequestHead
from resolver_gateway.routing import Climbs, NoRoute, Route, Router, ToService, draw
from resolver_gateway.rules import Rule, Rules, RulesRefused, read_rules
from tests.support.http import Upstream, World, gateway

# --- names


@pytest.mark.parametrize(
    ("segment", "name"),
    [
        ("payments", "payments"),
        ("payments@1.2", "1-2.version.payments"),
        ("payments@version:1.2.0", "1-2-0.version.payments"),
        ("Pay_ments@V2_rc.1", "v2-rc-1.version.pay-ments"),
        ("payments@tag:canary", "canary.tag.payments"),
        ("payments@zone:eu-1", "eu-1.zone.payments"),
        ("payments@zone:eu-1,2", "2.version.eu-1.zone.payments"),
        ("payments@tag:a,zone:b,version:c", "c.version.a.tag.b.zone.payments"),
        ("NMAP_SERVICE_URL@2", "2.version.nmap-service"),
    ],
)
def test_a_segment_names_a_service_and_some_of_its_instances(segment: str, name: str) -> None:
    route = routed(Router(), f"/v2/{segment}/x")

    assert isinstance(route, ToService)
    assert route.named.name == name
    assert route.target == b"/x"
    assert naming.service_in(route.named.name) == route.named.service


@pytest.mark.parametrize(
    "segment",
    ["payments@", "payments@a b", "payments@a%2Eb", "payments@colour:red", "payments@1,2",
     "payments@tag:", "payments@tag:a,tag:b", "payments@1@2", "@1", "payments@" + "a" * 64,
     "payments@1;x", "payments@../x"],
)  # fmt: skip
def test_what_chooses_nothing_that_can_be_is_404(segment: str) -> None:
    assert isinstance(routed(Router(), f"/v2/{segment}/x"), NoRoute)


LOCALITY = st.from_regex(r"[abcXYZ012._-]{0,30}[aZ2][abcXYZ012._-]{0,30}", fullmatch=True)


@given(LOCALITY, LOCALITY, st.booleans())
def test_no_subset_reaches_another_service(version: str, zone: str, prefer: bool) -> None:
    """Whatever a client names, the last label is the service, and each value is one label."""
    subset = naming.parse_subset(f"{version},zone:{zone}")
    assert subset is not None

    name = naming.name_of("payments", subset, prefer="home" if prefer else "")

    assert naming.service_in(name) == "payments"
    assert name.split(".")[1::2] == ["version", "zone"]
    assert len(name.split(".")) == 5


def test_the_own_zone_is_preferred_unless_a_zone_is_named() -> None:
    router = Router(prefer_zone="EU.1")

    assert name_of(router, "/v2/s/") == "eu-1.prefer.s"
    assert name_of(router, "/v2/s@2/") == "2.version.eu-1.prefer.s"
    assert name_of(router, "/v2/s@zone:us/") == "us.zone.s"


# --- hosts and headers


def routed(router: Router, target: str, host: str = "g", *lines: str) -> Route:
    head = RequestHead(b"GET", target.encode(), 1)
    head.host = host.encode()
    head.block = "".join(f"{line}\r\n" for line in lines).encode()
    return router.route(head)


def name_of(router: Router, target: str, host: str = "g", *lines: str) -> str:
    route = routed(router, target, host, *lines)
    assert isinstance(route, ToService)
    return route.named.name


@pytest.mark.parametrize(
    ("host", "target", "name", "rest"),
    [
        ("payments.gw.test", "/a?b", "payments", b"/a?b"),
        ("PAY_ments.GW.test:8000", "/", "pay-ments", b"/"),
        ("payments.gw.test.", "/v2/other/x", "payments", b"/v2/other/x"),
        ("payments.gw.test", "/gateway/status", "payments", b"/gateway/status"),
        ("gw.test", "/v2/other/x", "other", b"/x"),
        ("elsewhere.test", "/v2/other/x", "other", b"/x"),
    ],
)
def test_a_host_below_the_suffix_names_the_service(
    host: str, target: str, name: str, rest: bytes
) -> None:
    route = routed(Router(host_suffix="gw.test"), target, host)

    assert isinstance(route, ToService)
    assert (route.named.name, route.target) == (name, rest)


@pytest.mark.parametrize("host", ["a.b.gw.test", ".gw.test", "-x.gw.test", "catalog.gw.test"])
def test_a_host_below_the_suffix_that_is_no_service_is_404(host: str) -> None:
    assert isinstance(routed(Router(host_suffix="gw.test"), "/v2/other/", host), NoRoute)


def test_a_path_below_a_host_may_not_climb_either() -> None:
    assert isinstance(routed(Router(host_suffix="gw.test"), "/a/../../b", "s.gw.test"), Climbs)


def test_a_header_chooses_a_version_unless_the_path_does() -> None:
    router = Router(version_header="X-Version")

    assert name_of(router, "/v2/s/", "g", "X-Version: 1.2") == "1-2.version.s"
    assert name_of(router, "/v2/s/", "g", "x-version: tag:canary") == "canary.tag.s"
    assert name_of(router, "/v2/s@2/", "g", "X-Version: 1.2") == "2.version.s"
    assert name_of(router, "/v2/s/", "g", "X-Versions: 1.2") == "s"
    assert isinstance(routed(router, "/v2/s/", "g", "X-Version: a b"), routing.BadVersion)


# --- versions by share


def split_of(**shares: int) -> tuple[tuple[routing.Named, int], ...]:
    rule = Rule(versions=tuple(shares.items()))
    return Router(Rules(rule)).named("s").split


def test_shares_are_kept_and_a_version_without_any_is_never_drawn() -> None:
    split = split_of(old=75, new=25, dark=0)
    counted = Counter(draw(split, n / 1000).subset.version for n in range(1000))

    assert counted == {"old": 750, "new": 250}


def test_who_names_a_subset_is_not_drawn_for() -> None:
    router = Router(Rules(Rule(versions=(("1", 1), ("2", 1)))))

    assert router.named("s", Subset(version="1")).split == ()
    assert router.named("s", Subset(tag="a")).split == ()
    assert len(router.named("s").split) == 2


# --- the file of routes

FILE = """
[payments]
versions = { "1.2" = 90, "2.0" = 10 }
balance = "least-requests"
try-timeout = 2.5

[Search_Engine]
tag = "stable"
zone = "eu-1"
rate = 10
tls = true
"""


def test_a_file_says_what_differs_and_the_rest_is_as_the_options_say() -> None:
    default = Rule(balance=Balance(Algorithm.ROUND_ROBIN), request_timeout=9.0)
    rules = read_rules(FILE, default, "routes.toml")

    assert rules.of("other") is default
    payments, search = rules.of("payments"), rules.of("search-engine")
    assert payments.versions == (("1.2", 90), ("2.0", 10))
    assert payments.balance == Balance(Algorithm.LEAST_REQUESTS)
    assert (payments.try_timeout, payments.request_timeout) == (2.5, 9.0)
    assert search.balance == Balance(Algorithm.ROUND_ROBIN)
    assert (search.rate, search.tls, search.srv_port) == (10.0, True, "https")
    assert Router(rules).named("search-engine").name == (
        "_https._tcp.stable.tag.eu-1.zone.search-engine"
    )


def test_a_wrong_file_is_refused_with_everything_that_is_wrong() -> None:
    with pytest.raises(RulesRefused) as caught:
        read_rules(
            '[payments]\nversion = "1"\nrate = -1\n[a.b]\n[catalog]\n[x]\nbalance = "any"\n'
            'versions = { "1" = 0 }\n',
            Rule(),
            "routes.toml",
        )

    text = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 6
    assert "file routes.toml: [payments] version: unknown key (did you mean versions?)" in text
    assert "[catalog]: 'catalog' is reserved" in text
    assert "no version has a share above 0" in text


@pytest.mark.parametrize("text", ["[", "a = 1", "[a]\nqueue-timeout = 0"])
def test_what_is_no_table_of_a_service_is_refused(text: str) -> None:
    with pytest.raises(RulesRefused):
        read_rules(text, Rule(), "routes.toml")


def test_limits_of_services_are_shared_out_and_those_of_clients_are_not() -> None:
    rules = Rules(Rule(rate=10, burst=5, max_requests=3, client_rate=7, queue=9)).shared_out(2)

    assert rules.of("any") == Rule(rate=5, burst=3, max_requests=2, client_rate=7, queue=9)


def test_every_key_is_in_the_manual_and_no_other() -> None:
    text = (Path(__file__).parents[3] / "resolver_gateway" / "README.md").read_text()
    table = text.partition("| key | meaning |")[2].partition("\n\n")[0]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    told = {key for cell in cells for key in re.findall("`([a-z-]+)`", cell)}

    assert told == {f.name.replace("_", "-") for f in settings_of(Rule)}


# --- through the gateway


async def versions(world: World, path: str, times: int, *lines: str) -> Counter[bytes]:
    return Counter([(await world.get(path, *lines)).body for _ in range(times)])


def place(world: World, upstream: Upstream, *names: str) -> None:
    for name in names:
        world.dns.instances.setdefault(name, []).append(upstream.record)


async def test_a_version_is_reached_by_path_and_by_header() -> None:
    old, new = await Upstream("old").start(), await Upstream("new").start()
    async with gateway(old, new, router=Router(version_header="X-Version")) as world:
        place(world, old, "1-2.version.payments")
        place(world, new, "2-0.version.payments")

        assert await versions(world, "/v2/payments@2.0/x", 4) == {b"new": 4}
        assert await versions(world, "/v2/payments/", 4, "X-Version: 1.2") == {b"old": 4}
        nobody = await world.get("/v2/payments@3/")
        assert nobody.status == 404
        bad = await world.get("/v2/payments/", "X-Version: a b")
        assert (bad.status, bad.fields["x-callboard-error"]) == (400, "bad-version")
        assert new.requests[0].startswith(b"GET /x HTTP/1.1\r\n")
        assert b"X-Forwarded-Prefix: /v2/payments@2.0\r\n" in new.requests[0]


async def test_a_version_that_exists_and_is_empty_is_no_reason_to_ask_another_one() -> None:
    old = await Upstream("old").start()
    async with gateway(old, environ={"PAYMENTS_URL": f"http://127.0.0.1:{old.port}"}) as world:
        world.dns.instances["2.version.payments"] = []
        answer = await world.get("/v2/payments@2/")

        assert (answer.status, answer.fields["x-callboard-error"]) == (503, "no-instances")
        assert b"payments (version:2) is known" in answer.body


async def test_requests_are_shared_out_and_a_version_that_is_gone_fails_nobody() -> None:
    old, new = await Upstream("old").start(), await Upstream("new").start()
    router = Router(Rules(Rule(), {"payments": Rule(versions=(("1", 50), ("2", 50)))}))
    async with gateway(old, new, router=router) as world:
        place(world, old, "1.version.payments")
        place(world, new, "2.version.payments")
        both = await versions(world, "/v2/payments/", 30)
        assert both[b"old"] > 3
        assert both[b"new"] > 3

        world.dns.instances["2.version.payments"] = []
        world.clock.shift += 6
        assert await versions(world, "/v2/payments/", 20) == {b"old": 20}


async def test_a_client_keeps_its_version() -> None:
    old, new = await Upstream("old").start(), await Upstream("new").start()
    rule = Rule(versions=(("1", 1), ("2", 1)), balance=Balance(Algorithm.HASH, b"x-user"))
    async with gateway(old, new, router=Router(Rules(rule))) as world:
        place(world, old, "1.version.payments")
        place(world, new, "2.version.payments")
        got = [await versions(world, "/v2/payments/", 4, f"X-User: {n}") for n in range(12)]

        assert all(len(counted) == 1 for counted in got)
        assert len({next(iter(counted)) for counted in got}) == 2


async def test_the_own_zone_serves_and_the_others_stand_by() -> None:
    near, far = await Upstream("near").start(), await Upstream("far").start()
    async with gateway(near, far, router=Router(prefer_zone="eu-1")) as world:
        world.dns.instances["eu-1.prefer.payments"] = [
            ("near", "127.0.0.1", near.port, 0, 1),
            ("far", "127.0.0.1", far.port, 1, 1),
        ]
        assert await versions(world, "/v2/payments/", 8) == {b"near": 8}
        await near.stop()
        assert await versions(world, "/v2/payments/", 8) == {b"far": 8}


async def test_a_host_names_the_service_and_nothing_is_cut_off() -> None:
    up = await Upstream("one").start()
    async with gateway(up, router=Router(host_suffix="gw.test")) as world:
        answer = await world.ask(b"GET /v2/x?y HTTP/1.1\r\nHost: payments.gw.test\r\n\r\n")

        assert answer.body == b"one"
        assert up.requests[0].startswith(b"GET /v2/x?y HTTP/1.1\r\nHost: payments.gw.test\r\n")
        assert b"X-Forwarded-Prefix" not in up.requests[0]


async def test_an_instance_has_one_record_and_one_pool_under_all_its_names() -> None:
    """Asked for as `payments` and as `payments@1`, it is the same instance."""
    up = await Upstream("one").start()
    async with gateway(up) as world:
        place(world, up, "1.version.payments")
        await world.get("/v2/payments/")
        await world.get("/v2/payments@1/")

        assert len(up.connections) == 1
        world.dns.instances["1.version.payments"] = []
        world.clock.shift += 6
        await world.get("/v2/payments/")
        await world.get("/v2/payments@1/")
        assert world.handler.pool.idle_count == 1  # it left one name, not the service
