"""What each profile of the compose file starts, with GPUs or without, once or several times."""

from __future__ import annotations

import pytest

from tests.container_files import (
    OURS,
    SERVERS,
    SERVICES,
    environment_of,
    image_environment,
    settings_of,
)


def started(profile: str) -> set[str]:
    """The services of ours that a profile starts."""
    return {name for name in OURS if profile in SERVICES[name].get("profiles", [profile])}


def test_a_profile_starts_one_api_and_workers_for_its_devices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert started("cpu") == {"migrate", "beat", "api", "worker"}
    assert started("gpu") == {"migrate", "beat", "api-gpu", "worker", "worker-gpu"}
    assert not any("profiles" in SERVICES[server] for server in SERVERS)
    taken = {
        name: settings_of(name, monkeypatch).devices_taken for name in OURS if "worker" in name
    }
    assert taken == {"worker": ("cpu",), "worker-gpu": ("gpu", "cpu")}


def test_the_gpu_is_for_who_plans_serves_and_trains_on_it() -> None:
    for name in OURS:
        assert ("deploy" in SERVICES[name]) == name.endswith("-gpu")
        if name.endswith("-gpu"):
            (device,) = SERVICES[name]["deploy"]["resources"]["reservations"]["devices"]
            assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
            without = SERVICES[name.removesuffix("-gpu")]
            same = set(without) - {"profiles", "environment"}
            assert {key: SERVICES[name][key] for key in same} == {k: without[k] for k in same}
    assert image_environment()["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"


@pytest.mark.parametrize("service", ["worker", "worker-gpu"])
def test_workers_can_be_scaled(service: str) -> None:
    """No name, port or volume that a second container would share."""
    found = SERVICES[service]
    assert found["volumes"] == [environment_of(service)["FEWLABELS_DATA_DIR"]]
    assert not {"container_name", "hostname", "ports", "network_mode"} & set(found)


def test_metrics_of_workers_are_reached_in_the_network_and_not_from_outside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for service in ("worker", "worker-gpu", "beat"):
        settings = settings_of(service, monkeypatch)
        assert (settings.worker_metrics_host, settings.worker_metrics_port) == ("0.0.0.0", 9101)
        assert "ports" not in SERVICES[service]
