"""What can be next for one instance, and the lease that most of it is about."""

from dataclasses import dataclass

SERVING = "serving"


@dataclass(frozen=True, slots=True)
class Register:
    """Ask for a lease, with the instance's present data.

    In a *state* other than serving it never is in DNS, not even for the moment until a report.
    """

    state: str = SERVING
    reason: str = ""


AS_SERVING = Register()


@dataclass(frozen=True, slots=True)
class Renew:
    """Send a heartbeat for the lease; each registrar has *timeout* seconds to answer."""

    lease_id: str
    timeout: float


@dataclass(frozen=True, slots=True)
class Ask:
    """Read in which state the registrar holds the instance."""


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the registrar the instance's state."""

    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Deregister:
    """Give the lease back; without *lease_id* the answer to a registration never came."""

    lease_id: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do for *seconds*, unless health changes or something is answered."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Stopped:
    """Nothing to do any more."""


Action = Register | Renew | Ask | Report | Deregister | Wait | Stopped


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to be answered until *ends_at*, by our clock; the registrar's may be later."""

    lease_id: str
    ttl: float
    every: float
    ends_at: float

    @property
    def timeout(self) -> float:
        """Seconds one attempt may take: 5, less for short leases, so that several fit."""
        return min(5.0, max(0.5, self.ttl / 10))
