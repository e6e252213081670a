"""The account that the embedded Postgres runs under."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from core.embedded.account import server_account


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as somebody else")
def test_programs_behind_a_folder_of_root_are_found(tmp_path: Path) -> None:
    """`test -x` asks access(2), as initdb does when it looks for postgres beside itself."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    program = closed / "program"
    shutil.copy("/bin/true", program)
    account = server_account()
    assert account.uid != 0
    for check in (["test", "-x", str(program)], [str(program)]):
        subprocess.run([*account.prefix, *check], check=True)


def test_an_ordinary_user_stays_himself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    account = server_account()
    assert (account.uid, account.prefix) == (1000, [])
