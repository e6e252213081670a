"""The compose file and the Dockerfile as the tests of the container files read them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from core.config import Settings

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("migrate", "api", "api-gpu", "worker", "worker-gpu", "beat")
STAY = OURS[1:]
SERVERS = ("postgres", "valkey", "minio")
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(:[-?][^}]*)?\}")
SECRETS = {"POSTGRES_PASSWORD", "VALKEY_PASSWORD", "MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"}


def instructions() -> list[tuple[str, str]]:
    """(NAME, rest) of each Dockerfile instruction, continued lines joined."""
    text = (ROOT / "Dockerfile.gpu").read_text()
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [
        (name, rest.strip())
        for name, _, rest in (line.partition(" ") for line in text.splitlines() if line.strip())
    ]


def image_environment() -> dict[str, str]:
    """What ENV of the last stage sets."""
    final = stage_instructions()
    pairs = " ".join(rest for name, rest in final if name == "ENV").split()
    return dict(cast("tuple[str, str]", pair.split("=", 1)) for pair in pairs)


def stage_instructions(stage: int = -1) -> list[tuple[str, str]]:
    """The instructions of one stage."""
    stages: list[list[tuple[str, str]]] = []
    for instruction in instructions():
        if instruction[0] == "FROM":
            stages.append([])
        stages[-1].append(instruction)
    return stages[stage]


def filled_in(text: str) -> str:
    """The text as compose hands it on, with a secret of its own for what must be set."""

    def value(found: re.Match[str]) -> str:
        rule = found.group(2) or ""
        return rule[2:] if rule.startswith(":-") else f"{found.group(1).replace('_', '')}27"

    return VARIABLE.sub(value, text)


def environment_of(service: str) -> dict[str, str]:
    return {name: filled_in(value) for name, value in SERVICES[service]["environment"].items()}


def settings_of(service: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in {**image_environment(), **environment_of(service)}.items():
        if name.startswith("FEWLABELS_"):
            monkeypatch.setenv(name, value)
    return Settings(_env_file=None)
