"""Two other readers of HTTP, to say what an upstream would make of the bytes that it got."""

from dataclasses import dataclass

import h11
import httptools


@dataclass(frozen=True)
class Read:
    """A request as a judge reads it; field names in lower case."""

    method: bytes
    target: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        """The values of every field called *name*."""
        return [value for found, value in self.fields if found == name]


class Disagreement(AssertionError):
    """The judges do not read the same requests, or one of them refuses what it got."""


METHODS = frozenset(b"GET HEAD POST PUT PATCH DELETE OPTIONS TRACE PURGE".split())
"""llhttp takes only those of its list; a request with another method is h11's to judge alone."""


def requests_in(data: bytes, *, broken_off: bool = False) -> list[Read]:
    """The requests in *data*, on which h11 and llhttp agree; Disagreement when they do not.

    *broken_off*: the last one may be incomplete, and then is none.
    """
    first = by_h11(data, broken_off=broken_off)
    if not all(read.method in METHODS for read in first):
        return first
    second = by_llhttp(data)
    if first != second:
        raise Disagreement(f"h11 reads {first}, llhttp {second}, in {data!r}")
    return first


def by_h11(data: bytes, *, broken_off: bool = False) -> list[Read]:
    """What h11 reads as a server; an incomplete request counts as a disagreement, or as none."""
    found: list[Read] = []
    while data:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        connection.receive_data(data)
        try:
            request = connection.next_event()
            if not isinstance(request, h11.Request):
                raise Disagreement(f"h11 reads {request!r} in {data!r}")
            body = b""
            while isinstance(event := connection.next_event(), h11.Data):
                body += bytes(event.data)
        except h11.RemoteProtocolError as error:
            raise Disagreement(f"h11 refuses {data!r}: {error}") from error
        if event is h11.NEED_DATA and broken_off:
            return found
        if not isinstance(event, h11.EndOfMessage):
            raise Disagreement(f"h11 waits for more after {data!r}")
        fields = tuple((bytes(n), bytes(v)) for n, v in request.headers)
        found.append(Read(bytes(request.method), bytes(request.target), fields, body))
        data = bytes(connection.trailing_data[0])
    return found


class _Llhttp:
    """Collects what httptools calls back with."""

    def __init__(self) -> None:
        self.found: list[Read] = []
        self.parser = httptools.HttpRequestParser(self)
        self.on_message_begin()

    def on_message_begin(self) -> None:
        self._url = self._body = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._in_body = False

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:  # a trailer is no field of the head
            self._fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self._in_body = True

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.found.append(
            Read(self.parser.get_method(), self._url, tuple(self._fields), self._body)
        )


def by_llhttp(data: bytes) -> list[Read]:
    """What llhttp, the parser of Node, reads; a refusal counts as a disagreement."""
    reader = _Llhttp()
    try:
        reader.parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # it stops there, as a server that switches would
    except httptools.HttpParserError as error:
        raise Disagreement(f"llhttp refuses {data!r}: {error}") from error
    return reader.found
