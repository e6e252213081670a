"""The form of a blob's key; because nothing else passes, no key can leave its store."""

from __future__ import annotations

import re

KEY = re.compile(r"[a-z]+/[0-9a-f]{64}")
NAMESPACE = re.compile(r"[a-z]+")


def check_key(key: str) -> str:
    """The key itself; ValueError unless it is `namespace/sha256`."""
    if not KEY.fullmatch(key):
        raise ValueError(f"a blob key is namespace/sha256, found {key!r}")
    return key


def check_namespace(namespace: str) -> str:
    """The namespace itself; ValueError unless it is lower-case letters."""
    if not NAMESPACE.fullmatch(namespace):
        raise ValueError(f"a blob namespace is lower-case letters, found {namespace!r}")
    return namespace
