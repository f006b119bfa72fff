"""The gateway beside nginx, HAProxy, Envoy and Traefik: rates, waits, processor time, memory."""
