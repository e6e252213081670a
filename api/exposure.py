"""Without keys the service answers on loopback addresses only, whoever started it and how."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import refusal
from core.config import Settings
from core.errors import ConfigurationInvalid, Forbidden
from core.exposure import is_loopback

REMEDY = "set FEWLABELS_AUTH_MODE=keys to be called by others"


def refuse_open_address(settings: Settings, arguments: Sequence[str] | None = None) -> None:
    """Where uvicorn was started by hand, its `--host` counts and not our setting.

    Raises:
        ConfigurationInvalid: Others could call, and no key would be asked for.
    """
    given = sys.argv if arguments is None else arguments
    if settings.auth_mode != "off" or "uvicorn" not in Path(given[0]).parts:
        return
    for option, value in zip(given[1:], [*given[2:], ""], strict=True):
        host = value if option == "--host" else option.removeprefix("--host=")
        if option.startswith("--host") and not is_loopback(host):
            raise ConfigurationInvalid(
                f"auth_mode is 'off' and uvicorn listens on {host!r}: without keys the service "
                f"listens on a loopback address only; {REMEDY}"
            )


class LoopbackOnly:
    """Refuse what came in on an address that others reach, or under a name from the internet.

    The second is how a web page makes the browser of somebody here call the service for it: its
    name is made to lead to 127.0.0.1 (DNS rebinding). Such a name has a dot, a local one has none.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        if scope["type"] == "http" and (reason := _reason(scope)):
            await refusal(Request(scope), Forbidden(reason))(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _reason(scope: Scope) -> str | None:
    return _reason_of((scope.get("server") or ("", None))[0], Headers(scope=scope).get("host", ""))


@lru_cache(maxsize=64)
def _reason_of(address: str, host: str) -> str | None:
    if _is_address(address) and not is_loopback(address):
        return (
            f"the service runs without keys and answers on loopback addresses only; this call "
            f"came in on {address}; {REMEDY}"
        )
    name = _name(host)
    if "." in name and not _is_address(name) and not name.endswith(".localhost"):
        return (
            f"host: found {name[:200]!r}; the service runs without keys and is called by a "
            f"loopback address or a local name only; {REMEDY}"
        )
    return None


def _name(host: str) -> str:
    """The host of a Host header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".").lower()


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True
