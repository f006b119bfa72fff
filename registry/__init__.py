"""The shared language of Callboard: names, leases, changes, and the store that holds them."""
