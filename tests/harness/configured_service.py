"""A small real HTTP service that answers what its code and its configuration say: each version has both.

python tests/harness/configured_service.py --port 20001 --version v1+c1 --code v1 --configuration /etc/web/c1

GET /healthz    200
GET /anything   {"code": ..., "price": ..., "served_at": ...}; the price is the one of CONFIGURATION/app.json as it
                was when the service started
"""

from __future__ import annotations

import argparse
import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    """Answers from what was read at the start."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    version = code = ""
    price = 0

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by the library
        """Nothing: tests print enough."""

    def do_GET(self) -> None:
        body = json.dumps({"code": self.code, "price": self.price, "served_at": time.time()}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("x-version", self.version)
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--version", "--code", "--configuration"):
        parser.add_argument(name, required=True)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    Handler.version, Handler.code = given.version, given.code
    Handler.price = json.loads(Path(given.configuration, "app.json").read_text())["price"]
    ThreadingHTTPServer(("127.0.0.1", given.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
