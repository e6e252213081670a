"""Children get exactly the settings of their parent."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from core.config import Settings, child_environment


def test_settings_survive_the_way_through_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Settings(
        data_dir=tmp_path,
        broker_url=SecretStr("redis://:pass word@host/0"),
        port=8123,
        auth_mode="keys",
        host="0.0.0.0",
        max_archive_ratio=1.5,
        _env_file=None,
    )
    monkeypatch.setenv("FEWLABELS_LEASE_SECONDS", "99")
    monkeypatch.setenv("SOMETHING_ELSE", "kept")
    environment = child_environment(given)
    assert environment["SOMETHING_ELSE"] == "kept"
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Settings(_env_file=None) == given


def test_threads_spin_for_a_moment_unless_something_else_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=tmp_path, _env_file=None)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "77")
    environment = child_environment(settings)
    assert (environment["OMP_WAIT_POLICY"], environment["GOMP_SPINCOUNT"]) == ("passive", "77")
    monkeypatch.delenv("GOMP_SPINCOUNT")
    assert child_environment(settings)["GOMP_SPINCOUNT"] == "1000"


def test_what_is_compiled_goes_to_the_data_folder_where_the_code_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=tmp_path, _env_file=None)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr("os.access", lambda *_: True)
    assert "NUMBA_CACHE_DIR" not in child_environment(settings)
    monkeypatch.setattr("os.access", lambda *_: False)
    assert child_environment(settings)["NUMBA_CACHE_DIR"] == str(tmp_path / "compiled")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "elsewhere")
    assert child_environment(settings)["NUMBA_CACHE_DIR"] == "elsewhere"
