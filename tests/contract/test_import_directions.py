"""Who may import whom, who reads the environment, commits, starts processes, knows statuses."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOPS = ("api", "core", "worker", "migrations")
FACTS = {"core.config", "core.errors"}
DATA = FACTS | {"core.telemetry", "core.storage", "core.db"}
EVERYTHING = {"core"}
ENTRY_POINTS = {
    "core.cli",
    "core.entry",
    "core.client",
    "core.demo",
    "core.doctor",
    "core.embedded",
    "core.monitor",
    "core.samples",
    "core.upload",
}

# Parts of the settings.
SETTINGS = {
    "core.access",
    "core.indexes",
    "core.objects",
    "core.outbound",
    "core.scheduling",
    "core.serving",
    "core.watching",
}
# What a package may import of this project besides itself: the table of the design.
ALLOWED: dict[str, set[str]] = {
    "core.config": FACTS | SETTINGS | {"core.exposure"},
    **{name: {"core.exposure"} for name in SETTINGS},
    "core.errors": set(),
    "core.exposure": set(),
    "core.loading": set(),
    "core.learning": set(),
    "core.telemetry": FACTS,
    "core.gathered_log": set(),
    "core.tracing": FACTS,
    "core.exposition": FACTS | {"core.telemetry"},
    "core.storage": FACTS,
    "core.db": FACTS,
    "core.auth": DATA,
    "core.blobs": DATA,
    "core.restored": DATA | {"core.blobs"},
    "core.idempotency": DATA | {"core.auth"},
    "core.quota": DATA | {"core.auth"},
    "core.images": DATA | {"core.blobs", "core.quota"},
    "core.datasets": DATA | {"core.blobs", "core.images", "core.auth"},
    "core.jobs": DATA - {"core.storage"}
    | {
        "core.blobs",
        "core.datasets",
        "core.auth",
        "core.quota",
        "core.storage.store",
        "core.tracing",
    },  # submission hands the store on
    "core.direct": DATA
    | {"core.auth", "core.datasets", "core.images", "core.jobs.outages", "core.jobs.outbox"}
    | {"core.quota"},
    "core.registry": DATA | {"core.auth"},
    "core.search": DATA | {"core.auth"},
    "core.webhooks": DATA | {"core.auth"},
    "core.inference": FACTS | {"core.learning", "core.registry.artifact", "core.telemetry"},
    "core.stages": EVERYTHING - {"core.inference"},
    **dict.fromkeys(ENTRY_POINTS, EVERYTHING),
    "api": EVERYTHING,
    "worker": EVERYTHING,
    "migrations": {"core.db"},
}
FORBIDDEN: dict[str, set[str]] = {
    "core.stages": {"core.inference", *ENTRY_POINTS},
    "api": {"core.stages", "core.learning", *ENTRY_POINTS},
    "worker": {"core.inference", *ENTRY_POINTS},
}
# Only there may these libraries be imported.
LIBRARIES: dict[str, set[str]] = {
    "celery": {"core.jobs.queue", "worker"},
    "kombu": {"core.jobs.queue", "worker"},
    "torch": {"core.learning", "core.inference", "core.stages", "worker.attempt"},
    "torchvision": {"core.learning"},
    "timm": {"core.learning"},
    "fastapi": {"api"},
    "starlette": {"api"},
    "minio": {"core.storage.s3"},
    "opentelemetry": {"core.tracing.otlp"},
    "multiprocessing": set(),
    "pickle": set(),
}


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the product by its dotted name."""
    found = {}
    for top in TOPS:
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text(), str(path))
    return found


