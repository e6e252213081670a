"""A request that is sent again under its Idempotency-Key is carried out once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import event, func, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from api.examples import Own
from api.main import create_app
from core.config import Settings
from core.db.answers import KeptAnswer
from core.db.models import Dataset, Job
from core.idempotency import forget_answers
from tests.contract.test_openapi import OPERATIONS
from tests.integration.api.operations import World, call, guarded, scope_of
from tests.integration.api.problems import assert_problem, picture, pictures

Sessions = Callable[[], Session]
# They need an object store: tests/integration/api/test_direct_uploads.py.
WITH_BUCKETS = {
    "post /datasets/{dataset_id}/imports",
    "post /datasets/{dataset_id}/uploads",
    "post /datasets/{dataset_id}/uploads/{upload_id}/complete",
}
MAKING = [
    name
    for name in guarded()
    if name.startswith("post ") and scope_of(name) == "write" and name not in WITH_BUCKETS
]


def new_key() -> dict[str, str]:
    return {"idempotency-key": str(uuid4())}


def same(first: Response, second: Response) -> None:
    """The second is the first once more, and says so."""
    assert (second.status_code, second.content) == (first.status_code, first.content)
    for name in ("location", "content-type"):
        assert second.headers.get(name) == first.headers.get(name)
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"


@pytest.fixture(scope="module")
def world(
    client: TestClient, add_dataset: Callable[..., str], add_model: Callable[..., UUID]
) -> World:
    dataset_id = add_dataset(pictures(3))
    labels = [{"file": f"p{number}.png", "label": "cat"} for number in range(3)]
    labelled = client.put(f"/datasets/{dataset_id}/labels", json={"labels": labels})
    assert labelled.is_success, labelled.text
    model_id = str(add_model(classes=("cat", "dog")))
    order = {"stage": "pretrain", "dataset_id": dataset_id, "batch_size": 2}
    job_id = client.post("/jobs", json=order).json()["id"]
    parameters = {"dataset_id": dataset_id, "job_id": job_id, "model_id": model_id}
    hook = client.post("/webhooks", json={"url": "https://example.com/hook"}).json()
    parameters["webhook_id"] = hook["id"]
    for pointed in (add_model(), model_id):  # so that there is one to go back to
        put = client.put("/aliases/rolled", json={"model_id": str(pointed)})
        assert put.is_success, put.text
    parameters["post /aliases/{name}/rollback name"] = "rolled"
    return World(parameters, Own(dataset_id=dataset_id), frozenset())


def bodies(name: str, world: World) -> tuple[dict[str, Any], dict[str, Any]]:
    """A body that the operation carries out, and another one."""
    if name == "post /jobs":
        small = {"stage": "pretrain", "dataset_id": world.own.dataset_id, "batch_size": 2}
        return {"json": small}, {"json": {**small, "epochs": 3}}
    good, other = call(name, world).body, call(name, world).body
    if name.endswith("/missing"):
        other = {"json": {"sha256": ["a" * 64]}}
    if name.endswith("/retry"):
        other = {"json": {"from": "beginning"}}
    if name == "post /webhooks":
        other = {"json": {"url": "https://example.com/other"}}
    if name.endswith("/evaluate"):
        other = {"json": {"dataset_id": world.own.dataset_id, "split": "train"}}
    if "files" in good:
        other = {"files": {"files": ("another-name.png", picture(9))}}
    return good, other


@pytest.mark.parametrize("name", MAKING)
def test_every_operation_that_makes_something(client: TestClient, world: World, name: str) -> None:
    assert "Idempotency-Key" in [p["name"] for p in OPERATIONS[name]["parameters"]]
    if name.endswith("/retry"):
        client.post(f"/jobs/{world.parameters['job_id']}/cancel")
    path, headers = call(name, world).path, new_key()
    good, other = bodies(name, world)

    def sent(body: dict[str, Any], to: str = path) -> Response:
        return client.post(to, **{**body, "headers": {**body.get("headers", {}), **headers}})

    first = sent(good)
    assert first.is_success, first.text
    same(first, sent(good))
    if other:  # else it has no body
        assert_problem(sent(other), 422, "another path, query or body")
    assert_problem(sent(good, f"{path}?x=1"), 422, "another path, query or body")
    elsewhere = client.post("/datasets", json={"name": f"d-{uuid4()}"}, headers=headers)
    assert_problem(elsewhere, 422, "needs a new key")


def test_reading_and_serving_take_no_notice(client: TestClient, classifier: Any) -> None:
    headers = new_key()
    for path in ("/datasets", "/jobs"):
        assert client.get(path, headers=headers).status_code == 200
    for number in (1, 2):
        files = {"files": ("a.png", picture(number))}
        asked = {"model": str(classifier)}
        answer = client.post("/predict", headers=headers, data=asked, files=files)
        assert answer.status_code == 200
        assert "idempotent-replayed" not in answer.headers


def test_a_refusal_is_not_kept(client: TestClient, add_dataset: Callable[..., str]) -> None:
    """It changed nothing: the same request may succeed later, and has its key still."""
    headers, name = new_key(), f"d-{uuid4()}"
    taken = add_dataset(name=name)
    for _ in range(2):
        answer = client.post("/datasets", json={"name": name}, headers=headers)
        assert_problem(answer, 409, "exists already")
    client.delete(f"/datasets/{taken}")
    assert client.post("/datasets", json={"name": name}, headers=headers).status_code == 201
    bad = client.post("/datasets", json={"name": 7}, headers=new_key())
    assert_problem(bad, 422, "name")


def test_keys_belong_to_a_project(
    guarded_client: TestClient, key: Callable[..., dict[str, str]]
) -> None:
    wanted, body = new_key(), {"name": "mine"}
    answers = [
        guarded_client.post("/datasets", json=body, headers={**key(project, "write"), **wanted})
        for project in ("keys-a", "keys-b", "keys-a")
    ]
    assert [answer.status_code for answer in answers] == [201, 201, 201]
    same(answers[0], answers[2])
    assert answers[1].json()["id"] != answers[0].json()["id"]
    # What was answered to another key of the project is no way around this key's scopes.
    reader = guarded_client.post(
        "/datasets", json=body, headers={**key("keys-a", "read"), **wanted}
    )
    assert_problem(reader, 403)


@pytest.mark.parametrize(
    ("first", "second"),
    [("{0}", '"{0}"'), ('"{0} \\" b"', '"{0} \\" b"'), ("  {0}", "{0}  "), ("é", None)]
    + [(text, None) for text in ("", '""', '"half', "a b", "a,b" * 90, '"é"', "a\x7f")],
)
def test_forms_of_the_key(client: TestClient, first: str, second: str | None) -> None:
    name, unique = f"d-{uuid4()}", uuid4().hex

    def sent(form: str) -> Response:
        header = {"idempotency-key": form.replace("{0}", unique).encode()}
        return client.post("/datasets", json={"name": name}, headers=header)  # type: ignore[arg-type]

    answer = sent(first)
    if second is None:
        assert_problem(answer, 400, "Idempotency-Key: found.*1 to 255")
    else:
        same(answer, sent(second))


def at_once(number: int, send: Callable[[], Response]) -> list[Response]:
    with ThreadPoolExecutor(number) as pool:
        return [done.result() for done in [pool.submit(send) for _ in range(number)]]


def all_one(answers: list[Response]) -> None:
    """One was carried out, the others are its copies."""
    (first,) = [answer for answer in answers if "idempotent-replayed" not in answer.headers]
    for answer in answers:
        if answer is not first:
            same(first, answer)


def test_the_same_request_at_once(
    client: TestClient, session: Sessions, add_dataset: Callable[..., str]
) -> None:
    headers, name = new_key(), f"d-{uuid4()}"
    body = {"name": name}
    all_one(at_once(8, lambda: client.post("/datasets", json=body, headers=headers)))
    dataset_id, headers = add_dataset(pictures(3)), new_key()
    order = {"stage": "pretrain", "dataset_id": dataset_id, "batch_size": 2}
    all_one(at_once(8, lambda: client.post("/jobs", json=order, headers=headers)))
    headers = new_key()
    files = [("files", item) for item in {"n.png": picture(77), "o.png": picture(78)}.items()]
    path = f"/datasets/{dataset_id}/images"
    answers = at_once(8, lambda: client.post(path, files=files, headers=headers))
    all_one(answers)
    # Uploads are told by their content: the answer is that of whichever ended first.
    assert answers[0].json()["added"] + answers[0].json()["duplicates"] == 2
    assert client.get(f"/datasets/{dataset_id}").json()["image_count"] == 5
    with session() as opened:
        datasets = select(func.count()).where(Dataset.name == name)
        jobs = select(func.count()).where(Job.dataset_id == dataset_id)
        assert (opened.scalar(datasets), opened.scalar(jobs)) == (1, 1)


def test_a_crash_leaves_neither_the_answer_nor_what_it_tells_of(
    app: FastAPI, client: TestClient, session: Sessions
) -> None:
    headers, body = new_key(), {"name": f"d-{uuid4()}"}

    def crash(committing: Session) -> None:
        if committing.scalar(select(func.count()).where(KeptAnswer.key == key)):
            raise OperationalError("COMMIT", {}, Exception("the server closed the connection"))

    key = headers["idempotency-key"]
    event.listen(app.state.sessions, "before_commit", crash)
    try:
        assert_problem(client.post("/datasets", json=body, headers=headers), 503)
    finally:
        event.remove(app.state.sessions, "before_commit", crash)
    with session() as opened:
        assert opened.scalar(select(func.count()).where(Dataset.name == body["name"])) == 0
        assert opened.scalar(select(func.count()).where(KeptAnswer.key == key)) == 0
    first = client.post("/datasets", json=body, headers=headers)
    assert first.status_code == 201
    same(first, client.post("/datasets", json=body, headers=headers))


@pytest.fixture(scope="module")
def forgetful(settings: Settings) -> Iterator[TestClient]:
    """Forgets answers after a third of a second."""
    changed = settings.model_copy(update={"idempotency_hours": 1e-4})
    with TestClient(create_app(changed)) as calling:
        yield calling


def test_answers_are_forgotten(forgetful: TestClient, session: Sessions) -> None:
    headers, name = new_key(), f"d-{uuid4()}"
    first = forgetful.post("/datasets", json={"name": name}, headers=headers)
    time.sleep(0.4)
    again = forgetful.post("/datasets", json={"name": name}, headers=headers)
    assert_problem(again, 409, "exists already")
    another = forgetful.post("/datasets", json={"name": f"d-{uuid4()}"}, headers=headers)
    assert another.status_code == first.status_code == 201


def test_old_answers_are_swept(client: TestClient, session: Sessions) -> None:
    old, fresh = new_key(), new_key()
    for headers in (old, fresh):
        client.post("/datasets", json={"name": f"d-{uuid4()}"}, headers=headers)
    ours = select(KeptAnswer.key).where(
        KeptAnswer.key.in_([old["idempotency-key"], fresh["idempotency-key"]])
    )
    with session() as opened, opened.begin():
        aged = {"created_at": KeptAnswer.created_at - timedelta(hours=25)}
        one = KeptAnswer.key == old["idempotency-key"]
        opened.execute(update(KeptAnswer).where(one).values(aged))
    with session() as opened, opened.begin():
        assert forget_answers(opened, hours=24) == 1
        assert opened.scalars(ours).all() == [fresh["idempotency-key"]]


def test_an_upload_is_told_by_its_length_and_its_digest(
    client: TestClient, add_dataset: Callable[..., str]
) -> None:
    path, headers = f"/datasets/{add_dataset()}/images", new_key()
    digest = {"content-digest": "sha-256=:first:"}

    def sent(number: int, **more: str) -> Response:
        files = {"files": ("a.png", picture(number))}
        return client.post(path, files=files, headers={**headers, **more})

    first = sent(1, **digest)
    same(first, sent(1, **digest))  # the form's boundary is another one
    assert_problem(sent(1, **{"content-digest": "sha-256=:other:"}), 422)
    assert_problem(sent(1), 422)
