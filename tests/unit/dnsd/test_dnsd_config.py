"""dnsd's settings: defaults, and what is wrong said at once."""

import ipaddress
from collections.abc import Sequence

import pytest

from dnsd.config import ADMIN, Config, NameServer, problems, warnings, zones_of
from registry.runtime.config import Common, ConfigError, HostPort, load


def loaded(*argv: str) -> tuple[Config, Common]:
    return load(Config, "dnsd", argv, {}, admin=ADMIN, problems=problems)


def test_defaults_are_a_server_for_this_machine() -> None:
    config, common = loaded()

    assert config.listen == (HostPort("127.0.0.1", 1053),)
    assert config.zone == ("svc.internal.",)
    assert (config.workers, config.stale_bound, config.data_dir) == (1, 60.0, "")
    assert common.admin == HostPort("127.0.0.1", 9153)
    (zone,) = zones_of(config)
    assert zone.servers == (("ns1", ("127.0.0.1",)),)


@pytest.mark.parametrize("address", ["127.9.9.9", "10.1.1.1", "192.168.7.7", "fd00::1", "fe80::1"])
def test_b6_private_networks_are_trusted_by_default(address: str) -> None:
    config, _ = loaded()

    assert any(ipaddress.ip_address(address) in network for network in config.networks)
    assert not any(ipaddress.ip_address("192.0.2.1") in network for network in config.networks)


def test_name_servers_are_those_named_else_where_it_listens() -> None:
    config, _ = loaded("--ns", "ns1=10.0.0.53, ns2=10.0.1.53,ns1=FD00::53")
    assert config.ns[2] == NameServer("ns1", "fd00::53")
    assert zones_of(config)[0].servers == (
        ("ns1", ("10.0.0.53", "fd00::53")),
        ("ns2", ("10.0.1.53",)),
    )

    config, _ = loaded("--listen", "10.0.0.1:53,[fd00::1]:53,10.0.0.1:54")
    assert zones_of(config)[0].servers == (("ns1", ("10.0.0.1", "fd00::1")),)


def test_p1_reverse_zones_follow_those_of_services() -> None:
    config, _ = loaded("--zone", "a.internal,b.internal", "--reverse", "172.16.0.0/15,fd00::/8")

    zones = zones_of(config)

    assert [zone.apex for zone in zones] == [
        *("a.internal.", "b.internal."),
        *("16.172.in-addr.arpa.", "17.172.in-addr.arpa.", "d.f.ip6.arpa."),
    ]
    assert [zone.home for zone in zones[2:]] == ["a.internal."] * 3
    assert all(zone.servers == zones[0].servers for zone in zones)


@pytest.mark.parametrize(
    ("zones", "told"),
    [
        ("svc.internal", 0),
        ("svc.example.com", 0),
        ("home.arpa", 0),
        ("svc.test", 1),
        ("callboard", 1),
        ("svc.lan,svc.internal,corp", 2),
    ],
)
def test_y5_invented_top_names_are_worth_a_word(zones: str, told: int) -> None:
    config, _ = loaded("--zone", zones)

    assert len(list(warnings(config))) == told


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--listen", "0.0.0.0:53"], "setting ns: required"),
        (["--listen", "127.0.0.1:1,[::]:53"], "--ns ns1=10.0.0.53"),
        (["--listen", "localhost:53"], "'localhost' is a name"),
        (["--ns", "ns1"], "is not NAME=ADDRESS"),
        (["--ns", "a.b=10.0.0.1"], "NAME one label"),
        (["--ns", "ns1=here"], "is not an IPv4 or IPv6 address"),
        (["--zone", f"{'a' * 63}.{'b' * 62}"], "no room for names in it"),
        (["--zone", "local"], "under local."),
        (["--zone", "svc.localhost"], "under localhost."),
        (["--zone", "invalid"], "under invalid."),
        (["--zone", "x.onion"], "under onion."),
        (["--zone", "10.in-addr.arpa"], "under arpa."),
        (["--reverse", "0.0.0.0/0"], "all addresses are no network of yours"),
        (["--reverse", ",".join(f"10.{2 * n}.0.0/17" for n in range(9))], "at most 1024"),
        (["--workers", "0"], "not in 1..64"),
        (["--cookie-secret", "123"], "option --cookie-secret: a secret is 32 hexadecimal digits"),
        (["--cookie-secret", "12"], "one to 3 secrets of 32 hexadecimal digits each"),
        (["--cookie-secret", ",".join(["12" * 16] * 4)], "one to 3 secrets"),
        (["--nsid", "x" * 65], "more than 64 octets"),
        (["--rate-limit", "-1"], "not in 0..1000000"),
        (["--rate-slip", "101"], "not in 0..100"),
        (["--stale-bound", "0"], "not in 1..86400"),
        (["--networks", "10.0.0.0/33"], "10.0.0.0/33"),
    ],
)
def test_y5_what_is_wrong_names_the_setting_and_the_rule(argv: Sequence[str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(*argv)

    assert any(told in problem for problem in caught.value.problems), caught.value.problems


def test_the_store_may_hold_a_password_and_is_never_shown() -> None:
    config, _ = loaded("--redis", "redis://:hunter2@store:6379/0")

    assert config.redis.endswith("store:6379/0")
    assert "hunter2" not in repr(config)
