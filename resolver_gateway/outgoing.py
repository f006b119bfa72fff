"""The head of a request as it goes to an upstream: whose it is, and through whom it came."""

from resolver_gateway import headers
from resolver_gateway.balancer import Upstream
from resolver_gateway.call import Call
from resolver_gateway.routing import Named


class HeadWriter:
    """Writes heads; *pseudonym* is what we are called in `Via`, *scheme* how clients reach us."""

    def __init__(self, pseudonym: bytes, scheme: str) -> None:
        self._pseudonym = pseudonym
        self._scheme = scheme

    def head_for(self, call: Call, named: Named, upstream: Upstream) -> bytes | None:
        """The head of *call* for *upstream*; None when it has been here before (a loop)."""
        head, client = call.head, call.client
        if head.via or not client.stranger:
            hops = headers.hops(head, self._pseudonym)
            if hops is None:
                return None
            said = self._said(call, named, hops, trusted=not client.stranger)
        else:
            # The same for every request of a connection, as long as these three are.
            key = head.host, named.prefix, head.minor
            if client.said_for != key:
                hops = headers.hops(head, self._pseudonym)
                assert hops is not None
                client.said = self._said(call, named, hops, trusted=False)
                client.said_for = key
            said = client.said
        target = upstream.base + call.target if upstream.base else call.target
        host = head.host or upstream.where.encode()
        return headers.request_head(head, target, host, said, call.request_id)

    def _said(self, call: Call, named: Named, hops: bytes, *, trusted: bool) -> bytes:
        """The lines of `forwarding`, `Via`, and what was cut off the path if anything was."""
        said = headers.forwarding(call.client.peer, call.head, trusted=trusted, scheme=self._scheme)
        prefix = b"X-Forwarded-Prefix: %b\r\n" % named.prefix if named.prefix else b""
        return said + b"Via: %b\r\n%b" % (hops, prefix)
