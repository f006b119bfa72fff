"""A request's bytes as JSON, within bounds; what JSON leaves to the reader is refused.

Two readers of one body must not see different things, so duplicate keys are an
error; and nothing a stranger sends may cost more than its length.
"""

import json
from collections.abc import Iterable
from typing import Any, Never

from registrar.errors import BodyTooDeep, MalformedBody, WrongMediaType

MAX_BODY = 64 * 1024
"""Octets.  The largest registration that the rules allow is about 12 KiB; the rest is for lists."""

MAX_DEPTH = 16
"""Levels of lists and objects.  Ours need three; CPython's reader fails near 1,000."""

MAX_DIGITS = 32
"""Of one number.  int() takes quadratic time, and refuses from 4,300 digits on."""


def require_json(media_type: str, charset: str | None, encoding: str) -> None:
    """Refuse a body that is announced as anything but plain JSON in UTF-8.

    A missing media type is refused too: browsers send such bodies across origins
    without asking first.
    """
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise WrongMediaType(
            f"Content-Type is {media_type[:80] or 'missing'!r}; send application/json"
        )
    if charset is not None and charset.lower().replace("_", "-") not in ("utf-8", "utf8"):
        raise WrongMediaType(f"charset is {charset[:40]!r}; JSON is UTF-8 (RFC 8259, section 8.1)")
    if encoding not in ("", "identity"):
        raise WrongMediaType(
            f"Content-Encoding is {encoding[:40]!r}; a compressed body is not read: send it plain"
        )


def parse_json(body: bytes) -> Any:
    """The value in *body*; MalformedBody and BodyTooDeep say where and why it is not one."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise MalformedBody(f"not UTF-8 at octet {error.start}") from error
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise MalformedBody(
            f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from error
    except RecursionError as error:
        raise BodyTooDeep(f"nested deeper than {MAX_DEPTH} levels") from error
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
        raise BodyTooDeep(f"nested deeper than {MAX_DEPTH} levels")
    return value


def _is_deeper(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return False
    return levels == 0 or any(_is_deeper(inner, levels - 1) for inner in value)


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    pairs = list(pairs)
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise MalformedBody(f"the key {twice[:80]!r} stands twice in one object")
    return found


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise MalformedBody(f"a number of {len(digits)} digits; at most {MAX_DIGITS}")
    return int(digits)


def _fraction(digits: str) -> float:
    if len(digits) > MAX_DIGITS:
        raise MalformedBody(f"a number of {len(digits)} characters; at most {MAX_DIGITS}")
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise MalformedBody(f"the number {digits} is out of range")
    return number


def _constant(name: str) -> Never:
    # Python's reader takes NaN and Infinity, which JSON does not have.
    raise MalformedBody(f"not JSON: {name}")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_int=_integer,
    parse_float=_fraction,
    parse_constant=_constant,
)
