"""The sidecar: keeps instances registered for as long as they are healthy."""
