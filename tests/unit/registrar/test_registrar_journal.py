"""The ring of changes: what can be resumed, what is too old, and when a service was touched."""

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from registrar.events import event_of, opening
from registrar.journal import Entry, Journal, Reset, service_of
from registry.changes import (
    Change,
    InstanceDown,
    InstanceUp,
    RevisionRaised,
    ServiceForgotten,
    ServiceSettings,
)
from registry.model import Instance
from tests.support.lease_worlds import a_registration


def down(revision: int, service: str = "web") -> InstanceDown:
    return InstanceDown(service, "one", "evicted", revision, revision - 1)


def forgotten(revision: int, service: str = "web") -> ServiceForgotten:
    return ServiceForgotten(service, revision, revision - 1)


def filled(*changes: Change, capacity: int = 4) -> Journal:
    journal = Journal(capacity)
    for change in changes:
        journal.add(change)
    return journal


def revisions(entries: Any) -> list[int] | None:
    return None if entries is None else [entry.revision for entry in entries]


def test_whoever_has_a_position_is_told_what_came_after_it() -> None:
    journal = filled(down(1), down(2))
    position = journal.end
    journal.add(down(3))

    assert revisions(journal.after(position)) == [3]
    assert revisions(journal.after(journal.end)) == []


def test_a_position_is_lost_once_more_came_than_is_kept() -> None:
    journal = filled(down(1))
    position = journal.end
    for revision in range(2, 6):
        journal.add(down(revision))

    assert revisions(journal.after(position)) == [2, 3, 4, 5]
    journal.add(down(6))
    assert journal.after(position) is None


@pytest.mark.parametrize(
    ("revision", "expected"),
    [(6, []), (5, [6]), (3, [4, 5, 6]), (2, [3, 4, 5, 6]), (1, None), (0, None), (99, [])],
)
def test_a_revision_can_be_resumed_while_all_after_it_is_kept(
    revision: int, expected: list[int] | None
) -> None:
    journal = filled(*(down(r) for r in range(1, 7)))

    position = journal.position_after(revision)

    assert (None if position is None else revisions(journal.after(position))) == expected


def test_nothing_before_a_snapshot_can_be_resumed() -> None:
    journal = filled(down(5))
    journal.reset(9)
    journal.add(down(10))

    assert journal.position_after(8) is None
    position = journal.position_after(9)
    assert position is not None
    assert revisions(journal.after(position)) == [10]


def test_who_listens_during_a_snapshot_is_told_to_read_anew() -> None:
    journal = filled(down(5))
    position = journal.end
    journal.reset(9)

    assert journal.after(position) == [Reset(9)]


def test_a_departure_without_a_revision_cannot_be_resumed_over() -> None:
    """Somebody whom a snapshot lacked has left: the revision is the same, the catalog is not."""
    journal = filled(down(5))
    journal.reset(5)

    assert journal.position_after(5) is None


@given(st.lists(st.integers(1, 3), min_size=1, max_size=30), st.integers(1, 8), st.integers(0, 90))
def test_resuming_tells_all_that_came_after_or_says_that_it_cannot(
    steps: list[int], capacity: int, known: int
) -> None:
    journal, every, revision = Journal(capacity), [], 0
    for step in steps:
        revision += step
        every.append(revision)
        journal.add(down(revision))

    position = journal.position_after(known)

    later = [r for r in every if r > known]
    if position is None:
        assert len(later) > capacity
    else:
        assert revisions(journal.after(position)) == later


def test_a_service_was_touched_by_its_last_change() -> None:
    journal = filled(down(3, "web"), down(4, "db"), ServiceSettings("web", 1, 5, 4))

    assert journal.touched_at("web", is_known=True) == 5
    assert journal.touched_at("db", is_known=True) == 4
    assert journal.touched_at("idle", is_known=True) == 0


def test_of_what_came_by_a_snapshot_nothing_later_than_it_is_said() -> None:
    journal = filled(down(3, "web"))
    journal.reset(7)

    assert journal.touched_at("web", is_known=True) == 7


def test_a_service_that_is_forgotten_takes_no_room_and_its_end_is_seen() -> None:
    journal = filled(down(3, "web"), forgotten(4, "web"), down(5, "db"))

    assert journal.touched_at("web", is_known=False) == 4
    assert journal.touched_at("idle", is_known=True) == 0, "others are not woken by it"


UP = Instance(a_registration("Pay_ments", "One"), 7, "x", 1000, listed_as="Pay_ments")


@pytest.mark.parametrize(
    ("change", "service"),
    [
        (InstanceUp(UP, 7, 6), "pay-ments"),
        (down(1), "web"),
        (forgotten(1), "web"),
        (ServiceSettings("web", 1, 1, 0), "web"),
        (RevisionRaised(9, 1), None),
    ],
)
def test_a_change_is_about_one_service(change: Change, service: str | None) -> None:
    assert service_of(change) == service


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (
            down(7),
            b'id: 7\nevent: down\ndata: {"revision": "7", "service": "web", "instance": "one",'
            b' "reason": "evicted"}\n\n',
        ),
        (forgotten(8), b'id: 8\nevent: forgotten\ndata: {"revision": "8", "service": "web"}\n\n'),
        (
            ServiceSettings("web", 2, 9, 8),
            b'id: 9\nevent: settings\ndata: {"revision": "9", "service": "web", "answers": 2}\n\n',
        ),
        (Reset(10), b'id: 10\nevent: reset\ndata: {"revision": "10"}\n\n'),
        (RevisionRaised(11, 1), b'id: 11\nevent: reset\ndata: {"revision": "11"}\n\n'),
    ],
)
def test_each_entry_is_one_event(entry: Entry, text: bytes) -> None:
    assert event_of(entry) == text


def test_an_instance_is_shown_whole_and_on_one_line() -> None:
    """Metadata is anybody's text: a line end in it must not end the event."""
    text = event_of(InstanceUp(UP, 7, 6))

    assert text.count(b"\n") == 4
    assert b'"service": "pay-ments", "instance": "one", "service_name": "Pay_ments"' in text
    assert b'"document": {"instance_id": "One"' in text


def test_a_stream_begins_with_what_its_listener_knows() -> None:
    assert opening(42) == b"retry: 2000\nid: 42\n\n"
