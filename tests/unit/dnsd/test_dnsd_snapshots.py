"""The catalog on disk: what comes back is what was written, and nothing else is believed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsd.snapshots import Head, lines_of, read
from registry.catalog import Catalog
from registry.changes import Snapshot
from registry.errors import MalformedEntry
from tests.support.dnsd import APEX, instance


def a_catalog() -> Catalog:
    catalog = Catalog(41)
    catalog.put(instance("payments", "pay-1"))
    catalog.put(instance("nmap_service", "n1", (), host="vertice-nmap", found=("10.0.0.9",)))
    catalog.put_gone(instance("gone", "g1"))
    return catalog


def lines(catalog: Catalog) -> list[str]:
    return list(lines_of(catalog.snapshot(), APEX, 1_700_000_000.5))


def test_what_is_read_is_what_was_written() -> None:
    reading = read(lines(a_catalog()), APEX)

    assert reading.problem == ""
    assert reading.malformed == 0
    assert reading.head == Head(APEX, 41, 1_700_000_000.5)
    assert reading.catalog.snapshot() == a_catalog().snapshot()


def test_a_file_that_was_cut_is_not_used() -> None:
    """Half of the services would be denied."""
    whole = lines(a_catalog())
    for cut in range(1, len(whole)):
        assert read(whole[:cut], APEX).problem
    assert read([whole[0], *whole[2:]], APEX).problem == "lines are missing"
    assert read([], APEX).problem


@pytest.mark.parametrize(
    "line",
    [
        "",
        "not JSON",
        "[]",
        '["live"]',
        '["live", "payments", "not an entry"]',
        '["live", 5, null]',
        '["other", "a", "b"]',
        "[" * 5000,
        '["live", "payments", "1 1 l 0 0 60000\\nserving\\n\\n{}"]',
    ],
)
def test_an_entry_that_is_not_ours_is_left_out_and_the_others_served(line: str) -> None:
    whole = lines(a_catalog())

    reading = read([whole[0], line, *whole[1:]], APEX)

    assert reading.malformed == 1
    assert len(reading.catalog) == 3


@pytest.mark.parametrize(
    "head",
    [
        {"format": 2, "zone": APEX, "revision": 1, "saved_at": 0},
        {"format": 1, "zone": "other.", "revision": 1, "saved_at": 0},
        {"format": 1, "zone": APEX, "revision": -1, "saved_at": 0},
        {"format": 1, "zone": APEX, "revision": 2**60, "saved_at": 0},
        {"format": 1, "zone": APEX, "revision": "x", "saved_at": 0},
        {"format": 1, "zone": APEX, "revision": 1e400, "saved_at": 0},
        {},
        [],
        7,
    ],
)
def test_a_head_that_is_not_ours_is_refused(head: object) -> None:
    with pytest.raises(MalformedEntry):
        read([json.dumps(head), '["end", 0]'], APEX)


@given(st.lists(st.text(max_size=40), max_size=5))
def test_any_lines_are_a_reading_or_malformed(text: list[str]) -> None:
    try:
        reading = read(text, APEX)
    except MalformedEntry:
        return
    assert reading.problem


@given(st.lists(st.text(max_size=60), max_size=5))
def test_any_lines_behind_a_good_head_never_fail(text: list[str]) -> None:
    head = next(lines_of(Snapshot(1), APEX, 0.0))

    reading = read([head, *text], APEX)

    assert reading.problem or not text
