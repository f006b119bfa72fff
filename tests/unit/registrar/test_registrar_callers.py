"""Whose address a request is taken to come from."""

import pytest

from registrar.callers import caller_of
from registry.runtime.config import networks

PROXIES = networks("10.0.0.0/24,fd00::/8")


@pytest.mark.parametrize(
    ("peer", "forwarded", "caller"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("::ffff:192.0.2.1", [], "192.0.2.1"),
        ("", [], ""),
        ("192.0.2.1", ["203.0.113.5"], "192.0.2.1"),
        ("10.0.0.2", ["203.0.113.5"], "203.0.113.5"),
        ("::ffff:10.0.0.2", ["203.0.113.5"], "203.0.113.5"),
        ("fd00::2", ["2001:DB8::5"], "2001:db8::5"),
        ("10.0.0.2", ["127.0.0.1, 203.0.113.5"], "203.0.113.5"),
        ("10.0.0.2", ["127.0.0.1", "1.1.1.1,203.0.113.5 "], "203.0.113.5"),
        ("10.0.0.2", ["10.0.0.9"], "10.0.0.9"),
        ("10.0.0.2", ["203.0.113.5, "], "10.0.0.2"),
        ("10.0.0.2", ["nonsense"], "10.0.0.2"),
    ],
)
def test_the_last_hop_counts_and_only_from_a_trusted_proxy(
    peer: str, forwarded: list[str], caller: str
) -> None:
    """All before it was written by whoever called."""
    assert caller_of(peer, forwarded, PROXIES) == caller
