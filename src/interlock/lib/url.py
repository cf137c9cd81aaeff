"""Reads a URL in the one strict form that every reader understands alike, and says where it goes wrong otherwise.

RFC 3986 allows more, and programs disagree about the rest: a user before the host, a backslash, a host in decimal, a
dot that is written as %2e. Each of these lets an allowlist see another address than the one that is called.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace

URL_CHARACTERS_MAX = 4096
PORTS = {"http": 80, "https": 443}

_SCHEME = re.compile(r"(https?)://")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_PATH = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/%-]")  # RFC 3986, 3.3: pchar and /
_QUERY = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/%?-]")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_ESCAPES_REFUSED = frozenset({0x2E, 0x2F, 0x5C, 0x25, 0x7F, *range(0x20)})
"""Dot, slash, backslash, percent sign and control characters: what servers decode at different moments."""
_HOST_CHARACTERS_MAX = 253  # RFC 1035, 2.3.4, without the dot at the end
_PORT_MAX = 65535


class UrlFault(ValueError):
    """What is wrong, and at which character (from 1)."""

    def __init__(self, character: int, why: str) -> None:
        super().__init__(f"character {character}: {why}")
        self.character = character
        self.why = why


@dataclass(frozen=True)
class Url:
    """`host` is in lower case, an address of version 6 without brackets; `query` is without its question mark."""

    scheme: str
    host: str
    port: int
    path: str
    query: str = ""

    @property
    def origin(self) -> tuple[str, str, int]:
        """What TLS and credentials are bound to (RFC 6454)."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """The Host header: without a port where it is the scheme's own (RFC 9110, 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def target(self) -> str:
        """What stands in the request line."""
        return f"{self.path}?{self.query}" if self.query else self.path

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def parse_url(text: str) -> Url:
    """An absolute address. Raises UrlFault."""
    if len(text) > URL_CHARACTERS_MAX:
        raise UrlFault(URL_CHARACTERS_MAX, f"a URL has at most {URL_CHARACTERS_MAX} characters")
    _require_visible(text)
    found = _SCHEME.match(text)
    if found is None:
        raise UrlFault(1, "it does not begin with https:// or http://")
    begin = found.end()
    end = next((at for at, letter in enumerate(text[begin:], begin) if letter in "/?"), len(text))
    host, port = _authority(text[begin:end], begin, PORTS[found[1]])
    path, query = _path_and_query(text[end:], end)
    return Url(found[1], host, port, path, query)


def follow(base: Url, location: str) -> Url:
    """Where a Location header leads: a whole URL, or one that begins with a slash or a question mark.

    Raises: UrlFault, for relative paths as well: nobody needs them who writes honest redirects.
    """
    if location.startswith("//"):
        raise UrlFault(1, "it names a host without a scheme")
    if location.startswith(("/", "?")):
        _require_visible(location)
        path, query = _path_and_query(location if location.startswith("/") else base.path + location, 0)
        return replace(base, path=path, query=query)
    return parse_url(location)


def _require_visible(text: str) -> None:
    for at, letter in enumerate(text, 1):
        if not "!" <= letter <= "~":
            shown = "a blank or control character" if letter.isascii() else f"{letter!a}, which is not ASCII"
            raise UrlFault(at, f"{shown}; names of other scripts are written as xn--")
        if letter == "\\":
            raise UrlFault(at, "a backslash, which some programs take for a slash")
        if letter == "#":
            raise UrlFault(at, "a fragment is never sent")


def _authority(text: str, begin: int, port: int) -> tuple[str, int]:
    if "@" in text:
        raise UrlFault(begin + text.index("@") + 1, "a user before the host; a credential is declared, not asked with")
    host, colon, digits = text.rpartition(":") if re.search(r":[^\]]*$", text) else (text, "", "")
    if colon:
        if _PORT.fullmatch(digits) is None or int(digits) > _PORT_MAX:
            raise UrlFault(begin + len(host) + 2, "a port is a number from 1 to 65535, without zeros before it")
        port = int(digits)
    return _host(host, begin + 1), port


def _host(text: str, place: int) -> str:
    if text.startswith("[") and text.endswith("]"):
        try:
            address = ipaddress.IPv6Address(text[1:-1])
        except ValueError:
            raise UrlFault(place, "this is no address of version 6") from None
        if address.scope_id is not None or str(address) != text[1:-1].lower():
            raise UrlFault(place, f"write the address as [{ipaddress.IPv6Address(int(address))}]")
        return str(address)
    name = text.lower()
    labels = name.split(".")
    if not name or len(name) > _HOST_CHARACTERS_MAX or not all(_LABEL.fullmatch(label) for label in labels):
        raise UrlFault(place, "this is no host name")
    if labels[-1].isdigit() or re.fullmatch(r"0x[0-9a-f]*", labels[-1]):
        # Whatever ends in a number is read as an address of version 4 by some programs, octal and hexadecimal ones too.
        try:
            return str(ipaddress.IPv4Address(name))
        except ValueError:
            raise UrlFault(place, "an address is written as four decimal numbers") from None
    return name


def _path_and_query(text: str, begin: int) -> tuple[str, str]:
    path, _, query = text.partition("?")
    path = path or "/"
    _require_letters(path, begin, _PATH)
    _require_letters(query, begin + len(path) + 1, _QUERY)
    for found in re.finditer("%", path):
        escape = _ESCAPE.match(path, found.start())
        if escape is not None and int(escape[0][1:], 16) in _ESCAPES_REFUSED:
            raise UrlFault(begin + found.start() + 1, f"{escape[0]} in a path is read in more than one way")
    at = begin + 2
    for segment in path.split("/")[1:]:
        # `..;x` is `..` to servers that cut parameters off.
        if segment.partition(";")[0] in {".", ".."}:
            raise UrlFault(at, "a path is written without . and ..")
        at += len(segment) + 1
    if "//" in path:
        raise UrlFault(begin + path.index("//") + 2, "two slashes follow each other")
    return path, query


def _require_letters(text: str, begin: int, letters: re.Pattern[str]) -> None:
    for at, letter in enumerate(text):
        if letters.match(letter) is None:
            raise UrlFault(begin + at + 1, f"{letter!a} does not belong here; write it as %{ord(letter):02X}")
        if letter == "%" and _ESCAPE.match(text, at) is None:
            raise UrlFault(begin + at + 1, "% is followed by two hexadecimal digits")
