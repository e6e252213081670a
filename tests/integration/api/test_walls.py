"""The wall around a project, walked along every operation of the OpenAPI document.

A new operation is tried without a line here; where it needs one, the failure says which.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy.orm import Session

import api.routes
from api.auth import ReadCaller
from api.examples import Own
from api.guard import GuardedRoute
from core.db.direct import DirectUpload
from tests.integration.api.operations import (
    PUBLIC,
    SCOPES,
    Call,
    World,
    call,
    cases,
    guarded,
    scope_of,
)
from tests.integration.api.problems import assert_problem, pictures
from tests.tiny_models import CLASSES

OWNER, STRANGER = "walls-a", "walls-b"
Key = Callable[..., dict[str, str]]


@pytest.fixture(scope="module")
def make_world(
    guarded_client: TestClient,
    key: Key,
    add_model: Callable[..., UUID],
    session: Callable[[], Session],
) -> Callable[[], World]:
    """Gives the owner one of everything, new each time; deleting it takes nothing from others."""
    headers = key(OWNER, "admin")

    def sent(method: str, path: str, **body: Any) -> Any:
        answer = guarded_client.request(method, path, headers=headers, **body)
        assert answer.is_success, answer.text
        return answer.json()

    def add_upload(dataset_id: str) -> UUID:
        """One on its way to an object store; blobs lie in a folder here, where none begins."""
        with session() as opened, opened.begin():
            upload = DirectUpload(
                id=uuid4(),
                dataset_id=UUID(dataset_id),
                key=f"incoming/{'0' * 64}",
                store_upload="u",
                file="a.zip",
                byte_count=1,
                part_count=1,
                expires_at=datetime.now(UTC) + timedelta(hours=1),
            )
            opened.add(upload)
            return upload.id

    def make() -> World:
        name, alias = f"data-{uuid4()}", f"alias-{uuid4().hex}"
        dataset_id = sent("POST", "/datasets", json={"name": name})["id"]
        files = [("files", item) for item in pictures(3).items()]
        sent("POST", f"/datasets/{dataset_id}/images", files=files)
        image_id = sent("GET", f"/datasets/{dataset_id}/images")["items"][0]["id"]
        order = {"stage": "pretrain", "dataset_id": dataset_id, "batch_size": 2}
        job = sent("POST", "/jobs", json=order)
        imported = sent("GET", f"/datasets/{dataset_id}/imports")["items"][0]["id"]
        classifier = str(add_model(classes=CLASSES, project=OWNER))
        encoder = str(add_model(project=OWNER))
        sent("PUT", f"/aliases/{alias}", json={"model_id": classifier})
        upload_id = str(add_upload(dataset_id))
        hook = sent("POST", "/webhooks", json={"url": f"https://example.com/{uuid4()}"})
        return World(
            parameters={
                "dataset_id": dataset_id,
                "image_id": image_id,
                "import_id": imported,
                "upload_id": upload_id,
                "snapshot_id": job["snapshot_id"],
                "job_id": job["id"],
                "model_id": encoder,
                "webhook_id": hook["id"],
                "get /models/{model_id}/files/{name} name": "manifest.json",
                "put /aliases/{name} name": alias,
                "post /aliases/{name}/rollback name": alias,
                "delete /aliases/{name} name": alias,
            },
            own=Own(dataset_id, encoder, classifier, alias, ("p0.png", "p1.png")),
            secrets=frozenset(
                {
                    *(name, alias, dataset_id, image_id, imported, classifier, encoder),
                    *(job["id"], job["snapshot_id"], upload_id, hook["id"], hook["url"]),
                }
            ),
        )

    return make


@pytest.fixture(scope="module")
def world(make_world: Callable[[], World]) -> World:
    """One for the tests that change nothing."""
    return make_world()


def send(client: TestClient, asked: Call, headers: dict[str, str]) -> Response:
    both = {**asked.body.get("headers", {}), **headers}
    return client.request(asked.method, asked.path, **{**asked.body, "headers": both})


@pytest.mark.parametrize(("name", "number"), cases())
def test_what_another_project_has_is_not_there(
    guarded_client: TestClient, key: Key, make_world: Callable[[], World], name: str, number: int
) -> None:
    world = make_world()
    asked = call(name, world, number)
    answer = send(guarded_client, asked, key(STRANGER, "admin"))
    if world.is_named_in(asked.names):
        problem = assert_problem(answer, 404)
        assert problem["type"].endswith("NotFound")
    else:  # it lists or makes what is the caller's own
        assert answer.is_success, answer.text
        assert not world.is_named_in(answer.text)
    # The same request of the owner finds what it names: else the above would say nothing.
    mine = send(guarded_client, asked, key(OWNER, str(scope_of(name))))
    assert mine.status_code not in {401, 403, 404, 405}, mine.text
    assert mine.status_code < 500, mine.text


@pytest.fixture(scope="module")
def no_keys(key: Key) -> dict[str, dict[str, str]]:
    """Headers by which nobody may do anything."""
    past = datetime.now(UTC) - timedelta(seconds=1)
    return {
        "missing": {},
        "garbage": {"authorization": f"Bearer fl_{'x' * 43}"},
        "another scheme": {"authorization": "Basic Zm9vOmJhcg=="},
        "expired": key(OWNER, "admin", expires_at=past),
        "revoked": key(OWNER, "admin", revoked=True),
    }


def bad_calls(name: str, world: World) -> list[Call]:
    """The operation as it should be, with a body that is none, and with ids of no form."""
    good = call(name, world)
    json = {"content-type": "application/json"}
    return [
        good,
        Call(good.method, good.path, {"content": b'{"half', "headers": json}),
        Call(good.method, good.path, {"content": b'{"no": "such field"}', "headers": json}),
        Call(good.method, name.split(" ")[1].replace("{", "%7B"), good.body),
    ]


@pytest.mark.parametrize("name", guarded())
def test_nobody_gets_in_without_a_key(
    guarded_client: TestClient, no_keys: dict[str, dict[str, str]], world: World, name: str
) -> None:
    for asked in bad_calls(name, world):
        for headers in no_keys.values():
            answer = send(guarded_client, asked, headers)
            assert_problem(answer, 401, "API key")
            assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("name", guarded())
def test_a_narrower_key_is_told_what_it_lacks(
    guarded_client: TestClient, key: Key, world: World, name: str
) -> None:
    needed = scope_of(name)
    others = [scope for scope in SCOPES if scope != needed]
    for scopes in (others, others[:1], others[1:]):
        headers = key(OWNER, *scopes)
        for asked in bad_calls(name, world):
            said = f"scopes {', '.join(sorted(scopes))}; this operation needs {needed}"
            assert_problem(send(guarded_client, asked, headers), 403, said)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_operations_need_none(guarded_client: TestClient, name: str) -> None:
    method, path = name.split(" ")
    garbage = {"authorization": "Bearer fl_wrong"}
    for headers in ({}, garbage):
        assert guarded_client.request(method, path, headers=headers).status_code in {200, 503}


def test_no_route_is_left_out_of_the_document() -> None:
    """What is not in it is not walked."""
    for found in pkgutil.iter_modules(api.routes.__path__):
        module = importlib.import_module(f"api.routes.{found.name}")
        routers = [value for value in vars(module).values() if isinstance(value, APIRouter)]
        assert routers
        for route in (route for router in routers for route in router.routes):
            assert isinstance(route, APIRoute)
            assert route.include_in_schema, route.path


def test_a_guarded_route_without_a_caller_does_not_come_into_being() -> None:
    router = APIRouter(route_class=GuardedRoute)
    with pytest.raises(TypeError, match="/things: its endpoint takes no caller"):
        router.add_api_route("/things", lambda: None)


def test_nobody_gets_in_by_a_route_that_is_not_guarded() -> None:
    forgotten = FastAPI()

    @forgotten.get("/things")
    def things(caller: ReadCaller) -> str:
        return "secret"

    with pytest.raises(RuntimeError, match="/things: its router needs route_class=GuardedRoute"):
        TestClient(forgotten).get("/things")
