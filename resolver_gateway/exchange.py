"""What is known of a request once it is over; metrics and the access line are made of it."""

import json
from typing import NamedTuple


class Exchange(NamedTuple):
    """One request, told in one value."""

    request_id: bytes
    client: str
    """Its address; behind a proxy that is trusted the one that it names."""
    method: bytes
    target: bytes
    service: str
    """Empty when the request named none."""
    upstream: str
    """Address and port of the last one tried; empty when none was."""
    attempts: int
    resolution: str
    """`hit`, `stale`, `miss`, `fallback`; empty when nothing was looked up."""
    status: int
    """0: the client left, or its answer broke off."""
    cause: str
    """Empty when the upstream's own answer went to the client whole."""
    seconds: float


def access_line(exchange: Exchange, form: str) -> str:
    """The one line of *exchange*, as `text` or `json`; no value can forge another line.

    The target stands there without its query, where secrets live.
    """
    exchange = exchange._replace(target=exchange.target.partition(b"?")[0])
    told = {
        name: value.decode("latin-1") if isinstance(value, bytes) else value
        for name, value in exchange._asdict().items()
    }
    if form == "json":
        return json.dumps(told)
    return " ".join(f"{name}={_word(value)}" for name, value in told.items())


def _word(value: object) -> str:
    text = f"{value:.6f}" if isinstance(value, float) else str(value)
    plain = text.isascii() and text.isprintable() and not set(text) & set(' "\\=')
    return text if plain else json.dumps(text)
