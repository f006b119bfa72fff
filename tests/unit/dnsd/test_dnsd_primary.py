"""What makes a worker a primary: its settings, its keys, and what a change costs without them."""

from pathlib import Path

import pytest

from dnsd.config import Config, keys_of, notify_sources, problems, zones_of
from dnsd.metrics import Counts
from dnsd.primary import Primary
from dnsd.table import AnswerTable
from registry.catalog import Catalog
from registry.changes import InstanceUp
from registry.model import Instance
from registry.runtime.config import ConfigError, load
from tests.support.dnsd import instance
from tests.support.primary import KEY_NAME, KEYS, SECRET


def settings(*argv: str) -> Config:
    return load(Config, "dnsd", argv, {}, admin=None, problems=problems)[0]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys.toml"
    file.write_text(KEYS)
    return file


class Worker:
    """A primary over a catalog that a test changes."""

    def __init__(self, config: Config) -> None:
        self.catalog = Catalog(7)
        self.table = AnswerTable(zones_of(config), lambda: self.catalog, state="fresh")
        self.primary = Primary(
            config,
            self.table,
            lambda: self.catalog,
            Counts(),
            problem=lambda service, what: None,
            tells=True,
        )
        self.primary.reset()

    def up(self) -> None:
        one = Instance(instance().registration, 8, "l", 0, listed_as="payments")
        touched = self.catalog.apply(InstanceUp(one, 8, 7))
        assert touched is not None
        self.table.invalidate((touched,))
        self.primary.changed((touched,))


def test_secondaries_are_addresses_with_or_without_a_key(keys: Path) -> None:
    notify = f"10.0.0.2:53={KEY_NAME}, [2001:db8::1]:5353"
    config = settings("--tsig-keys", str(keys), "--notify", notify)

    one, two = config.notify
    assert (str(one.address), one.key) == ("10.0.0.2:53", b"\4knot\3svc\10internal\0")
    assert (str(two.address), two.key) == ("[2001:db8::1]:5353", None)


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["--notify", "ns.example:53"], "is not ADDRESS:PORT"),
        (["--notify", "10.0.0.2"], "is not HOST:PORT"),
        (["--notify", "10.0.0.2:0"], "is not ADDRESS:PORT"),
        (["--notify", "10.0.0.2:53="], "at most 64"),
        (["--notify", "10.0.0.2:53"], "without --tsig-keys no secondary may transfer"),
        (["--tsig-keys", "KEYS", "--notify", "10.0.0.2:53=x"], "has no key x."),
        (["--tsig-keys", "/nowhere"], "setting tsig_keys: /nowhere: [Errno 2]"),
        (
            ["--tsig-keys", "KEYS", "--zone", "a.example"],
            "svc.internal.: not a zone that is",
        ),
        (["--notify-source", "10.0.0.1,10.0.0.2"], "two addresses of one IP version"),
        (["--notify-source", "x"], "does not appear to be an IPv4 or IPv6 address"),
        (["--transfers", "0"], "0 is not in 1..64"),
    ],
)
def test_what_cannot_work_is_said_at_the_start(keys: Path, argv: list[str], problem: str) -> None:
    keys.write_text(KEYS + 'zones = ["svc.internal"]\n')
    with pytest.raises(ConfigError) as caught:
        settings(*(str(keys) if word == "KEYS" else word for word in argv))

    assert problem in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("argv", "sources"),
    [
        ([], {}),
        (["--listen", "10.0.0.1:53"], {4: "10.0.0.1"}),
        (["--listen", "10.0.0.1:53,[2001:db8::1]:53"], {4: "10.0.0.1", 6: "2001:db8::1"}),
        (["--listen", "[::]:53", "--ns", "ns1=10.0.0.1"], {}),
        (["--listen", "10.0.0.1:53", "--notify-source", "10.0.0.9"], {4: "10.0.0.9"}),
        (["--notify-source", "2001:db8::9"], {6: "2001:db8::9"}),
    ],
)
def test_x18_it_tells_from_where_it_listens_or_is_told_to(
    argv: list[str], sources: dict[int, str]
) -> None:
    assert notify_sources(settings(*argv)) == sources


def test_g10_with_notify_secondaries_ask_sooner_whether_they_missed_one(keys: Path) -> None:
    usual = zones_of(settings("--tsig-keys", str(keys)))[0]
    notified = zones_of(settings("--tsig-keys", str(keys), "--notify", "10.0.0.2:53"))[0]

    assert (usual.refresh, usual.retry) == (3600, 600)
    assert (notified.refresh, notified.retry) == (60, 15)
    assert AnswerTable([notified], Catalog).zones[0].soa.at(12)[1] == b"".join(
        n.to_bytes(4, "big") for n in (60, 15, 86400, 5)
    )


def test_without_keys_a_change_is_not_written_down() -> None:
    worker = Worker(settings())
    worker.up()

    assert len(worker.primary.journal) == 0
    assert worker.primary.journal.services() == {}


def test_with_keys_each_change_is(keys: Path) -> None:
    worker = Worker(settings("--tsig-keys", str(keys)))
    worker.up()

    assert len(worker.primary.journal) == 1
    assert set(worker.primary.journal.services()) == {"payments"}


def test_k13_keys_are_read_again_and_stay_where_that_fails(
    keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(settings("--tsig-keys", str(keys)))
    before = worker.primary.signatures.keys

    keys.write_text("[[key]]")
    worker.primary.reload()
    assert worker.primary.signatures.keys == before
    assert "keys not read again" in caplog.text

    keys.write_text(f'[[key]]\nname = "new"\nsecret = "{SECRET}"')
    worker.primary.reload()
    assert set(worker.primary.signatures.keys) == {b"\3new\0"}
    assert SECRET not in caplog.text


def test_without_a_file_of_keys_reading_again_does_nothing() -> None:
    config = settings()
    Worker(config).primary.reload()

    assert keys_of(config) == {}
