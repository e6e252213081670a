"""What the documents say is so: commands, links, files, dependencies and their licences."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from core.cli import app
from core.config import Settings

ROOT = Path(__file__).parents[2]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
DEPENDENCIES = ROOT / "docs" / "dependencies.md"
SECURITY = ROOT / "docs" / "security.md"
CLIENTS = {
    "FEWLABELS_URL",
    "FEWLABELS_API_KEY",
}  # read by commands that call a service, not by the service
DOCS = (
    "benchmarks",
    "benchmarks-crops",
    "data",
    "images",
    "learning",
    "operations",
    "reliability",
    "search",
    "watching",
    "webhooks",
)
DOCUMENTS = [
    *(ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "CONTRIBUTING", "CHANGELOG")),
    *(ROOT / "docs" / f"{name}.md" for name in DOCS),
    ROOT / "deploy" / "README.md",
    SECURITY,
    DEPENDENCIES,
    *DECISIONS,
]
every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED_FILE = re.compile(
    r"`((?:api|core|deploy|worker|migrations|tests|docs|benchmarks)/[\w./-]*)(?::\w+)?`"
)
NOT_YET = {"tests/browser/", "tests/gpu/"}  # places of the tree that have no files so far
LICENCE_NAMES = {
    "Apache Software License": "Apache-2.0",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "BSD License": "BSD-3-Clause",
    "Python Software Foundation License": "PSF-2.0",
}


@cache
def project() -> dict[str, Any]:
    loaded: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return loaded


def prose(path: Path) -> str:
    """A document without its code blocks."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def shell_lines(path: Path) -> Iterator[str]:
    """Lines of shell in blocks and in `code`."""
    for language, block in FENCE.findall(path.read_text(encoding="utf-8")):
        if language in {"sh", "bash"}:
            yield from block.splitlines()
    yield from re.findall(r"`([^`\n]+)`", prose(path))


@every_document
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", prose(path)):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


@every_document
def test_files_that_are_named_are_there(path: Path) -> None:
    missing = {name for name in NAMED_FILE.findall(prose(path)) if not (ROOT / name).exists()}
    patterns = {name for name in missing if "NNNN" in name or "NOUN" in name}
    assert missing - patterns - NOT_YET == set()


@every_document
def test_commands_that_are_named_exist(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    commands: Any = get_command(app)
    for line in shell_lines(path):
        for target in re.findall(r"^make ([a-z-]+)", line):
            assert target in targets, line
        for name in re.findall(r"(?:^|bin/|exec api )fewlabels ([a-z][a-z-]*)", line):
            assert name in commands.commands, line


@every_document
def test_settings_that_are_named_exist(path: Path) -> None:
    known = {f"FEWLABELS_{name.upper()}" for name in Settings.model_fields} | CLIENTS
    assert (
        set(re.findall(r"FEWLABELS_[A-Z0-9_]*[A-Z0-9]", path.read_text(encoding="utf-8"))) <= known
    )


def test_the_readme_has_the_commands_and_the_picture() -> None:
    readme = ROOT / "README.md"
    first_words = {re.split(r"\s{2,}|#", line)[0].strip() for line in shell_lines(readme)}
    assert {"make demo", "make test", "make up"} <= first_words
    assert "```mermaid\nflowchart" in readme.read_text(encoding="utf-8")


def test_figures_in_the_readme_are_measured_ones() -> None:
    """A percentage or a time in the README stands in docs/benchmarks.md as well."""
    measured = ROOT / "docs" / "benchmarks.md"
    known = measured.read_text(encoding="utf-8") if measured.exists() else ""
    figures = re.findall(r"\d+(?:\.\d+)? ?(?:%|seconds|s\b|ms\b)", prose(ROOT / "README.md"))
    assert [figure for figure in figures if figure not in known] == []


def test_decisions_are_numbered_in_order_and_complete() -> None:
    assert len(DECISIONS) >= 7
    numbers = [int(path.name[:4]) for path in DECISIONS]
    assert numbers == sorted(set(numbers))  # numbers go up; branches leave gaps
    for number, path in zip(numbers, DECISIONS, strict=True):
        text = path.read_text(encoding="utf-8")
        assert path.name.startswith(f"{number:04d}-")
        assert text.startswith(f"# {number}. ")
        parts = re.findall(r"^(?:## \w+|Status:)", text, re.MULTILINE)
        assert parts == ["Status:", "## Context", "## Decision", "## Consequences"]
        assert len(text.splitlines()) <= 60


def test_the_tests_that_hold_a_promise_of_security_exist() -> None:
    named = re.findall(r"`([\w/]*)((?:test_\w+\.py)?)((?:::test_\w+)?)`", SECURITY.read_text())
    file = ""
    checked = 0
    for folder, name, function in named:
        if not name and not function:
            continue
        file = name or file
        (path,) = (ROOT / "tests").rglob(file)
        assert folder == "" or path.parent == ROOT / folder
        assert not function or f"def {function.strip(':')}(" in path.read_text(), function
        checked += 1
    assert checked > 25


def test_the_changelog_has_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)[0] == "Unreleased"
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= kinds


