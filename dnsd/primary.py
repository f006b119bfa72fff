"""What makes a worker the primary of secondaries: keys, journal, transfers and NOTIFY together."""

import time
from collections.abc import Callable, Collection

from dnsd.config import Config, keys_of, notify_sources
from dnsd.journal import SERIALS, Journal
from dnsd.metrics import Counts
from dnsd.notifier import SETTLING, Notifier
from dnsd.outgoing import Outgoing
from dnsd.table import AnswerTable
from dnsd.transfer import Transfers
from dnsd.tsig import Signatures
from registry.catalog import Catalog
from registry.runtime import logs
from registry.runtime.config import ConfigError

log = logs.get("dnsd")


class Primary:
    """Transfers of what *catalog* gives, as *table* answers it.

    Without a file of keys nobody may transfer, and a change costs nothing here.  *tells* says
    whether this is the one worker that sends NOTIFY.
    """

    def __init__(
        self,
        config: Config,
        table: AnswerTable,
        catalog: Callable[[], Catalog],
        counts: Counts,
        *,
        problem: Callable[[str, str], None],
        tells: bool,
    ) -> None:
        self._config = config
        self._catalog = catalog
        self._has_keys = bool(config.tsig_keys)
        self.signatures = Signatures(keys_of(config), time.time)
        self.journal = Journal()
        self.transfers = Transfers(
            table,
            next(z.zone for z in table.zones if z.zone.apex == config.zone[0]),
            self.journal,
            settled=lambda: catalog().unconfirmed == 0,
            problem=problem,
        )
        self.outgoing = Outgoing(counts, at_once=config.transfers)
        self.notifier = Notifier(
            table.zones,
            config.notify if tells else (),
            self._serial,
            lambda: self.signatures.keys,
            counts,
            sources=notify_sources(config),
            settling=SETTLING if config.workers > 1 else 0.0,
        )

    def _serial(self) -> int | None:
        revision = self.transfers.revision
        return None if revision is None else revision % SERIALS

    def changed(self, services: Collection[str]) -> None:
        """*services* are not what they were; the table knows it already."""
        if self._has_keys:
            self.journal.note(services, self._catalog(), time.monotonic())
            self.notifier.changed()

    def reset(self) -> None:
        """All may be different; the table knows it already."""
        if self._has_keys:
            self.journal.reset(self._catalog())
            self.notifier.changed()

    def reload(self) -> None:
        """Read the keys again; if they cannot be read those that we have stay."""
        if not self._has_keys:
            return
        try:
            self.signatures.keys = keys_of(self._config)
        except ConfigError as error:
            log.error("keys not read again", error="; ".join(error.problems))
            return
        log.info("keys read again", keys=len(self.signatures.keys))
