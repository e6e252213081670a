"""What a key may send in a second, what a project may hold, and what both are told of it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.orm import Session

from api.main import create_app
from api.request_rate import PATIENCE_SECONDS, PAUSE_SECONDS
from core.config import Settings
from core.embedded.servers import start_servers
from tests.integration.api.leaks import LogWatch
from tests.integration.api.problems import assert_problem, picture

RATE = 3
Key = Callable[..., dict[str, str]]


@contextmanager
def serving(settings: Settings, **wishes: Any) -> Iterator[TestClient]:
    """A service with keys and these limits, on the same servers."""
    changed = settings.model_copy(update={"auth_mode": "keys", **wishes})
    with TestClient(create_app(changed), raise_server_exceptions=False) as calling:
        yield calling


@pytest.fixture(scope="module")
def slow(settings: Settings) -> Iterator[TestClient]:
    with serving(settings, requests_per_second=RATE) as calling:
        yield calling


def burst(client: TestClient, headers: dict[str, str], number: int) -> list[int]:
    return [client.get("/aliases", headers=headers).status_code for _ in range(number)]


def refused(*sends: Callable[[], Response]) -> tuple[int, Response]:
    """Send in turn until one is refused; how many were let in before, and the refusal.

    Not just one too many: a slow machine may not send so many within a second.
    """
    for sent, send in enumerate(itertools.islice(itertools.cycle(sends), 30 * RATE)):
        answer = send()
        if answer.status_code == 429:
            return sent, answer
    pytest.fail("no request was refused")


def test_a_key_may_send_so_many_requests_in_a_second(slow: TestClient, key: Key) -> None:
    headers = key("rate", "read", "infer")
    sent, answer = refused(lambda: slow.get("/aliases", headers=headers))
    assert sent >= RATE
    assert_problem(answer, 429, f"more than {RATE} requests.*within a second")
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["ratelimit"] == '"key";r=0;t=1'
    assert answer.headers["ratelimit-policy"] == f'"key";q={RATE};w=1'
    for path in ("/healthz", "/metrics", "/openapi.json", "/docs"):
        assert slow.get(path, headers=headers).status_code == 200
    # The serving path, too, and before a body is read.
    _, answer = refused(lambda: slow.post("/embed", headers=headers, content=b"{"))
    assert burst(slow, key("rate", "read"), 1) == [200]  # another key of the same project
    time.sleep(int(answer.headers["retry-after"]))
    told = slow.get("/aliases", headers=headers)
    assert (told.status_code, told.headers["ratelimit-policy"]) == (200, f'"key";q={RATE};w=1')


def test_all_api_processes_count_together(slow: TestClient, settings: Settings, key: Key) -> None:
    """Did each count for itself, none would refuse before both have let in all they may."""
    with serving(settings, requests_per_second=RATE) as other:

        def both() -> int:
            headers = key("rate", "read")
            first, second = (partial(c.get, "/aliases", headers=headers) for c in (slow, other))
            return refused(first, second)[0]

        assert min(both() for _ in range(4)) < 2 * RATE


@pytest.mark.parametrize("wishes", [{"requests_per_second": 0}, {"auth_mode": "off"}])
def test_no_limit_is_no_limit(settings: Settings, key: Key, wishes: dict[str, Any]) -> None:
    with serving(settings, **{"requests_per_second": RATE, **wishes}) as calling:
        headers = key("rate", "read")
        assert burst(calling, headers, 3 * RATE) == [200] * 3 * RATE
        answer = calling.get("/usage", headers=headers)
        assert "ratelimit-policy" not in answer.headers
        assert answer.json()["requests_left"] is None
        assert answer.json()["limits"]["requests_per_second"] is None


def test_requests_are_let_in_when_the_broker_is_away(
    settings: Settings, key: Key, log_watch: LogWatch
) -> None:
    nowhere = SecretStr("redis://:4d81f0c2e97a@127.0.0.1:1/0")
    said = "requests are not counted: the broker does not answer"
    before = log_watch.text.count(said)
    with serving(settings, requests_per_second=RATE, broker_url=nowhere) as calling:
        headers = key("rate", "read")
        assert burst(calling, headers, 4 * RATE) == [200] * 4 * RATE
        assert calling.get("/usage", headers=headers).json()["requests_left"] is None
    assert log_watch.text.count(said) - before == 1


@pytest.fixture
def own_broker(settings: Settings, tmp_path: Path) -> Iterator[tuple[SecretStr, psutil.Process]]:
    """A broker of our own, and its process."""
    wishes = {"data_dir": tmp_path / "broker", "broker_url": None}
    with start_servers(settings.model_copy(update=wishes)) as started:
        assert started.broker_url is not None
        address = started.broker_url.get_secret_value().rpartition("@")[2].removesuffix("/0")
        children = psutil.Process().children(recursive=True)
        (process,) = [child for child in children if address in " ".join(child.cmdline())]
        yield started.broker_url, process


def test_a_broker_that_hangs_holds_up_one_request(
    settings: Settings, key: Key, own_broker: tuple[SecretStr, psutil.Process]
) -> None:
    url, process = own_broker
    with serving(settings, requests_per_second=RATE, broker_url=url) as calling:
        headers = key("rate", "read")
        refused(lambda: calling.get("/aliases", headers=headers))
        process.suspend()
        started = time.monotonic()
        assert burst(calling, headers, 1) == [200]
        assert time.monotonic() - started < 2 * PATIENCE_SECONDS + 3
        started = time.monotonic()
        assert burst(calling, headers, 2 * RATE) == [200] * 2 * RATE
        assert time.monotonic() - started < PAUSE_SECONDS
        process.resume()
        deadline = time.monotonic() + 2 * PAUSE_SECONDS
        while 429 not in burst(calling, headers, 2 * RATE):  # it counts again
            assert time.monotonic() < deadline


@pytest.fixture
def owner(key: Key) -> dict[str, str]:
    """The key of a new project."""
    return key(f"project-{uuid4()}", "admin")


def new_dataset(client: TestClient, headers: dict[str, str]) -> str:
    answer = client.post("/datasets", headers=headers, json={"name": f"d-{uuid4()}"})
    return str(answer.json()["id"])


def upload(client: TestClient, headers: dict[str, str], dataset_id: str, *numbers: int) -> Any:
    files = [("files", (f"{n}.png", picture(n))) for n in numbers]
    return client.post(f"/datasets/{dataset_id}/images", headers=headers, files=files)


def test_images_of_a_project(settings: Settings, owner: dict[str, str], key: Key) -> None:
    with serving(settings, max_project_images=5) as calling:
        first, second = new_dataset(calling, owner), new_dataset(calling, owner)
        assert upload(calling, owner, first, 1, 2, 3).status_code == 200
        answer = upload(calling, owner, second, 1, 2, 3)
        assert_problem(answer, 413, "would hold 6 images, at most 5.*nothing was added")
        assert calling.get("/usage", headers=owner).json()["images"] == 3
        assert upload(calling, owner, second, 1, 2).status_code == 200
        assert upload(calling, owner, second, 1, 2).json()["duplicates"] == 2  # no more than before
        stranger = key(f"project-{uuid4()}", "admin")
        assert upload(calling, stranger, new_dataset(calling, stranger), 1).status_code == 200
        calling.delete(f"/datasets/{first}", headers=owner)
        assert upload(calling, owner, second, 3, 4, 5).status_code == 200


def test_bytes_of_a_project(settings: Settings, owner: dict[str, str]) -> None:
    size = len(picture(1))
    with serving(settings, max_project_bytes=2 * size + size // 2) as calling:
        dataset_id = new_dataset(calling, owner)
        assert upload(calling, owner, dataset_id, 1).status_code == 200
        answer = upload(calling, owner, dataset_id, 2, 3)
        assert_problem(answer, 413, rf"would hold \d+ bytes, at most {2 * size + size // 2}")
        assert upload(calling, owner, dataset_id, 2).status_code == 200


def test_uploads_at_once_do_not_slip_past_the_limit(
    settings: Settings, owner: dict[str, str]
) -> None:
    with serving(settings, max_project_images=5) as calling:
        datasets = [new_dataset(calling, owner) for _ in range(6)]
        with ThreadPoolExecutor(6) as pool:
            answers = pool.map(lambda d: upload(calling, owner, d, 1, 2).status_code, datasets)
            assert sorted(answers) == [200, 200, 413, 413, 413, 413]
        assert calling.get("/usage", headers=owner).json()["images"] == 4


def order(client: TestClient, headers: dict[str, str], dataset_id: str) -> Any:
    body = {"stage": "pretrain", "dataset_id": dataset_id, "batch_size": 2}
    return client.post("/jobs", headers=headers, json=body)


def test_unfinished_jobs_of_a_project(
    settings: Settings, owner: dict[str, str], session: Callable[[], Session]
) -> None:
    with serving(settings, max_unfinished_jobs=2) as calling:
        dataset_id = new_dataset(calling, owner)
        upload(calling, owner, dataset_id, 1, 2, 3)
        ids = [order(calling, owner, dataset_id).json()["id"] for _ in range(2)]
        answer = order(calling, owner, dataset_id)
        assert_problem(answer, 429, "found 2 unfinished jobs.*at most 2.*cancel one")
        assert answer.headers["retry-after"] == "30"  # nothing runs that says how long it takes
        with session() as opened, opened.begin():
            running = "UPDATE jobs SET state = 'running', lease_expires_at = now(), "
            progress = "progress = '{\"seconds_left\": 71.2}' WHERE id = :id"
            opened.execute(text(running + progress), {"id": ids[0]})
        assert order(calling, owner, dataset_id).headers["retry-after"] == "72"
        assert calling.post(f"/jobs/{ids[1]}/cancel", headers=owner).status_code == 200
        assert order(calling, owner, dataset_id).status_code == 202
        retried = calling.post(f"/jobs/{ids[1]}/retry", headers=owner)
        assert_problem(retried, 429, "unfinished jobs")
        labels = {"labels": [{"file": f"{n}.png", "label": f"c{n}"} for n in (1, 2)]}
        calling.put(f"/datasets/{dataset_id}/labels", headers=owner, json=labels)
        small = {"batch_size": 2}
        pipeline = {"stage": "pipeline", "dataset_id": dataset_id, "pretrain": small}
        pipeline["distill"] = small
        never = calling.post("/jobs", headers=owner, json=pipeline)
        assert_problem(never, 422, "makes 3 jobs; at most 2")


def test_orders_at_once_do_not_slip_past_the_limit(
    settings: Settings, owner: dict[str, str]
) -> None:
    with serving(settings, max_unfinished_jobs=3) as calling:
        dataset_id = new_dataset(calling, owner)
        upload(calling, owner, dataset_id, 1, 2, 3)
        with ThreadPoolExecutor(8) as pool:
            made = pool.map(lambda _: order(calling, owner, dataset_id).status_code, range(8))
            assert sorted(made) == [202] * 3 + [429] * 5


def test_usage(settings: Settings, owner: dict[str, str]) -> None:
    limits = {"max_project_images": 50, "max_project_bytes": 0, "max_unfinished_jobs": 7}
    with serving(settings, requests_per_second=100, **limits) as calling:
        dataset_id = new_dataset(calling, owner)
        upload(calling, owner, dataset_id, 1, 2, 3)
        order(calling, owner, dataset_id)
        time.sleep(1)
        used = calling.get("/usage", headers=owner).json()
    assert used.pop("limits") == {
        "images": 50,
        "bytes": None,
        "images_per_dataset": settings.max_images_per_dataset,
        "unfinished_jobs": 7,
        "requests_per_second": 100,
        "upload_bytes": settings.max_upload_bytes,
        "inference_bytes": settings.max_inference_bytes,
        "json_bytes": settings.max_json_bytes,
    }
    assert used.pop("requests_left") in {99, 100}  # the latter after a second's pause
    assert used == {
        "datasets": 1,
        "images": 3,
        "bytes": sum(len(picture(n)) for n in (1, 2, 3)),
        "models": 0,
        "jobs": {"queued": 1},
        "unfinished_jobs": 1,
    }
