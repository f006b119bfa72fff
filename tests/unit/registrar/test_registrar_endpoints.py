"""Addresses that nobody may register, however they are written."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrar.endpoints import canonical_address, is_inside, problem_of_address, problem_of_host
from registry.runtime.config import networks

ZONES = ("svc.internal.", "old.example.")

REFUSED = """
127.0.0.1 127.0.0.53 127.255.255.255 ::1
0.0.0.0 0.1.2.3 ::
169.254.0.1 169.254.169.254 169.254.170.2 169.254.255.255 fe80::1 febf::ffff
fd00:ec2::254 fd20:ce::254 100.100.100.200 168.63.129.16 192.0.0.192
224.0.0.1 239.255.255.250 ff02::1 ff0e::1 255.255.255.255
::ffff:127.0.0.1 ::ffff:169.254.169.254 ::ffff:0.0.0.0 ::ffff:224.0.0.1 ::ffff:100.100.100.200
::127.0.0.1 ::169.254.169.254 ::7f00:1
64:ff9b::127.0.0.1 64:ff9b::169.254.169.254 64:ff9b::a9fe:a9fe 64:ff9b::0.0.0.0
64:ff9b:1::127.0.0.1 64:ff9b:1:ffff::169.254.169.254
2002:7f00:1:: 2002:a9fe:a9fe:: 2002:7f00:0001::1 2002:6464:64c8::
2001:0:a9fe:a9fe::1 2001:0:4136:e378:8000:63bf:80ff:fffe
""".split()

ALLOWED = """
10.0.0.7 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 100.100.100.201 192.0.2.1 198.51.100.7
8.8.8.8 169.253.255.255 169.255.0.1 128.0.0.1 126.255.255.255 168.63.129.17 1.0.0.1
2001:db8::7 fd00:ec2::253 fd00::1 fec0::1 fe00::1 64:ff9b::10.0.0.7 2002:a00:7:: ::ffff:10.0.0.7
""".split()


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_that_would_turn_a_caller_against_its_own_host(address: str) -> None:
    problem = problem_of_address(address, ())

    assert problem is not None
    assert address in problem
    assert "--allow-endpoints" in problem


@pytest.mark.parametrize("address", ALLOWED)
def test_an_address_where_a_service_may_well_be(address: str) -> None:
    assert problem_of_address(address, ()) is None


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("127.0.0.1", "127.0.0.0/8"),
        ("::1", "::1"),
        ("169.254.169.254", "169.254.0.0/16"),
        ("::ffff:127.0.0.1", "127.0.0.0/8"),
        ("64:ff9b::127.0.0.1", "127.0.0.0/8"),
        ("ff02::1", "::/0"),
    ],
)
def test_a_configured_network_allows_it(address: str, allowed: str) -> None:
    assert problem_of_address(address, networks(allowed)) is None


@pytest.mark.parametrize(
    ("address", "allowed"),
    [("127.0.0.1", "::/0"), ("::1", "0.0.0.0/0"), ("127.0.0.1", "10.0.0.0/8")],
)
def test_another_network_does_not(address: str, allowed: str) -> None:
    assert problem_of_address(address, networks(allowed)) is not None


@given(st.sampled_from(["127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "0.0.0.0/8"]), st.data())
def test_every_spelling_of_a_refused_ipv4_address_is_refused(
    network: str, data: st.DataObject
) -> None:
    addresses = ipaddress.IPv4Network(network)
    number = data.draw(
        st.integers(int(addresses.network_address), int(addresses.broadcast_address))
    )
    spellings = [
        ipaddress.IPv4Address(number),
        ipaddress.IPv6Address(0xFFFF << 32 | number),
        ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) | number),
        ipaddress.IPv6Address(0x2002 << 112 | number << 80),
    ]

    assert all(problem_of_address(str(s), ()) is not None for s in spellings)


@pytest.mark.parametrize(
    "host",
    """2130706433 0x7f000001 0x7f.1 0177.0.0.1 127.1 127.0.0.1.0x1 1.2.3.256 017700000001 0x
    localhost foo.localhost a.svc.internal svc.internal x.y.old.example""".split(),
)
def test_a_host_that_cannot_be_one(host: str) -> None:
    assert problem_of_host(host, ZONES, ()) is not None


@pytest.mark.parametrize(
    "host",
    """vertice-nmap vertice-maximus_eureka web.example internal notsvc.internal 0x7f.example
    localhost.example metadata.google.internal 1e100.net""".split(),
)
def test_a_host_that_may_be_looked_up(host: str) -> None:
    """What it means is checked when it is known."""
    assert problem_of_host(host, ZONES, ()) is None


def test_localhost_is_loopback_and_allowed_with_it() -> None:
    assert problem_of_host("localhost", ZONES, networks("127.0.0.0/8")) is None


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("svc.internal", True),
        ("svc.internal.", True),
        ("a.b.svc.internal", True),
        ("xsvc.internal", False),
        ("internal", False),
    ],
)
def test_a_zone_ends_at_a_dot(name: str, inside: bool) -> None:
    assert is_inside(name, ZONES) is inside


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("2001:DB8:0::7", "2001:db8::7"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("10.0.0.07", None),
        ("10.0.7", None),
        ("fe80::1%eth0", None),
        ("0x7f.0.0.1", None),
        ("１０.0.0.7", None),
        ("", None),
    ],
)
def test_addresses_have_one_form(text: str, address: str | None) -> None:
    assert canonical_address(text) == address
