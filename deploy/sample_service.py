"""A service as others write them: HTTP, a health page, and no idea of Callboard.

python3 sample_service.py NAME PORT
"""

import json
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Says who it is; the standard library's server wants a class."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Health where it is asked for, elsewhere which container answers, and to what."""
        healthy = {"status": "healthy", "version": "1.0.0"}
        who = {"service": sys.argv[1], "host": socket.gethostname(), "path": self.path}
        body = json.dumps(healthy if self.path == "/health" else who).encode() + b"\n"
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: health checks would fill the log."""


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", int(sys.argv[2])), Handler).serve_forever()
