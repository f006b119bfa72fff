"""The gateway: HTTP in, SRV look-up, HTTP out."""
