"""The journal: which services were others, at which serial, within bounds."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsd.journal import HALF, INSTANCE_SIZE, SERIALS, Difference, Journal, distance
from registry.catalog import Catalog, Service
from registry.changes import InstanceDown, InstanceUp
from registry.model import Instance
from tests.support.dnsd import instance


class Book:
    """A catalog whose changes are noted one by one."""

    def __init__(self, revision: int = 0, **bounds: Any) -> None:
        self.catalog = Catalog(revision)
        self.journal = Journal(**bounds)
        self.journal.reset(self.catalog)
        self.now = 0.0

    def up(self, service: str, id: str, **more: Any) -> None:
        revision = self.catalog.revision + 1
        one = instance(service, id, **more)
        one = Instance(one.registration, revision, "l", 0, listed_as=service)
        self.note(self.catalog.apply(InstanceUp(one, revision, revision - 1)))

    def down(self, service: str, id: str) -> None:
        revision = self.catalog.revision + 1
        self.note(self.catalog.apply(InstanceDown(service, id, "", revision, revision - 1)))

    def note(self, service: str | None) -> None:
        self.journal.note(() if service is None else (service,), self.catalog, self.now)

    def since(self, serial: int) -> dict[str, Difference] | None:
        return self.journal.differences(serial, self.catalog.revision)


def ids(service: Service | None) -> set[str] | None:
    return None if service is None else set(service.instances)


def test_each_serial_since_the_start_is_known() -> None:
    book = Book()
    book.up("a", "1")
    book.up("a", "2")
    book.down("a", "1")

    found = [book.since(serial) or {} for serial in range(4)]

    assert [{n: (ids(d.before), ids(d.after)) for n, d in f.items()} for f in found] == [
        {"a": (None, {"2"})},
        {"a": ({"1"}, {"2"})},
        {"a": ({"1", "2"}, {"2"})},
        {},
    ]


def test_only_services_that_changed_are_given() -> None:
    book = Book()
    book.up("a", "1")
    book.up("b", "1")
    book.up("b", "2")

    found = book.since(2)

    assert found is not None
    assert set(found) == {"b"}


def test_what_came_and_went_in_between_leaves_the_same_instances() -> None:
    book = Book()
    book.up("a", "1")
    book.up("a", "2")
    book.down("a", "2")

    found = book.since(1)

    assert found is not None
    before, after = found["a"]
    assert before is not None
    assert after is not None
    assert before.instances == after.instances


def test_a_service_that_left_and_came_back_otherwise_spelled_has_both_names() -> None:
    book = Book()
    book.up("a_b", "1")
    book.down("a-b", "1")
    book.catalog._services.clear()
    book.up("a-b", "1")

    found = book.since(1)

    assert found is not None
    before, after = found["a-b"]
    assert before is not None
    assert after is not None
    assert (before.name, after.name) == ("a_b", "a-b")


def test_a_change_that_touched_nobody_costs_nothing() -> None:
    book = Book()
    book.up("a", "1")
    book.down("nobody", "1")

    assert len(book.journal) == 1
    assert book.since(1) == {}


def test_what_is_given_does_not_change_any_more() -> None:
    book = Book()
    book.up("a", "1")
    services = book.journal.services()
    book.up("a", "2")
    book.up("b", "1")

    assert {name: ids(service) for name, service in services.items()} == {"a": {"1"}}


def test_x15_the_journal_is_bounded_in_octets() -> None:
    book = Book(max_bytes=20 * INSTANCE_SIZE)
    for n in range(1000):
        book.up("a", "1", weight=n)

    assert book.journal.size <= 20 * INSTANCE_SIZE
    assert 5 < len(book.journal) < 20
    assert book.since(0) is None
    assert book.since(1000 - len(book.journal)) is not None
    assert book.since(999 - len(book.journal)) is None


def test_x15_the_journal_is_bounded_in_age() -> None:
    book = Book(max_age=60.0)
    book.up("a", "1")
    book.now = 61.0
    book.up("a", "2")

    assert len(book.journal) == 1
    assert book.since(0) is None
    assert book.since(1) is not None


def test_x12_a_snapshot_begins_a_new_journal() -> None:
    book = Book()
    book.up("a", "1")
    book.catalog = Catalog(1_000_000)
    book.journal.reset(book.catalog)

    assert book.since(1) is None
    assert book.since(1_000_000) == {}
    assert book.journal.size == 0


@pytest.mark.parametrize("start", [0, SERIALS - 3, 5 * SERIALS - 2, (1 << 53) - 100])
def test_g6_serials_are_the_low_half_of_revisions_also_across_the_wrap(start: int) -> None:
    book = Book(start)
    for n in range(6):
        book.up("a", str(n))

    for n in range(7):
        found = book.since((start + n) % SERIALS)
        assert found is not None
        assert ids(found["a"].before if "a" in found else None) == (
            None if n in (0, 6) else {str(i) for i in range(n)}
        )


@pytest.mark.parametrize("ahead", [1, 100, HALF - 1, HALF, HALF + 1])
def test_g7_a_serial_that_is_newer_or_undefined_is_not_known(ahead: int) -> None:
    book = Book(1000)
    book.up("a", "1")

    assert book.since((1001 + ahead) % SERIALS) is None


@given(st.integers(0, SERIALS - 1), st.integers(0, SERIALS - 1))
def test_g7_comparing_is_that_of_rfc_1982(old: int, new: int) -> None:
    """Written out as section 3.2 has it."""
    newer = (old < new and new - old < HALF) or (old > new and old - new > HALF)

    assert (0 < distance(old, new) < HALF) == newer


STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("123"), st.booleans()), max_size=30
)


@given(STEPS, st.integers(1, 2**40))
def test_undoing_the_changes_gives_what_was(steps: list[tuple[str, str, bool]], start: int) -> None:
    book = Book(start)
    past = []
    for service, id, is_up in steps:
        past.append({n: dict(s.instances) for n, s in book.journal.services().items()})
        if is_up:
            book.up(service, id)
        else:
            book.down(service, id)

    for n, then in enumerate(past):
        found = book.since((start + n) % SERIALS)
        assert found is not None
        now = {n: dict(s.instances) for n, s in book.journal.services().items()}
        for name, (before, after) in found.items():
            assert now.pop(name, {}) == (dict(after.instances) if after else {})
            if before:
                now[name] = dict(before.instances)
        assert now == then


def test_its_repr_tells_how_it_is_doing() -> None:
    book = Book(7)
    book.up("a", "1")

    assert repr(book.journal) == "<Journal 1 changes since 7, 500 octets>"
