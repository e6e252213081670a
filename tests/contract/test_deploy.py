"""The manifests of Kubernetes name only what the code has, and are what Kubernetes takes."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.main import get_command

from api.main import create_app
from core.cli import app as command_line
from core.config import Settings
from core.embedded.commands import API_DRAIN_SECONDS
from worker import alive

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
OVERLAYS = ("base", "gpu", "migrate")
VERSIONS = ("1.30", "1.37")  # the oldest that is taken care of, and the newest with a schema
SECRETS = {"FEWLABELS_DATABASE_URL", "FEWLABELS_BROKER_URL", "FEWLABELS_BLOB_URL"}
USER = 10001


def kustomization(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / folder / "kustomization.yaml").read_text())
    return found


def resources() -> Iterator[dict[str, Any]]:
    for folder in OVERLAYS:
        for name in kustomization(folder)["resources"]:
            if name.endswith(".yaml"):
                yield from yaml.safe_load_all((DEPLOY / folder / name).read_text())


RESOURCES = {(one["kind"], one["metadata"]["name"]): one for one in resources()}
PODS = {
    name: one["spec"]["template"]
    for (kind, name), one in RESOURCES.items()
    if kind in {"Deployment", "Job"}
}
every_pod = pytest.mark.parametrize("name", PODS)


def container(name: str) -> dict[str, Any]:
    (found,) = PODS[name]["spec"]["containers"]
    return dict(found)


def literals(folder: str) -> dict[str, str]:
    (generated,) = kustomization(folder)["configMapGenerator"]
    assert generated["name"] == "settings"
    return dict(line.split("=", 1) for line in generated["literals"])


def environment(name: str) -> dict[str, str]:
    """What is set in a pod, with made-up secrets."""
    taken = container(name)
    found = dict(literals("base")) if "envFrom" in taken else {}
    for item in taken["env"]:
        found[item["name"]] = item.get("value", "")
    urls = {
        "FEWLABELS_DATABASE_URL": "postgresql://f:x27@db/f",
        "FEWLABELS_BROKER_URL": "redis://:x27@broker:6379/0",
        "FEWLABELS_BLOB_URL": "s3://k:x27@store/bucket",
    }
    return {**found, **{key: url for key, url in urls.items() if key in found}}


def settings_of(name: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for key, value in environment(name).items():
        if key.startswith("FEWLABELS_"):
            monkeypatch.setenv(key, value)
    return Settings(_env_file=None)


def test_there_are_four_programs_and_a_second_kind_of_worker() -> None:
    assert set(PODS) == {"api", "worker", "worker-gpu", "beat", "migrate"}
    assert kustomization("gpu")["resources"][0] == "../base"
    files = {p.name for p in DEPLOY.rglob("*.yaml")} - {"kustomization.yaml"}
    assert files == {"api.yaml", "worker.yaml", "worker-gpu.yaml", "beat.yaml", "migrate.yaml"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("key", RESOURCES, ids="-".join)
def test_kubernetes_takes_it(key: tuple[str, str], version: str) -> None:
    kubernetes_validate.validate(RESOURCES[key], version, strict=True)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("folder", OVERLAYS)
def test_kustomize_builds_it(folder: str) -> None:
    command = ["kubectl", "kustomize", str(DEPLOY / folder)]
    built = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for one in yaml.safe_load_all(built):
        kubernetes_validate.validate(one, VERSIONS[-1], strict=True)
        assert one["metadata"]["namespace"] == "fewlabels"
        if one["kind"] == "ConfigMap" and folder == "gpu":
            assert one["data"] == {**literals("base"), **literals("gpu")}


@every_pod
def test_the_command_and_the_image_exist(name: str) -> None:
    commands: Any = get_command(command_line)
    (command,) = container(name)["args"]
    assert command == name.removesuffix("-gpu")
    assert command in commands.commands
    assert "command" not in container(name), "the image's entry point is fewlabels"
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    image = compose["services"]["api"]["image"].split(":")[0]
    assert container(name)["image"] == image
    for folder in OVERLAYS:
        assert [entry["name"] for entry in kustomization(folder)["images"]] == [image]


@every_pod
def test_every_setting_exists_and_no_secret_is_written_down(name: str) -> None:
    known = {f"FEWLABELS_{field.upper()}" for field in Settings.model_fields}
    assert set(environment(name)) <= known | {
        "OMP_NUM_THREADS",
        "OMP_WAIT_POLICY",
        "GOMP_SPINCOUNT",
    }
    assert set(literals("gpu")) <= known
    secret = {
        item["name"]: item["valueFrom"]["secretKeyRef"]
        for item in container(name)["env"]
        if "secretKeyRef" in item.get("valueFrom", {})
    }
    wanted = {"FEWLABELS_DATABASE_URL"} if name == "migrate" else SECRETS
    assert secret == {key: {"name": "fewlabels", "key": key} for key in wanted}
    assert not SECRETS & (set(literals("base")) | set(literals("gpu")))
    readme = (DEPLOY / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"--from-literal=(\w+)=", readme)) == SECRETS


def test_the_settings_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of("api", monkeypatch)
    assert (settings.auth_mode, settings.host) == ("keys", "0.0.0.0")
    assert settings.planning_device == "cpu"
    assert Settings(device=literals("gpu")["FEWLABELS_DEVICE"]).planning_device == "cuda"
    taken = {}
    for name in ("worker", "worker-gpu"):
        taken[name] = settings_of(name, monkeypatch).devices_taken
    assert taken == {"worker": ("cpu",), "worker-gpu": ("gpu", "cpu")}


def test_ports_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of("api", monkeypatch)
    ports = {
        name: {p["name"]: p["containerPort"] for p in container(name).get("ports", [])}
        for name in PODS
    }
    metrics = settings.worker_metrics_port
    assert ports == {
        "api": {"http": settings.port},
        "worker": {"metrics": metrics},
        "worker-gpu": {"metrics": metrics},
        "beat": {"metrics": metrics + 1},
        "migrate": {},
    }
    service = RESOURCES["Service", "api"]["spec"]
    assert [port["targetPort"] for port in service["ports"]] == ["http"]
    assert service["selector"].items() <= PODS["api"]["metadata"]["labels"].items()


def test_the_api_is_asked_on_paths_it_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = settings_of("api", monkeypatch).model_copy(
        update={"blob_url": None, "data_dir": tmp_path}
    )
    paths = create_app(settings).openapi()["paths"]
    probes = {kind: probe for kind, probe in container("api").items() if kind.endswith("Probe")}
    assert len(probes) == 3
    for probe in probes.values():
        assert "get" in paths[probe["httpGet"]["path"]]
        assert probe["httpGet"]["port"] == "http"
    assert probes["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert probes["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert probes["readinessProbe"]["timeoutSeconds"] > settings.probe_seconds


@pytest.mark.parametrize(
    ("name", "file"),
    [("worker", "worker.alive"), ("worker-gpu", "worker.alive"), ("beat", alive.SWEPT)],
)
def test_workers_are_asked_by_the_file_they_touch_and_not_killed_for_it(
    name: str, file: str, tmp_path: Path
) -> None:
    command = container(name)["readinessProbe"]["exec"]["command"]
    folder = literals("base")["FEWLABELS_DATA_DIR"] + "/run"
    assert f"{folder}/{file} " in command[-1]
    here = [*command[:-1], command[-1].replace(folder, str(tmp_path))]

    def ready() -> bool:
        return subprocess.run(here, capture_output=True, check=False).returncode == 0

    assert not ready()
    (tmp_path / file).touch()
    assert ready()
    subprocess.run(["touch", "-d", "10 minutes ago", tmp_path / file], check=True)
    assert not ready()
    assert "livenessProbe" not in container(name)


@every_pod
def test_nobody_is_root_or_writes_outside_his_volumes(name: str) -> None:
    spec = PODS[name]["spec"]
    pod = spec["securityContext"]
    assert (pod["runAsNonRoot"], pod["runAsUser"], pod["fsGroup"]) == (True, USER, USER)
    assert f"USER {USER}:{USER}" in (ROOT / "Dockerfile.gpu").read_text()
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(name)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    mounts = {m["name"]: m["mountPath"] for m in container(name).get("volumeMounts", [])}
    if name != "migrate":
        assert mounts == {"data": literals("base")["FEWLABELS_DATA_DIR"], "tmp": "/tmp"}
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    assert set(volumes) == set(mounts)
    assert all("sizeLimit" in volume["emptyDir"] for volume in volumes.values())


@every_pod
def test_resources_are_asked_for_and_memory_has_a_limit(name: str) -> None:
    found = container(name)["resources"]
    assert {"cpu", "memory"} <= set(found["requests"])
    assert "memory" in found["limits"]
    gpus = [found[part].get("nvidia.com/gpu") for part in ("requests", "limits")]
    assert gpus == (["1", "1"] if name == "worker-gpu" else [None, None])
    uses_limit = [
        item["valueFrom"]["resourceFieldRef"]["resource"]
        for item in container(name)["env"]
        if "resourceFieldRef" in item.get("valueFrom", {})
    ]
    assert all(used.removeprefix("limits.") in found["limits"] for used in uses_limit)


def test_there_is_time_to_stop() -> None:
    grace = {name: pod["spec"].get("terminationGracePeriodSeconds") for name, pod in PODS.items()}
    wanted = Settings.model_fields["cancel_grace_seconds"].default + 20
    assert min(grace["worker"], grace["worker-gpu"]) >= wanted
    (_, paused) = container("api")["lifecycle"]["preStop"]["exec"]["command"]
    assert grace["api"] >= int(paused) + API_DRAIN_SECONDS + 10


def test_one_beat_and_budgets_that_leave_somebody() -> None:
    beat = RESOURCES["Deployment", "beat"]["spec"]
    assert (beat["replicas"], beat["strategy"]) == (1, {"type": "Recreate"})
    budgets = {name: one["spec"] for (kind, name), one in RESOURCES.items() if "Budget" in kind}
    assert set(budgets) == {"api", "worker", "worker-gpu"}
    for name, budget in budgets.items():
        deployment = RESOURCES["Deployment", name]["spec"]
        labels = PODS[name]["metadata"]["labels"]
        assert budget["selector"]["matchLabels"].items() <= labels.items()
        assert deployment["selector"]["matchLabels"].items() <= labels.items()
        assert budget.get("minAvailable", 0) < deployment["replicas"]
