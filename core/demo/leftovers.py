"""What a demo that was killed left behind: servers, and a folder that nobody comes back to."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from core.embedded.folder import claimed_folder
from core.embedded.processes import end_leftovers
from core.errors import EmbeddedServerFailed

PREFIX = "fewlabels-demo-data-"
KEPT_PREFIX = "fewlabels-demo-kept-"


def end_killed_demos() -> list[Path]:
    """End the servers of this user's demos that were killed; the folders that were removed.

    A demo that runs holds its folder's lock and is left alone, and so is a folder to be kept.
    """
    removed = []
    for root in sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*")):
        if not _started_by_this_user(root):
            continue
        with suppress(EmbeddedServerFailed), claimed_folder(root) as folder:
            end_leftovers(folder)
            shutil.rmtree(root, ignore_errors=True)
            removed.append(root)
    return removed


def _started_by_this_user(root: Path) -> bool:
    found = root.lstat()
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    return own and (root / "run" / "lock").exists()
