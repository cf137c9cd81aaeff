"""The shop's web service, VERSION: shows items, takes orders, and says at /healthz that it can."""

import argparse
import itertools
import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ORDERS_THAT_FAIL = 0  # of a hundred
SECONDS = 0.020  # an answer takes
ITEM = {"name": "coffee", "price": "3.50", "stock": 12}

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--version", required=True)
options = parser.parse_args()

orders = itertools.count(1)


class Shop(BaseHTTPRequestHandler):
    """Answers one visitor."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """An item, or that all is well."""
        if self.path == "/healthz":
            return self.answer(200, {"ok": True})
        time.sleep(SECONDS)
        return self.answer(200, {"path": self.path, **ITEM})

    def do_POST(self) -> None:
        """An order."""
        self.rfile.read(int(self.headers.get("content-length", 0)))
        time.sleep(SECONDS)
        fails = next(orders) * ORDERS_THAT_FAIL % 100 < ORDERS_THAT_FAIL
        return self.answer(500, {"error": "sold out?"}) if fails else self.answer(201, {"order": "taken"})

    def answer(self, status: int, body: dict[str, object]) -> None:
        """As JSON, with the version that answers."""
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.send_header("x-version", options.version)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """The proxy keeps a log."""


ThreadingHTTPServer(("127.0.0.1", options.port), Shop).serve_forever()
