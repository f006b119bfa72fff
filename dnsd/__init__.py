"""The authoritative DNS server: packets in, packets out."""
