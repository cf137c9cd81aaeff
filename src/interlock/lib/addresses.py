"""Says which network addresses may be called: the public ones, and others only where somebody declared so."""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in ("169.254.169.254", "169.254.170.2", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
)
"""Where clouds hand out credentials: AWS and most others, ECS, AWS by version 6, Alibaba, Azure, Oracle."""

_CARRIER = ipaddress.ip_network("100.64.0.0/10")  # RFC 6598
_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")  # RFC 1122, 3.2.1.3
_SITE_LOCAL = ipaddress.ip_network("fec0::/10")  # RFC 3879
_NAT64 = tuple(ipaddress.ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48"))  # RFC 6052, RFC 8215
_COMPATIBLE = ipaddress.ip_network("::/96")  # RFC 4291, 2.5.5.1: given up, but some kernels still route it


def why_refused(text: str, *, private: bool = False, named: bool = False) -> str | None:
    """Why this address is not called; None when it may be.

    Args:
        text: As a resolver gives it.
        private: Somebody declared that this destination lies in a private network.
        named: The declaration names this very address. Only so are link-local ones and those of metadata reached.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return "it is no address"
    inner = _inner(address)
    if inner is not None:
        return f"it is {inner} in disguise"
    kind = _kind(address)
    if kind is None:
        return None
    reachable = private and (kind in {"private", "loop-back"} or (named and kind in {"link-local", "metadata"}))
    return None if reachable else f"it is {_ARTICLES.get(kind, 'a')} {kind} address"


_ARTICLES = {"unspecified": "an"}


def _kind(address: Address) -> str | None:
    """None is a public one."""
    named = (
        ("metadata", address in METADATA),
        ("unspecified", address.is_unspecified or address in _THIS_NETWORK),
        ("multicast", address.is_multicast),
        ("loop-back", address.is_loopback),
        ("link-local", address.is_link_local or address in _SITE_LOCAL),
        ("private", address in _CARRIER),
        ("broadcast or reserved", address.is_reserved),
        ("private", address.is_private),
        ("special", not address.is_global),
    )
    return next((kind for kind, hit in named if hit), None)


def _inner(address: Address) -> ipaddress.IPv4Address | None:
    """The address of version 4 that a transition mechanism would really call."""
    if not isinstance(address, ipaddress.IPv6Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if any(address in network for network in _NAT64) or (address in _COMPATIBLE and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None
