"""Connects to places and hangs up at once: many side by side, none for longer than it may take."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping

AT_ONCE_MAX = 32
_MARGIN_SECONDS = 0.5

Address = tuple[str, int] | str
"""A host and a port, or the path of a Unix socket."""


def reach(addresses: Mapping[str, Address], timeout_seconds: float) -> dict[str, str | None]:
    """Why each cannot be reached, by name; None where a connection was made.

    Looking up a name cannot be interrupted, so whoever takes too long is left behind in a thread that ends by itself
    and keeps nobody from leaving. Nothing is sent.
    """
    found: dict[str, str | None] = {}
    waiting = list(addresses.items())
    while waiting:
        batch, waiting = waiting[:AT_ONCE_MAX], waiting[AT_ONCE_MAX:]
        told: dict[str, str | None] = {}
        threads = [
            threading.Thread(target=_try, args=(told, name, address, timeout_seconds), name="reach", daemon=True)
            for name, address in batch
        ]
        for thread in threads:
            thread.start()
        end = time.monotonic() + timeout_seconds + _MARGIN_SECONDS
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        late = f"no answer within {timeout_seconds:.0f} s"
        found |= {name: told.get(name, late) for name, _ in batch}
    return found


def _try(told: dict[str, str | None], name: str, address: Address, timeout_seconds: float) -> None:
    try:
        if isinstance(address, str):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(timeout_seconds)
                client.connect(address)
        else:
            socket.create_connection(address, timeout=timeout_seconds).close()
    except TimeoutError:
        told[name] = f"no answer within {timeout_seconds:.0f} s"
    except BlockingIOError:
        told[name] = "so many wait there that its queue is full"
    except (OSError, UnicodeError) as error:
        told[name] = getattr(error, "strerror", None) or str(error)
    else:
        told[name] = None
