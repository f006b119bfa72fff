"""What can be wrong with a request, beside what `registry.errors` names.

`problems.py` says which status each becomes.
"""

from collections.abc import Iterable

from registry.errors import CallboardError


class MalformedBody(CallboardError):
    """The body is not JSON as we take it: broken, ambiguous, too deep."""


class BodyTooDeep(MalformedBody):
    """The body's lists and objects are nested deeper than the limit."""


class BodyTooLarge(CallboardError):
    """The body exceeds the limit."""


class SlowBody(CallboardError):
    """The body did not arrive in time."""


class WrongMediaType(CallboardError):
    """The body is not announced as plain JSON."""


class Unauthorized(CallboardError):
    """Whoever asks shows no token, or none that is known here."""


class Forbidden(CallboardError):
    """The token shown does not allow this."""


class ServiceNotFound(CallboardError):
    """No instance of that service is listed."""


class AmbiguousHeartbeat(CallboardError):
    """A heartbeat without an id, for a service whose instances were all registered with one."""

    def __init__(self, service: str, ids: Iterable[str]) -> None:
        self.ids = tuple(ids)
        shown = ", ".join(self.ids[:20]) + (", …" if len(self.ids) > 20 else "")
        super().__init__(
            f"{service} has {len(self.ids)} instances, each registered with an instance_id;"
            f" send the instance_id of one: {shown}"
        )


class LimitReached(CallboardError):
    """A bound on what is kept; *name* is the bound's own, and part of the problem's type."""

    def __init__(self, name: str, message: str) -> None:
        self.name = name
        super().__init__(message)


class ViewNotReady(CallboardError):
    """What this registrar knows is not current enough to say that something does not exist."""


class SlowWatcher(CallboardError):
    """A listener did not read for so long that what comes next is not kept any more."""
