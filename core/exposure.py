"""What a service that others can reach must not have: open doors and secrets that all know."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, unquote, urlsplit

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
# What servers, their documentation and tutorials come with.
KNOWN_SECRETS = frozenset(
    """minioadmin minio minio123 postgres postgresql redis valkey rabbitmq guest admin administrator
    root toor user username password passw0rd pass secret secretkey changeme changeit change-me
    change_me default example test testing tester demo dev fewlabels letmein qwerty 1234 12345
    123456 12345678 123456789 0000 xxx""".split()  # noqa: SIM905 - thirty lines otherwise
)

ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:\d{1,5})?")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host in LOOPBACK
    # Where a socket takes both families, IPv4 comes in as ::ffff:127.0.0.1.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def has_known_secret(url: str) -> bool:
    """Whether the password of a URL is one that everybody tries first, or the user's name."""
    parts = _parts(url)
    password = unquote(parts.password or "").lower()
    return bool(password) and (
        password in KNOWN_SECRETS or password == unquote(parts.username or "").lower()
    )


def is_remote(url: str) -> bool:
    """Whether a URL names a server on another machine; a Unix socket is on this one."""
    host = _parts(url).hostname
    return bool(host) and not is_loopback(str(host))


def _parts(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # whoever connects says what is wrong with it
        return urlsplit("")


def origins_in(text: str) -> list[str]:
    """Origins that are separated by commas."""
    return [origin for part in text.split(",") if (origin := part.strip())]


def is_origin(text: str) -> bool:
    """Whether a text is an origin as browsers send it: scheme, name and port, nothing else."""
    return ORIGIN.fullmatch(text) is not None
