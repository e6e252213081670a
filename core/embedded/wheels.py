"""Where an installed wheel keeps its programs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from core.errors import EmbeddedServerFailed


def program_in_wheel(package: str, pattern: str, *, instead: str) -> Path:
    """The one program of a package that matches a glob; the package itself is not imported.

    Importing would start what the package does for itself (log, warn, register exit hooks).

    Args:
        package: Import name of the wheel's package.
        pattern: Glob relative to the package's folder.
        instead: The setting that makes the program unnecessary, for the message.

    Raises:
        EmbeddedServerFailed: The wheel is not installed or has no program for this platform.
    """
    spec = find_spec(package)
    for location in (spec.submodule_search_locations or []) if spec else []:
        if found := sorted(Path(location).glob(pattern)):
            return found[0]
    raise EmbeddedServerFailed(
        f"{package} has no {Path(pattern).name} for this platform; set {instead}"
    )
