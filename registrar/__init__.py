"""The HTTP API of Callboard: services register, renew their leases, and are listed."""
