"""Names by which a server may be addressed.

A page of another site can make its own domain name point at this machine ("DNS rebinding") and then
read whatever a server here answers, because to the browser it is the same site. So a server answers
only to names that are known to be its own. Addresses made of numbers cannot be rebound.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def known_hosts(address: str, more: Collection[str]) -> frozenset[str]:
    """Names of a server that listens at `address`, and those configured for it."""
    own = {name.casefold() for name in (*LOOPBACK, address, *more)}
    if address not in LOOPBACK:
        own |= {socket.gethostname().casefold(), socket.getfqdn().casefold()}
    return frozenset(own)


def is_known(host: str | None, known: Collection[str], local: bool) -> bool:
    """Whether a `Host` header names this server.

    Args:
        local: It listens on this machine only, so that the only numbers are the machine's own.
    """
    try:
        found = urlsplit(f"//{host or ''}")
        name, _ = found.hostname, found.port
    except ValueError:
        return False
    if not name or found.username is not None or found.path or found.query or found.fragment:
        return False
    name = name.rstrip(".")
    if name in known or any(one.startswith("*.") and name.endswith(one[1:]) for one in known):
        return True
    try:
        number = ipaddress.ip_address(name)
    except ValueError:
        return False
    return number.is_loopback or not local
