"""OpenAI's own client against the service on a real port."""

from __future__ import annotations

import base64
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import openai
import pytest
import uvicorn
from fastapi.testclient import TestClient

from api.main import create_app
from core.config import Settings
from tests.integration.api.problems import picture

URI = "data:image/png;base64," + base64.b64encode(picture(1)).decode()


@pytest.fixture(scope="module")
def address(settings: Settings) -> Iterator[str]:
    """The service with keys, on a free port."""
    app = create_app(settings.model_copy(update={"auth_mode": "keys"}))
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    server.should_exit = True
    thread.join(30)


@pytest.fixture(scope="module")
def secret(key: Callable[..., dict[str, str]]) -> str:
    return key("openai", "infer")["authorization"].removeprefix("Bearer ")


def test_the_client_gets_the_vectors_of_embed(
    address: str,
    secret: str,
    add_model: Callable[..., UUID],
    guarded_client: TestClient,
) -> None:
    model = str(add_model(project="openai"))
    with openai.OpenAI(base_url=address, api_key=secret, max_retries=0) as client:
        answer = client.embeddings.create(model=model, input=[URI, URI])
        plain = client.embeddings.create(model=model, input=URI, encoding_format="float")
    body = {"model": model, "images": [URI]}
    headers = {"authorization": f"Bearer {secret}"}
    own = guarded_client.post("/embed", json=body, headers=headers).json()["items"][0]
    for item in (*answer.data, *plain.data):
        assert item.embedding == pytest.approx(own["embedding"], abs=1e-6)
    assert [item.index for item in answer.data] == [0, 1]
    assert (answer.model, answer.usage.total_tokens) == (model, 2)


def test_the_client_raises_its_own_exceptions(
    address: str, secret: str, add_model: Callable[..., UUID]
) -> None:
    model = str(add_model(project="openai"))

    def refused(kind: type[openai.APIStatusError], *said: str, **asked: Any) -> None:
        wanted = {"model": model, "input": URI, **asked}
        with (
            openai.OpenAI(base_url=address, api_key=secret, max_retries=0) as client,
            pytest.raises(kind) as caught,
        ):
            client.embeddings.create(**wanted)
        assert type(caught.value) is kind
        assert caught.value.code
        assert all(word in caught.value.message for word in said), caught.value.message

    refused(openai.NotFoundError, "no model or alias", model="none")
    refused(openai.BadRequestError, "input.0", "data: URI", input="a cat")
    refused(openai.BadRequestError, "input.1", input=[URI, "data:image/png;base64,AAAA"])
    refused(openai.BadRequestError, "dimensions", dimensions=3)
    refused(openai.BadRequestError, "input", input=[])
    with (
        openai.OpenAI(base_url=address, api_key="fl_wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError, match="API key"),
    ):
        client.embeddings.create(model=model, input=URI)
