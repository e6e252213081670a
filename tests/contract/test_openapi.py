"""The OpenAPI document is a reviewed file; every operation in it is complete and tried.

After a change that is meant, write the file anew and read its diff:

    python -m tests.contract.test_openapi
"""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from api.main import create_app
from api.schemas.datasets import DatasetIn
from api.schemas.direct import DirectUploadIn, ImportIn, PartsIn
from api.schemas.inference import EmbedIn, PredictIn
from api.schemas.jobs import JobIn, RetryIn
from api.schemas.labels import LabelIn, LabelsIn
from api.schemas.models import AliasIn
from api.schemas.openai import OpenAIEmbeddingsIn
from api.schemas.search import EvaluateIn, SearchIn
from api.schemas.uploads import HashesIn
from api.schemas.webhooks import WebhookIn
from core.config import Settings
from core.images.decoding import decode

SNAPSHOT = Path(__file__).with_name("openapi.json")
METHODS = {"get", "post", "put", "delete", "patch"}
SCOPES = [["read"], ["write"], ["infer"]]
BODIES: dict[str, Any] = {
    "post /datasets": DatasetIn,
    "post /datasets/{dataset_id}/images/missing": HashesIn,
    "post /datasets/{dataset_id}/uploads": DirectUploadIn,
    "post /datasets/{dataset_id}/uploads/{upload_id}/complete": PartsIn,
    "post /datasets/{dataset_id}/imports": ImportIn,
    "post /jobs": JobIn,
    "put /datasets/{dataset_id}/labels": LabelsIn,
    "put /aliases/{name}": AliasIn,
    "post /embed": EmbedIn,
    "post /predict": PredictIn,
    "post /search": SearchIn,
    "post /v1/embeddings": OpenAIEmbeddingsIn,
    "post /models/{model_id}/evaluate": EvaluateIn,
    "post /webhooks": WebhookIn,
    "post /jobs/{job_id}/retry": RetryIn,
}


def document() -> dict[str, Any]:
    """The document without any server: its examples have placeholders."""
    settings = Settings(
        _env_file=None,
        database_url="postgresql://nobody@127.0.0.1:1/none",
        broker_url="redis://127.0.0.1:1/0",
    )
    made: dict[str, Any] = json.loads(json.dumps(create_app(settings).openapi()))
    made["info"]["version"] = "*"
    return made


def as_text(made: dict[str, Any]) -> str:
    return json.dumps(made, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


DOCUMENT = document()
OPERATIONS = {
    f"{method} {path}": operation
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
    if method in METHODS
}


def resolve(node: Any) -> Any:
    while isinstance(node, dict) and "$ref" in node:
        found: Any = DOCUMENT
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        node = found
    return node


def json_examples(operation: dict[str, Any]) -> list[Any]:
    content = operation["requestBody"]["content"]["application/json"]
    schema = resolve(content["schema"])
    given = [entry["value"] for entry in content.get("examples", {}).values()]
    return [
        *given,
        *([content["example"]] if "example" in content else []),
        *schema.get("examples", []),
    ]


def test_document_is_the_reviewed_one() -> None:
    assert as_text(DOCUMENT) == SNAPSHOT.read_text(), (
        "the HTTP surface changed; if that is meant: python -m tests.contract.test_openapi"
    )


def test_every_reference_leads_somewhere() -> None:
    def visit(node: Any) -> None:
        if isinstance(node, dict):
            if "$ref" in node:
                assert resolve(node)
            for child in node.values():
                visit(child)
        elif isinstance(node, list):
            for child in node:
                visit(child)

    visit(DOCUMENT)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_complete(name: str) -> None:
    operation = OPERATIONS[name]
    assert len(operation["summary"]) > 8
    assert len(operation["tags"]) == 1
    assert operation["tags"][0] in {tag["name"] for tag in DOCUMENT["tags"]}
    if operation["tags"] != ["health"]:
        (security,) = operation["security"]
        assert [scope for scopes in security.values() for scope in scopes] in SCOPES
        for status in ("400", "401", "403", "422"):
            assert "application/problem+json" in operation["responses"][status]["content"]
        if "{" in name and not name.startswith("put /aliases"):
            assert "404" in operation["responses"]
    for status, response in operation["responses"].items():
        if status >= "400" and operation["tags"] != ["health"]:
            assert list(response["content"]) == ["application/problem+json"], status
            schema = response["content"]["application/problem+json"]["schema"]
            assert resolve(schema)["title"] == "Problem"


@pytest.mark.parametrize("name", [n for n, o in OPERATIONS.items() if "requestBody" in o])
def test_bodies_have_a_documented_limit(name: str) -> None:
    assert "413" in OPERATIONS[name]["responses"]


def test_operation_ids_differ() -> None:
    ids = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(ids) == len(set(ids))


OPTIONAL_BODIES = {"post /jobs/{job_id}/retry"}


@pytest.mark.parametrize("name", [n for n, o in OPERATIONS.items() if "requestBody" in o])
def test_bodies_have_examples_that_hold(name: str) -> None:
    content = OPERATIONS[name]["requestBody"]["content"]
    assert OPERATIONS[name]["requestBody"].get("required", False) != (name in OPTIONAL_BODIES)
    if "application/json" in content:
        examples = json_examples(OPERATIONS[name])
        assert examples
        for example in examples:
            TypeAdapter(BODIES[name]).validate_json(json.dumps(example), strict=False)
    else:
        assert "multipart/form-data" in content


def test_the_csv_example_is_labels() -> None:
    content = OPERATIONS["put /datasets/{dataset_id}/labels"]["requestBody"]["content"]
    rows = list(csv.DictReader(io.StringIO(content["text/csv"]["example"])))
    assert [LabelIn.model_validate(row).label for row in rows] == ["bolt", "nut"]


@pytest.mark.parametrize("name", ["post /embed", "post /predict"])
def test_the_image_of_the_example_is_one(name: str) -> None:
    (example,) = json_examples(OPERATIONS[name])
    image = decode(base64.b64decode(example["images"][0]), max_bytes=1000, max_pixels=100)
    assert image.pixels_HWC.shape == (8, 8, 3)


@pytest.mark.parametrize("model", [DatasetIn, LabelsIn, LabelIn, AliasIn, EmbedIn, PredictIn])
def test_unknown_fields_are_refused(model: type[BaseModel]) -> None:
    assert model.model_config["extra"] == "forbid"


if __name__ == "__main__":
    SNAPSHOT.write_text(as_text(DOCUMENT))