def requirements() -> dict[str, list[str]]:
    """Names in pyproject.toml by the heading of docs/dependencies.md they belong under."""
    extras = project()["optional-dependencies"]
    lists = {
        "What runs": project()["dependencies"],
        "Development": extras["dev"],
        "Benchmarks": extras["bench"],
        "Optional": [*extras["otel"], *extras["openvino"]],
    }
    names = {
        heading: [re.split(r"[\[<>=!~; ]", requirement)[0] for requirement in listed]
        for heading, listed in lists.items()
    }
    # An extra may name another one of this project.
    own = project()["name"]
    return {heading: [name for name in found if name != own] for heading, found in names.items()}


def tables() -> dict[str, list[list[str]]]:
    """Cells of the tables of docs/dependencies.md by heading."""
    found: dict[str, list[list[str]]] = {}
    for part in re.split(r"^## ", prose(DEPENDENCIES), flags=re.MULTILINE)[1:]:
        heading = part.splitlines()[0].split(" (")[0]
        lines = [line for line in part.splitlines() if line.startswith("| ")][1:]
        cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
        found[heading] = cells
    return found


def test_every_extra_is_documented() -> None:
    assert set(project()["optional-dependencies"]) == {"dev", "bench", "otel", "openvino"}


@pytest.mark.parametrize("heading", requirements())
def test_every_dependency_has_its_line_in_order(heading: str) -> None:
    assert [cells[0] for cells in tables()[heading]] == requirements()[heading]
    assert all(len(cells) == 4 and all(cells) for cells in tables()[heading])


def stated_licence(name: str) -> str | None:
    """The licence in a package's own metadata; None when the package is not installed."""
    try:
        facts = metadata(name)
    except PackageNotFoundError:
        return None
    classified = {
        LICENCE_NAMES[line.split(" :: ")[-1]]
        for line in facts.get_all("Classifier") or []
        if line.startswith("License :: OSI Approved :: ")
    }
    # Two classifiers are a choice.
    named = [" OR ".join(sorted(classified, reverse=True))] if classified else []
    stated = facts.get_all("License-Expression") or named or facts.get_all("License") or []
    return str(stated[0])


@pytest.mark.parametrize("name", [name for names in requirements().values() for name in names])
def test_licences_are_those_of_the_packages(name: str) -> None:
    (documented,) = [cells[3] for table in tables().values() for cells in table if cells[0] == name]
    assert not re.search(r"AGPL|\bGPL", documented)
    stated = stated_licence(name)
    if stated is None:
        pytest.skip("not installed here: an extra, or for another platform")
    # Releases differ in what they bundle: the page names all that any of them has stated.
    assert set(stated.split(" AND ")) <= set(documented.split(" AND "))


def test_the_licence_of_the_project_is_there() -> None:
    assert project()["license"] == "Apache-2.0"
    digest = hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest()
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
