"""`callboard` and `python -m callboard`."""

import sys

from callboard.cli import run


def main() -> int:
    """The command as a program; returns its exit status."""
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
