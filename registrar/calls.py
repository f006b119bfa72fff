"""What passes between app.py, which knows HTTP, and the handlers, which know what is meant."""

import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from registrar.tokens import Token

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Call:
    """A request: the caller's address and token, names in its path, query, headers, JSON body.

    `who` is None where nobody showed a token; `gone` tells whether the caller has left.
    """

    caller: str
    names: Mapping[str, str]
    query: Sequence[tuple[str, str]]
    body: Any = None
    who: Token | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    gone: Callable[[], bool] = lambda: False


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer.  `outcomes` are the statuses to count, when there are several in one."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    outcomes: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer without an end: its parts as they come; `release` is called when it is over."""

    chunks: AsyncGenerator[bytes]
    headers: Mapping[str, str]
    release: Callable[[], None]


def reply(
    status: int,
    document: Any,
    headers: Mapping[str, str] = _NOTHING,
    outcomes: tuple[int, ...] | None = None,
) -> Reply:
    """An answer whose body is *document* as JSON."""
    return Reply(status, json.dumps(document).encode(), headers, outcomes)
