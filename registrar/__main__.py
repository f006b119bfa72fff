"""`python -m registrar`, `callboard registrar`."""

import os
import sys
from collections.abc import Sequence

from registrar.config import PART, Config
from registrar.files import problems
from registrar.service import Service, build
from registry.runtime.config import Common, load
from registry.runtime.lifecycle import main as run


def main(argv: Sequence[str] | None = None) -> int:
    """Run the registrar; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv

    def read() -> tuple[Config, Common]:
        return load(Config, PART, arguments, os.environ, admin=None, problems=problems)

    def built(config: Config, common: Common) -> Service:
        return build(config, common, read)

    return run(PART, Config, built, admin=None, problems=problems, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
