"""dnsd beside Knot, NSD and BIND on the same data: rate, and processor time a query."""