def imports(name: str) -> Iterator[str]:
    """Dotted names that a module imports, a name from a module as module.name."""
    for node in ast.walk(modules()[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inside(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def package_of(name: str) -> str:
    return ".".join(name.split(".")[:2]) if name.startswith("core.") else name.split(".")[0]


def test_there_is_something_to_look_at() -> None:
    assert len(modules()) > 60
    assert {"api.main", "core.learning.simclr", "worker.child"} <= modules().keys()
    packages = {package_of(name) for name in modules()} - {"core"}
    assert packages <= ALLOWED.keys(), "a new package needs a line in this table"


@pytest.mark.parametrize("name", modules())
def test_imports_go_down_only(name: str) -> None:
    own = package_of(name)
    if name == "core":
        return
    ours = {imported for imported in imports(name) if inside(imported, set(TOPS))}
    wrong = {
        imported
        for imported in ours
        if not inside(imported, ALLOWED[own] | {own})
        or inside(imported, FORBIDDEN.get(own, set()) - {own})
    }
    assert not wrong, f"{name} may not import {sorted(wrong)}"


@pytest.mark.parametrize("library", LIBRARIES)
def test_libraries_stay_in_their_place(library: str) -> None:
    places = LIBRARIES[library] | ({"core.demo"} if library in {"torch", "torchvision"} else set())
    users = {name for name in modules() if any(inside(i, {library}) for i in imports(name))}
    assert {name for name in users if not inside(name, places)} == set()


TORCH = ("torch", "torchvision")
# What takes long to load and is not always needed: by the process that would pay for it.
NOT_LOADED = {
    **dict.fromkeys(
        ("api.main", "worker.celery_app", "worker.child", "core.cli", "core.images.inspector"),
        TORCH,
    ),
    "worker.attempt": ("timm", "minio", "alembic"),
}


@pytest.mark.parametrize("module", NOT_LOADED)
def test_what_is_not_needed_is_not_loaded_at_import(module: str) -> None:
    found = f"', '.join(sys.modules.keys() & {NOT_LOADED[module]!r})"
    code = f"import sys, {module}; sys.exit({found} or 0)"
    settings = {
        "FEWLABELS_BROKER_URL": "redis://127.0.0.1:1/0",
        "FEWLABELS_DATABASE_URL": "postgresql://127.0.0.1:1/none",
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=settings, capture_output=True, check=False
    )
    assert done.returncode == 0, f"{module} loads {done.stderr.decode()}"


def dotted(node: ast.AST) -> str:
    return ast.unparse(node) if isinstance(node, ast.Attribute | ast.Name) else ""


def users_of(*names: str) -> set[str]:
    """Modules with an attribute or an imported name that is one of these."""
    found = set()
    for name, tree in modules().items():
        used = {dotted(node) for node in ast.walk(tree)} | set(imports(name))
        if used & set(names):
            found.add(name)
    return found


def test_only_config_reads_the_environment() -> None:
    readers = users_of("os.environ", "os.getenv", "os.environb", "os.putenv", "os.unsetenv")
    assert readers == {"core.config"}


def test_only_these_start_processes() -> None:
    names = [
        f"subprocess.{name}" for name in ("Popen", "run", "call", "check_call", "check_output")
    ]
    forks = ["os.fork", "os.forkpty", "os.system", "os.popen", "os.posix_spawn", "os.execv"]
    starters = users_of(*names, *forks)
    assert "worker.child" in starters
    assert {name for name in starters if not inside(name, {"worker.child", "core.embedded"})} <= {
        "core.images.pool",  # decoders of uploads, apart from the API's memory and secrets
        "core.demo.service",  # the demonstration starts `fewlabels up` as a user would
        "core.learning.launch",  # torchrun, where a job trains in several processes
        "worker.ready",  # the process of the next job, which the worker hands to worker.child
    }


def test_nobody_commits_but_the_session_scope() -> None:
    found = [
        f"{name}:{node.lineno}"
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"commit", "begin_nested"}
    ]
    assert found == []


def test_only_the_error_table_knows_statuses() -> None:
    """Routes may name the status of a success; of refusals only /readyz names its 503."""
    found = set()
    for name, tree in modules().items():
        if not inside(name, {"api", "core"}) or inside(
            name, {"api.errors", "core.storage", "core.client", "core.demo", "core.webhooks"}
        ):
            continue  # statuses of S3, of our own API to its client, of receivers of webhooks
        for node in ast.walk(tree):
            number = isinstance(node, ast.Constant) and type(node.value) is int
            if number and 400 <= node.value < 600 and is_status(tree, node):  # type: ignore[attr-defined]
                found.add(f"{name}: {node.value}")  # type: ignore[attr-defined]
            if inside(name, {"api"}) and dotted(node).split(".")[-1] == "HTTPException":
                found.add(f"{name}: HTTPException")
    assert found - {"api.routes.health: 503", "api.middleware: 500"} == set()


def is_status(tree: ast.Module, number: ast.AST) -> bool:
    """Whether a number stands where statuses do: in a statement that speaks of them."""
    places = ast.Assign | ast.keyword | ast.Compare | ast.Call | ast.Dict
    return any(
        word in ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, places) and any(child is number for child in ast.walk(node))
        for word in ("status", "responses", "Response")
    )
