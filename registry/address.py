"""Where the store is, as a setting says it."""

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from registry.runtime.config import HostPort


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """Where the store is.

    *url* is redis://, rediss:// or unix://.  With *sentinels* its host and port are not used:
    whoever they say is the primary of *master* is, and user, password, database and TLS are as
    in *url*.  *ca_file* holds the authorities (PEM) that a server's certificate is checked by,
    where they are not the system's.
    """

    url: str
    sentinels: tuple[HostPort, ...] = ()
    master: str = ""
    ca_file: str = ""


def address_of(store: str | StoreAddress) -> StoreAddress:
    """A plain URL is an address too."""
    return StoreAddress(store) if isinstance(store, str) else store


def address_problems(store: StoreAddress) -> Iterator[str]:
    """The rules across the settings `redis`, `sentinel`, `master` and `redis_ca`."""
    scheme = urlsplit(store.url).scheme
    if bool(store.sentinels) != bool(store.master):
        yield (
            "setting sentinel: the Sentinels and the name that they know the primary by go"
            " together; give --sentinel and --master"
        )
    if store.sentinels and scheme == "unix":
        yield "setting redis: a primary that Sentinels name is not on a Unix socket; give redis://"
    if store.ca_file and scheme != "rediss":
        yield "setting redis_ca: certificates are checked over TLS only; give --redis rediss://…"
