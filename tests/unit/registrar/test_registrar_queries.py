"""Query strings and conditions: how long to wait, what to show, what is known already."""

import pytest

from registrar.queries import (
    MAX_WAIT,
    Wait,
    flag_of,
    is_match,
    list_tag,
    seconds_of,
    service_tag,
    wait_of,
)
from registry.errors import InvalidInstance


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30.0),
        ("30", 30.0),
        ("0s", 0.0),
        ("500ms", 0.5),
        ("1.5s", 1.5),
        ("0m30s", 30.0),
        ("", MAX_WAIT),
        ("55s", MAX_WAIT),
        ("56s", MAX_WAIT),
        ("1m0s", MAX_WAIT),
        ("5m", MAX_WAIT),
        ("60000ms", MAX_WAIT),
        ("999999999h", MAX_WAIT),
    ],
)
def test_a_wait_is_read_as_go_writes_it_and_is_never_longer_than_the_longest(
    text: str, seconds: float
) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "text", ["x", "-1s", "30 s", "s", "1d", "1e3s", "٣s", "1ms2", "9999999999s", "1s" * 5]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidInstance, match="wait"):
        seconds_of(text)


def test_who_gives_an_index_waits_for_what_is_later() -> None:
    assert wait_of([("index", "42"), ("wait", "3s")]) == Wait(42, 3.0)
    assert wait_of([("index", "42")]) == Wait(42, MAX_WAIT)
    assert wait_of([("wait", "3s")]) is None


@pytest.mark.parametrize("index", ["", "-1", "x", "1.0", "9" * 17, str(2**53), "٣"])
def test_an_index_that_is_no_revision_is_refused(index: str) -> None:
    with pytest.raises(InvalidInstance, match="index"):
        wait_of([("index", index)])


def test_a_flag_is_true_or_false() -> None:
    assert flag_of([("detail", "True")], "detail")
    assert not flag_of([("detail", "false")], "detail")
    assert not flag_of([], "detail")
    with pytest.raises(InvalidInstance, match="detail"):
        flag_of([("detail", "1")], "detail")


def test_a_tag_follows_whatever_changes_what_is_shown() -> None:
    lists = {
        list_tag(7, 0, True),
        list_tag(8, 0, True),
        list_tag(7, 1, True),
        list_tag(7, 0, False),
    }
    services = {
        service_tag((7, 2), 0, True),
        service_tag((8, 2), 0, True),
        service_tag((7, 1), 0, True),
        service_tag((7, 2), 1, True),
        service_tag((7, 2), 0, False),
    }

    assert (len(lists), len(services)) == (4, 5)
    assert all(tag.startswith('W/"') and tag.endswith('"') for tag in lists | services)


@pytest.mark.parametrize(
    ("condition", "is_known"),
    [
        ('W/"7"', True),
        ('"7"', True),
        ('"5", W/"7"', True),
        ("*", True),
        ('W/"8"', False),
        ("7", False),
        ("", False),
    ],
)
def test_conditions_compare_weakly(condition: str, is_known: bool) -> None:
    """RFC 9110, section 13.1.2."""
    assert is_match(condition, 'W/"7"') is is_known
