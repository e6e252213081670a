"""The container files name only what the code has: commands, settings, ports, paths, files."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import TypeAdapter
from typer.main import get_command

from api.main import create_app
from core.cli import app as command_line
from core.config import Settings
from core.storage.s3 import S3Address
from tests.container_files import (
    COMPOSE,
    OURS,
    ROOT,
    SECRETS,
    SERVERS,
    SERVICES,
    STAY,
    VARIABLE,
    environment_of,
    filled_in,
    image_environment,
    instructions,
    settings_of,
    stage_instructions,
)
from worker import alive


def test_every_command_exists() -> None:
    group: Any = get_command(command_line)
    entry = [rest for name, rest in stage_instructions() if name == "ENTRYPOINT"]
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert TypeAdapter(list[str]).validate_json(entry[0]) == list(scripts)
    (default,) = [rest for name, rest in stage_instructions() if name == "CMD"]
    used = {*TypeAdapter(list[str]).validate_json(default)}
    for service in OURS:
        [command] = SERVICES[service]["command"]
        assert command == service.removesuffix("-gpu")
        used |= {command}
    assert used <= set(group.commands)


def test_every_setting_exists() -> None:
    known = {f"FEWLABELS_{name.upper()}" for name in Settings.model_fields}
    image = {name for name in image_environment() if name.startswith("FEWLABELS_")}
    assert image <= known
    for service in OURS:
        assert set(SERVICES[service]["environment"]) <= known | {
            "OMP_WAIT_POLICY",
            "GOMP_SPINCOUNT",
        }
    mentioned = set(re.findall(r"FEWLABELS_[A-Z_]+", (ROOT / "docker-compose.yml").read_text()))
    assert mentioned - known == {"FEWLABELS_TAG", "FEWLABELS_PUBLISH"}  # compose's own


@pytest.mark.parametrize("service", OURS)
def test_the_settings_are_accepted_and_complete(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(service, monkeypatch)
    database = urlsplit(settings.sqlalchemy_url)
    postgres = environment_of("postgres")
    assert database.hostname == "postgres"
    assert database.port == 5432
    assert database.username == postgres["POSTGRES_USER"]
    assert database.path == f"/{postgres['POSTGRES_DB']}"
    assert settings.broker_url is not None
    broker = urlsplit(settings.broker_url.get_secret_value())
    assert (broker.scheme, broker.hostname, broker.port) == ("redis", "valkey", 6379)
    address = S3Address.from_url(settings.store_url)
    assert (address.endpoint, address.secure) == ("minio:9000", False)
    assert (settings.auth_mode, settings.host) == ("keys", "0.0.0.0")


def test_no_secret_has_a_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    rules: dict[str, set[str]] = {}
    for name, rule in VARIABLE.findall(text):
        rules.setdefault(name, set()).add(rule[:2])
    assert {name for name in rules if rules[name] == {":?"}} == SECRETS
    harmless = {"FEWLABELS_TAG", "FEWLABELS_PUBLISH", "FEWLABELS_DEVICE", "FEWLABELS_LOG_LEVEL"}
    assert set(rules) - SECRETS == harmless
    words = re.compile(r"PASSWORD|SECRET|TOKEN|ROOT_USER|_KEY")
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if words.search(name):
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), name


def test_no_secret_is_in_the_image() -> None:
    text = (ROOT / "Dockerfile.gpu").read_text()
    assert not re.search(r"PASSWORD|SECRET|TOKEN|_URL|API_KEY", text)
    assert not any(name == "ARG" for name, _ in instructions())
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    assert next(line for line in ignored if line and not line.startswith("#")) == "*"
    assert not any(line.startswith("!") and ".env" in line for line in ignored)


def test_the_image_gets_all_packages_and_nothing_that_is_not_there() -> None:
    let_in = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copied = {
        source
        for name, rest in stage_instructions(0)
        if name == "COPY"
        for source in rest.split()[:-1]
    }
    assert copied == set(let_in)
    assert all((ROOT / path).exists() for path in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {package.rstrip("*") for package in packages} <= copied
    assert project["project"]["readme"] in copied


def test_the_program_is_not_root_and_owns_its_data_folder() -> None:
    final = stage_instructions()
    (user,) = [rest for name, rest in final if name == "USER"]
    uid, gid = user.split(":")
    assert int(uid) >= 1000
    (made,) = [rest for name, rest in final if name == "RUN"]
    home = image_environment()["FEWLABELS_DATA_DIR"]
    assert f"--uid {uid} --gid {gid} --home-dir {home} --create-home" in made
    names = [name for name, _ in final]
    assert names.index("RUN") < names.index("USER") < names.index("ENTRYPOINT")
    for service in OURS:
        assert "user" not in SERVICES[service]
        assert environment_of(service)["FEWLABELS_DATA_DIR"] == home
        assert all(v.split(":")[-1] == home for v in SERVICES[service].get("volumes", []))


def test_ports_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    port = settings_of("api", monkeypatch).port
    assert port == Settings.model_fields["port"].default
    assert ("EXPOSE", str(port)) in stage_instructions()
    assert [filled_in(line) for line in SERVICES["api"]["ports"]] == [f"127.0.0.1:8000:{port}"]
    assert [n for n, service in SERVICES.items() if "ports" in service] == ["api", "api-gpu"]


def test_every_service_that_stays_has_a_health_check() -> None:
    for name, service in SERVICES.items():
        stays = service["restart"] != "no"
        assert ("healthcheck" in service) == stays, name
    assert SERVICES["migrate"]["restart"] == "no"
    assert not any(name == "HEALTHCHECK" for name, _ in instructions())  # four commands, one image


def test_the_api_is_asked_on_a_path_it_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    check = " ".join(SERVICES["api"]["healthcheck"]["test"])
    found = re.search(r"http://127\.0\.0\.1:(\d+)(/\w+)'", check)
    assert found
    settings = settings_of("api", monkeypatch).model_copy(
        update={"blob_url": None, "data_dir": tmp_path}
    )
    assert found.group(1) == str(settings.port)
    assert "get" in create_app(settings).openapi()["paths"][found.group(2)]


@pytest.mark.parametrize(("service", "file"), [("worker", "worker.alive"), ("beat", alive.SWEPT)])
def test_the_workers_are_asked_by_the_file_they_touch(
    service: str, file: str, tmp_path: Path
) -> None:
    kind, script = SERVICES[service]["healthcheck"]["test"]
    folder = environment_of(service)["FEWLABELS_DATA_DIR"] + "/run"
    assert kind == "CMD-SHELL"
    assert f"{folder}/{file} " in script
    here = script.replace(folder, str(tmp_path))

    def healthy() -> bool:
        return subprocess.run(["sh", "-c", here], capture_output=True, check=False).returncode == 0

    assert not healthy()
    (tmp_path / file).touch()
    assert healthy()
    subprocess.run(["touch", "-d", "10 minutes ago", tmp_path / file], check=True)
    assert not healthy()


def test_everything_starts_after_what_it_needs() -> None:
    assert set(SERVICES) == {*OURS, *SERVERS}
    healthy, done = (
        {"condition": "service_healthy"},
        {"condition": "service_completed_successfully"},
    )
    assert SERVICES["migrate"]["depends_on"] == {"postgres": healthy}
    wanted = {**dict.fromkeys(SERVERS, healthy), "migrate": done}
    for service in STAY:
        assert SERVICES[service]["depends_on"] == wanted
    assert not any("depends_on" in SERVICES[server] for server in SERVERS)


def test_data_outlives_the_containers() -> None:
    used = {
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
        if ":" in volume
    }
    assert used == set(COMPOSE["volumes"])
    assert {"postgres", "minio"} <= used


def test_images_are_pinned_by_tag() -> None:
    for server in SERVERS:
        _, _, tag = SERVICES[server]["image"].partition(":")
        assert re.search(r"\d", tag), server
    assert SERVICES["postgres"]["image"].startswith("pgvector/pgvector:")
    assert SERVICES["postgres"]["image"].endswith("pg18")


def test_a_running_job_has_time_to_stop() -> None:
    grace = Settings.model_fields["cancel_grace_seconds"].default
    for service in STAY:
        assert int(SERVICES[service]["stop_grace_period"].rstrip("s")) >= grace + 5


def test_python_of_the_image_is_supported() -> None:
    versions = {
        re.sub(r"^python:([\d.]+)-slim.*$", r"\1", r) for n, r in instructions() if n == "FROM"
    }
    assert len(versions) == 1  # the virtual environment moves from one stage to the next
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    minimum = tuple(map(int, wanted.removeprefix(">=").split(".")))
    assert tuple(map(int, versions.pop().split("."))) >= minimum
