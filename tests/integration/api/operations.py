"""Every operation of the OpenAPI document as a request on real things of one project."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import uuid4

from api.examples import Own, fill
from tests.contract.test_openapi import OPERATIONS, json_examples
from tests.integration.api.problems import picture

# Operations that need no key, and why everybody may call them.
PUBLIC = {
    "get /healthz": "the process answers",
    "get /readyz": "which servers answer, without names or addresses",
    "get /metrics": "sums over all projects",
}
SCOPES = ("read", "write", "infer")


@dataclass(frozen=True)
class World:
    """What a project has: its things by the name of the parameter that names them."""

    parameters: Mapping[str, str]
    own: Own
    secrets: frozenset[str]
    """Texts that no other project may ever be shown."""

    def is_named_in(self, text: str) -> bool:
        return any(secret in text for secret in self.secrets)


@dataclass(frozen=True)
class Call:
    """A request: method, path with query, and what the client takes for the body."""

    method: str
    path: str
    body: dict[str, Any]

    @property
    def names(self) -> str:
        """Where a resource may be named, but in a filter of a listing."""
        return f"{self.path.partition('?')[0]} {self.body.get('content', b'').decode()}"


def scope_of(name: str) -> str | None:
    """The scope that the document says an operation needs; None where it needs no key."""
    security = OPERATIONS[name].get("security")
    if security is None:
        assert name in PUBLIC, (
            f"{name} needs no key: give its endpoint a caller (ReadCaller, … of api.auth) and its "
            "router the route_class GuardedRoute, or say in PUBLIC of "
            "tests/integration/api/operations.py why everybody may call it"
        )
        return None
    assert len(security) == 1, f"{name}: found {security}; one scheme is needed"
    (scopes,) = security[0].values()
    assert len(scopes) == 1, f"{name}: found the scopes {scopes}; one is needed"
    assert scopes[0] in SCOPES
    return str(scopes[0])


@cache
def guarded() -> tuple[str, ...]:
    """The operations that need a key."""
    return tuple(name for name in OPERATIONS if scope_of(name) is not None)


def cases() -> list[tuple[str, int]]:
    """Each guarded operation with each of the examples of its body."""
    return [(name, number) for name in guarded() for number in range(max(1, count(name)))]


def count(name: str) -> int:
    """How many examples the operation's JSON body has."""
    content = OPERATIONS[name].get("requestBody", {}).get("content", {})
    return len(json_examples(OPERATIONS[name])) if "application/json" in content else 0


def call(name: str, world: World, number: int = 0) -> Call:
    """The operation on what the world has, with an example of its body."""
    method, path = name.split(" ", 1)
    query = []
    for parameter in OPERATIONS[name].get("parameters", []):
        key = parameter["name"]
        value = world.parameters.get(f"{name} {key}", world.parameters.get(key))
        if parameter["in"] == "path":
            assert value is not None, (
                f"{name}: what is {key}? Put one that exists into the world of "
                "tests/integration/api/test_walls.py"
            )
            path = path.replace(f"{{{key}}}", value)
        elif parameter["in"] == "query" and value is not None and key.endswith("_id"):
            query.append(f"{key}={value}")
    return Call(
        method.upper(), "?".join(filter(None, [path, "&".join(query)])), _body(name, world, number)
    )


def _body(name: str, world: World, number: int) -> dict[str, Any]:
    content = OPERATIONS[name].get("requestBody", {}).get("content", {})
    if not content:
        return {}
    if "application/json" not in content:
        assert "multipart/form-data" in content, (
            f"{name} takes {sorted(content)}: teach tests/integration/api/operations.py to send one"
        )
        return {"files": {"files": ("new.png", picture(uuid4().int % 60_000))}}
    assert count(name), f"{name}: its body has no example; give its schema one"
    filled = fill(json_examples(OPERATIONS[name])[number], world.own)
    if isinstance(filled, dict) and set(filled) == {"name"}:
        filled["name"] = f"new-{uuid4()}"
    return {
        "content": json.dumps(filled).encode(),
        "headers": {"content-type": "application/json"},
    }
