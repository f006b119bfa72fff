"""`python -m sidecar`: keeps service instances registered while they are healthy."""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from registry.runtime.config import Common, load
from sidecar.config import Settings, config_file, services_of, tables_of


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sidecar; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    file = config_file(arguments, os.environ)
    tables, text = _read_tables(file)
    if not _mentions_tls([*arguments, *os.environ.values(), text]):
        _import_asyncio_without_tls()
    from registry.runtime import lifecycle
    from sidecar.service import Sidecar

    def problems(settings: Settings) -> Iterable[str]:
        return services_of(settings, tables, file)[1]

    def read_again() -> tuple[Settings, Common]:
        return load(Settings, "sidecar", arguments, os.environ, admin=None, problems=problems)

    def build(settings: Settings, common: Common) -> Sidecar:
        services = services_of(settings, tables, file)[0]
        return Sidecar(settings, common, services, read_again)

    return lifecycle.main(
        "sidecar", Settings, build, admin=None, problems=problems, uvloop=False, argv=arguments
    )


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
