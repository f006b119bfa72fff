"""Instances and services as they are shown."""

import json
import random

import pytest

from registrar.documents import (
    LeaseTime,
    instance_document,
    matches,
    presumed,
    render_service,
)
from registry.model import Instance, Port, Registration


def instance(id: str = "one", weight: int = 100, lease_ttl: int = 60, **more: object) -> Instance:
    registration = Registration(
        "web", id, (Port("http", 80),), ("10.0.0.7",), weight=weight, lease_ttl=lease_ttl
    )
    return Instance(registration, 5, "lease", 1_000_000, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lease", "now", "last", "remaining"),
    [
        (LeaseTime(2000.0, 60.0), 2000.0, 2000.0, 60),
        (LeaseTime(2000.0, 42.5), 2000.0, 1982.5, 42),
        (LeaseTime(2000.0, 42.5), 2004.0, 1982.5, 38),
        (LeaseTime(2000.0, 0.0), 2000.0, 1940.0, 0),
        (LeaseTime(2000.0, 10.0), 2060.0, 1950.0, 0),
        (LeaseTime(1001.0, 59.5), 1001.0, 1000.5, 60),
        (LeaseTime(1001.0, 40.0), 1001.0, 1000.0, 40),
        (LeaseTime(0.0, None), 2000.0, 1000.0, 0),
    ],
)
def test_lease_times_follow_from_what_remained_when_it_was_asked(
    lease: LeaseTime, now: float, last: float, remaining: int
) -> None:
    document = instance_document(instance(), lease, now)

    assert (document["last_heartbeat"], document["ttl_remaining"]) == (last, remaining)


def test_a_lease_of_which_nothing_is_known_lasts_from_its_registration() -> None:
    """A newcomer is shown as it is without asking the store for it alone."""
    new = presumed(instance("a"))

    document = instance_document(instance("a"), new, 1010.0)

    assert (document["last_heartbeat"], document["ttl_remaining"]) == (1000.0, 50)


def test_a_service_opens_with_the_one_that_is_drawn() -> None:
    some = [instance("b", weight=0), instance("a", weight=65535)]
    rendered = render_service("Web", some, {"a": LeaseTime(2000.0, 30.0)}, 2000.0)

    document = json.loads(rendered.text(random.Random(1), stale=False))

    assert list(document) == [
        "service_name",
        "endpoint",
        "health_endpoint",
        "metadata",
        "registered_at",
        "last_heartbeat",
        "ttl_remaining",
        "instances",
    ]
    assert (document["service_name"], document["ttl_remaining"]) == ("Web", 30)
    assert [i["instance_id"] for i in document["instances"]] == ["a", "b"]


def test_stale_documents_say_so() -> None:
    rendered = render_service("web", [instance()], {}, 2000.0)

    assert json.loads(rendered.text(random.Random(1), stale=True))["stale"] is True
    assert "stale" not in json.loads(rendered.text(random.Random(1), stale=False))


def test_filters_all_hold() -> None:
    registration = Registration(
        "web", "one", (Port("http", 80),), ("10.0.0.7",), version="1", zone="eu", tags=("a", "b")
    )
    shown = Instance(registration, 1, "lease", 0)

    def holds(**wanted: list[str]) -> bool:
        return matches(shown, {"tag": [], "version": [], "zone": [], "state": [], **wanted})

    assert holds()
    assert holds(tag=["a", "b"], version=["1"], zone=["eu"], state=["serving"])
    assert not holds(tag=["a", "c"])
    assert not holds(version=["1", "2"])
    assert not holds(zone=["EU"])
    assert not holds(state=["draining"])
