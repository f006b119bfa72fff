"""`python -m sidecar`: keeps service instances registered while they are healthy."""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.runtime.config import Common, load
from sidecar.config import Settings, problems_of
from sidecar.plan import config_file, services_of, tables_of

if TYPE_CHECKING:
    from sidecar.probe import Prober
    from sidecar.service import Sidecar


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sidecar; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    is_wrapping = arguments[:1] == ["run"]
    command: Sequence[str] = ()
    if is_wrapping:
        arguments, command = _split_command(arguments[1:])
    file = config_file(arguments, os.environ)
    tables, text = _read_tables(file)
    if not _mentions_tls([*arguments, *os.environ.values(), text]):
        _import_asyncio_without_tls()
    given = Given(tuple(arguments), file, tuple(tables), is_wrapping)
    if is_wrapping:
        from sidecar.run import main as run

        return run(given, command)
    from registry.runtime import lifecycle

    if {"--help", "-h"} & set(arguments):
        sys.stdout.write("usage: callboard sidecar run [options] -- COMMAND [ARGUMENT …]\n")
    return lifecycle.main(
        "sidecar",
        Settings,
        given.build,
        admin=None,
        problems=given.problems,
        uvloop=False,
        argv=arguments,
    )


@dataclass(frozen=True, slots=True)
class Given:
    """The command line, and the tables of the file that it names."""

    arguments: tuple[str, ...]
    file: str
    tables: tuple[Mapping[str, Any], ...]
    is_wrapping: bool

    def load(self) -> tuple[Settings, Common]:
        """The settings, read again each time; ConfigError or HelpRequested."""
        return load(
            Settings,
            "sidecar",
            self.arguments,
            os.environ,
            admin=None,
            problems=self.problems,
        )

    def problems(self, settings: Settings) -> Iterable[str]:
        """Everything that is wrong across settings, tables and files."""
        yield from problems_of(settings)
        yield from self._services(settings)[1]
        yield from _problems_of_files(settings)

    def build(
        self, settings: Settings, common: Common, prober: "Prober | None" = None
    ) -> "Sidecar":
        """The sidecar of settings that have no problems."""
        from sidecar.service import Sidecar

        return Sidecar(settings, common, self._services(settings)[0], self.load, prober)

    def _services(self, settings: Settings) -> Any:
        return services_of(
            settings, self.tables, self.file, os.environ, is_wrapping=self.is_wrapping
        )


def _split_command(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Options and, after `--`, the command; an empty one where there is none."""
    if "--" not in arguments:
        return list(arguments), []
    at = arguments.index("--")
    return list(arguments[:at]), list(arguments[at + 1 :])


def _problems_of_files(settings: Settings) -> Iterable[str]:
    if settings.registry_ca or settings.registry_cert:
        from sidecar.tls import BadFiles, context_of  # only for whoever has files

        try:
            context_of(settings.registry_ca, settings.registry_cert, settings.registry_key)
        except BadFiles as error:
            yield str(error)


def _read_tables(file: str) -> tuple[list[Mapping[str, Any]], str]:
    """The `[[service]]` tables of *file* and its text; nothing where it cannot be read.

    What is wrong with the file is said by who reads the settings in it.
    """
    if not file:
        return [], ""
    import tomllib

    try:
        with open(file, encoding="utf-8") as stream:
            text = stream.read()
        return list(tables_of(tomllib.loads(text))), text
    except (OSError, ValueError):
        return [], ""


def _mentions_tls(texts: Iterable[str]) -> bool:
    return any("https:" in text for text in texts)


def _import_asyncio_without_tls() -> None:
    """Import asyncio as on a Python that was built without ssl.

    asyncio imports ssl only to offer it; libssl and libcrypto are 4.4 MB, a quarter of what
    this process may have.  `import ssl` works again afterwards, for whoever needs it.
    """
    if "ssl" in sys.modules:
        return
    sys.modules["ssl"] = None  # type: ignore[assignment]
    try:
        import asyncio  # noqa: F401
    finally:
        del sys.modules["ssl"]


if __name__ == "__main__":
    sys.exit(main())
