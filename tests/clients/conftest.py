"""The system that all clients share, and clients that differ in what their resolv.conf says."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.support.lab import DNSD, ELSEWHERE, LOADING, REPLICA, STRICT, Lab, a_lab
from tests.support.netns import Namespace, why_not

SIXTY = [f"10.60.0.{number}" for number in range(1, 61)]


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The running system, with services for what makes clients differ."""
    if problem := why_not():
        pytest.skip(problem)
    with a_lab() as lab:
        lab.register("v4only", "10.0.0.7")
        lab.register("both", "10.0.0.8", "2001:db8::8")
        lab.register("sixty", *SIXTY)
        lab.register("tagged", "10.0.1.1", tags=["canary"], zone="eu-1")
        lab.register("tagged", "10.0.1.2", first=2, zone="eu-2")
        yield lab


@dataclass(frozen=True, slots=True)
class Machines:
    """Clients by their resolv.conf."""

    alone: Namespace
    """dnsd and nothing else."""

    with_other: Namespace
    """dnsd first, then a server that knows the rest of the world."""

    not_ready: Namespace
    """A dnsd without data first, then dnsd."""

    only_not_ready: Namespace
    """A dnsd without data and nothing else."""

    over_ipv6: Namespace
    """The replica, by IPv6."""

    stranger: Namespace
    """The replica that trusts nobody and limits everybody."""

    search: Namespace
    """dnsd, and the zone as search list."""


@pytest.fixture(scope="session")
def machines(lab: Lab) -> Iterator[Machines]:
    """One of each."""
    with _machines(lab) as machines:
        yield machines


@contextmanager
def _machines(lab: Lab) -> Iterator[Machines]:
    with (
        lab.client(DNSD) as alone,
        lab.client(DNSD, ELSEWHERE) as with_other,
        lab.client(LOADING, DNSD) as not_ready,
        lab.client(LOADING) as only_not_ready,
        lab.client(REPLICA) as over_ipv6,
        lab.client(STRICT) as stranger,
        lab.client(DNSD, more="search svc.internal") as search,
    ):
        yield Machines(alone, with_other, not_ready, only_not_ready, over_ipv6, stranger, search)
