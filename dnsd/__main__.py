"""`python -m dnsd`: the supervisor, or, where one says so, one of its workers."""

import os
import sys
from collections.abc import Sequence

from dnsd.config import ADMIN, Config, problems
from registry.runtime import lifecycle
from registry.runtime.config import Common, load
from registry.runtime.supervisor import WorkerLink


def main(argv: Sequence[str] | None = None) -> int:
    """Run dnsd; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)

    def reread() -> Config:
        return load(Config, "dnsd", arguments, os.environ, admin=ADMIN, problems=problems)[0]

    def build(config: Config, common: Common) -> lifecycle.Part:
        link = WorkerLink.from_environ(os.environ)
        if link is not None:
            from dnsd.service import Service

            return Service(config, link.sockets, link, reread)
        from dnsd.workers import Workers

        return Workers(config, common, arguments)

    return lifecycle.main("dnsd", Config, build, admin=ADMIN, problems=problems, argv=arguments)


if __name__ == "__main__":
    sys.exit(main())
