"""`python -m resolver_gateway`, and `callboard gateway`."""

import sys

from registry.runtime import lifecycle
from resolver_gateway import config
from resolver_gateway.service import Gateway


def main(argv: list[str] | None = None) -> int:
    """Run the gateway; returns the exit status."""
    return lifecycle.main(
        "gateway",
        config.Config,
        lambda settings, common: Gateway(settings, common, argv=argv),
        admin=config.ADMIN,
        problems=config.problems,
        argv=argv,
    )


if __name__ == "__main__":
    sys.exit(main())
