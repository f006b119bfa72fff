"""`python -m registrar`, `callboard registrar`."""

import sys
from collections.abc import Sequence

from registrar.config import PART, Config, problems
from registrar.service import build
from registry.runtime.lifecycle import main as run


def main(argv: Sequence[str] | None = None) -> int:
    """Run the registrar; returns the exit status."""
    return run(PART, Config, build, admin=None, problems=problems, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
