"""Which bytes are a JSON body, and which announcements of one are believed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrar.body import MAX_DEPTH, parse_json, require_json
from registrar.errors import MalformedBody, WrongMediaType


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=10,
    )
)
def test_what_is_json_is_read_as_json(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value


@given(st.binary(max_size=64))
def test_any_bytes_are_a_value_or_malformed(body: bytes) -> None:
    assert value_or_malformed(body) in ("malformed", value_of(body))


def value_or_malformed(body: bytes) -> object:
    try:
        return parse_json(body)
    except MalformedBody:
        return "malformed"


def value_of(body: bytes) -> object:
    """As the standard library reads it, which takes more."""
    try:
        return json.loads(body)
    except ValueError:
        return "malformed"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"{}x", "Extra data"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"\xff", "not UTF-8 at octet 0"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b"[NaN]", "NaN"),
        (b"[-Infinity]", "Infinity"),
        (b"[1e999]", "out of range"),
        (b"[" + b"1" * 33 + b"]", "33 digits"),
        (b"[0." + b"1" * 40 + b"]", "42 characters"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "'c' stands twice"),
        (b'{"a\\u0062": 1, "ab": 2}', "'ab' stands twice"),
        (b"[" * 17 + b"]" * 17, "nested deeper"),
        (b'{"a":' * 17 + b"1" + b"}" * 17, "nested deeper"),
        (b"[" * 30000 + b"]" * 30000, "nested deeper"),
    ],
)
def test_what_two_readers_could_read_differently_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(MalformedBody, match=reason):
        parse_json(body)


def test_as_deep_as_allowed() -> None:
    assert parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH) != []


def test_many_brackets_side_by_side_are_not_deep() -> None:
    assert len(parse_json(b"[" + b"{}," * 999 + b"{}]")) == 1000


@pytest.mark.parametrize(
    ("media_type", "charset", "encoding"),
    [
        ("application/json", None, ""),
        ("application/json", "UTF-8", "identity"),
        ("application/merge-patch+json", "utf_8", ""),
    ],
)
def test_plain_json_is_taken(media_type: str, charset: str | None, encoding: str) -> None:
    require_json(media_type, charset, encoding)
    assert parse_json(b"1") == 1


@pytest.mark.parametrize(
    ("media_type", "charset", "encoding"),
    [
        ("", None, ""),  # a browser sends such a body across origins without asking
        ("text/plain", None, ""),
        ("application/xml", None, ""),
        ("text/x+json", None, ""),
        ("application/json", "latin-1", ""),
        ("application/json", None, "gzip"),
    ],
)
def test_anything_else_is_refused(media_type: str, charset: str | None, encoding: str) -> None:
    with pytest.raises(WrongMediaType):
        require_json(media_type, charset, encoding)
