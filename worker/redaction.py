"""Takes secrets out of what is shown to users."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import SecretStr

from core.config import Settings

HIDDEN = "***"
SHORTEST = 4  # shorter words would be taken out everywhere
_PATTERNS = (
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@]+@", re.IGNORECASE), rf"\1{HIDDEN}@"),
    (re.compile(r"\bfl_[A-Za-z0-9_-]{8,}"), HIDDEN),
    (re.compile(r"(bearer\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), rf"\1{HIDDEN}"),
    (
        re.compile(
            r"((?:password|passwd|secret|token|api_key)['\"]?\s*[=:]\s*['\"]?)[^\s,;&'\"]+", re.I
        ),
        rf"\1{HIDDEN}",
    ),
)


class Redaction:
    """Hides the secrets of the settings, and what looks like one."""

    def __init__(self, settings: Settings) -> None:
        found: set[str] = set()
        for name in type(settings).model_fields:
            value = getattr(settings, name)
            if isinstance(value, SecretStr):
                found |= _secrets_in(value.get_secret_value())
        # The longest first: a part of one must not break the whole.
        words = sorted((word for word in found if len(word) >= SHORTEST), key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, words))) if words else None

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        for pattern, shown in _PATTERNS:
            text = pattern.sub(shown, text)
        return text


def _secrets_in(value: str) -> set[str]:
    """A secret as a whole; of a URL its password, and the access key of an object store."""
    if "://" not in value:
        return {value}
    parts = urlsplit(value)
    inner = {parts.password or ""}
    if parts.scheme.startswith("s3"):
        inner.add(parts.username or "")
    inner |= {text for name, text in parse_qsl(parts.query) if "password" in name}
    return {*inner, *map(unquote, inner)}
