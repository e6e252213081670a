"""Which addresses may be called: public ones, by HTTPS; all others only where a setting says so."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Set as AbstractSet
from urllib.parse import urlsplit

from core.errors import AddressRefused, WebhookUrlInvalid

MOST_CHARACTERS = 2000
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# They carry an IPv4 address inside, which a gateway on the way would call (RFC 6052, 8215).
NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))


def check_url(url: str, trusted: AbstractSet[str]) -> None:
    """Refuse what can never be called; where a name leads is looked at with every call.

    Raises:
        WebhookUrlInvalid: What is wrong with it.
    """
    shown = f"url: found {url[:200]!r}"
    if len(url) > MOST_CHARACTERS or not url.isascii() or not url.isprintable() or " " in url:
        raise WebhookUrlInvalid(
            f"{shown}; allowed are {MOST_CHARACTERS} printable ASCII characters without blanks"
        )
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise WebhookUrlInvalid(f"{shown}; not an address: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise WebhookUrlInvalid(f"{shown}; allowed are addresses such as https://example.com/hook")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise WebhookUrlInvalid(f"{shown}; it may have no user, password or fragment")
    if host in trusted:
        return
    if parts.scheme != "https":
        raise WebhookUrlInvalid(f"{shown}; HTTPS is needed{_remedy(host)}")
    literal = _literal(host)
    if literal is not None and not is_public(literal):
        raise WebhookUrlInvalid(f"{shown}; {literal} is not a public address{_remedy(host)}")


def resolve(host: str, port: int, trusted: AbstractSet[str]) -> list[str]:
    """The addresses to connect to, in order; the very ones that were looked at.

    Raises:
        AddressRefused: One of them is not public; a name that leads to both is refused, too.
        OSError: The name is not known.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if host.lower() not in trusted:
        for address in addresses:
            if not is_public(ipaddress.ip_address(address)):
                raise AddressRefused(f"{host} leads to {address}, which is not a public address")
    return addresses


def is_public(address: Address) -> bool:
    """Whether everybody on the internet means the same machine by it."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        carries = address.sixtofour is not None or address.teredo is not None
        if carries or any(address in network for network in NAT64):
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _remedy(host: str) -> str:
    return f"; whoever runs the service can allow {host} in FEWLABELS_WEBHOOK_HOSTS"
