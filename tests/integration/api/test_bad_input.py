"""Bad JSON is refused in words, with the right status, and leaves nothing behind."""

from __future__ import annotations

import json

import pytest
from fastapi.testclient import TestClient

from tests.integration.api.problems import assert_problem

JSON = {"content-type": "application/json"}


NOWHERE = "00000000-0000-4000-8000-000000000000"


UNPAIRED = '"\\ud800"'


NOT_JSON = {
    "words": b"hello",
    "cut": b'{"name": "a',
    "empty": b"",
    "bytes": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
    "deep object": b'{"a":' * 50_000,
    "huge integer": b'{"name": ' + b"9" * 5000 + b"}",
    "null": b"null",
    "list": b"[]",
    "string": b'"a"',
}


JSON_ROUTES = [
    ("POST", "/datasets"),
    ("POST", "/jobs"),
    ("PUT", f"/aliases/{'a' * 8}"),
    ("PUT", "/datasets/{}/labels"),
    ("POST", "/embed"),
    ("POST", "/predict"),
]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
@pytest.mark.parametrize(("method", "path"), JSON_ROUTES)
def test_not_json_or_not_an_object(
    client: TestClient, dataset_id: str, method: str, path: str, body: bytes
) -> None:
    answer = client.request(method, path.format(dataset_id), content=body, headers=JSON)
    assert answer.status_code in {400, 422}
    assert_problem(answer, answer.status_code, "body|name|stage|model")


BODIES: dict[str, tuple[str, str, str, int, str]] = {
    # method, path, body, status, said
    "extra": ("POST", "/datasets", '{"name": "a", "nam": 1}', 422, "nam: .*found 1"),
    "nul name": ("POST", "/datasets", '{"name": "a\\u0000b"}', 422, "name: .*NUL"),
    "surrogate name": ("POST", "/datasets", f'{{"name": {UNPAIRED}}}', 422, "name"),
    "empty name": ("POST", "/datasets", '{"name": "  "}', 422, "name"),
    "long name": ("POST", "/datasets", f'{{"name": "{"a" * 5000}"}}', 422, "name: .*200"),
    "nan": ("POST", "/datasets", '{"name": "a", "test_fraction": NaN}', 422, "test_fraction"),
    "infinity": ("POST", "/datasets", '{"name": "a", "test_fraction": Infinity}', 422, "0.5"),
    "negative": ("POST", "/datasets", '{"name": "a", "test_fraction": -1e400}', 422, "found -inf"),
    "big float": (
        "POST",
        "/datasets",
        '{"name": "a", "test_fraction": %s}' % ("9" * 400),
        422,
        "test_fraction",
    ),
    "list name": ("POST", "/datasets", '{"name": ["a"]}', 422, "name: .*found"),
    "label nul": ("PUT", "labels", '{"labels": [{"file": "a\\u0000", "label": "x"}]}', 422, "NUL"),
    "class nul": ("PUT", "labels", '{"labels": [{"file": "p0.png", "label": "\\u0000"}]}', 422, ""),
    "class surrogate": (
        "PUT",
        "labels",
        f'{{"labels": [{{"file": "p0.png", "label": {UNPAIRED}}}]}}',
        400,
        "not JSON",
    ),
    "no file": ("PUT", "labels", '{"labels": [{"label": "x"}]}', 422, "at least one of"),
    "empty file": ("PUT", "labels", '{"labels": [{"file": "", "label": "x"}]}', 422, "file"),
    "nothing": ("PUT", "labels", '{"labels": [{"file": "p0.png"}]}', 422, "label, split or both"),
    "bad split": (
        "PUT",
        "labels",
        '{"labels": [{"file": "p0.png", "split": "holdout"}]}',
        422,
        "split: .*'train', 'validation' or 'test'; found 'holdout'",
    ),
    "bad sha256": (
        "PUT",
        "labels",
        '{"labels": [{"sha256": "abc", "label": "x"}]}',
        422,
        "sha256: .*found 'abc'",
    ),
    "unknown sha256": (
        "PUT",
        "labels",
        '{"labels": [{"sha256": "%s", "label": "x"}]}' % ("a" * 64),
        422,
        "sha256 aaa.*no such image",
    ),
    "one way of two": (
        "PUT",
        "labels",
        f'{{"labels": [{{"file": "p0.png", "image_id": "{NOWHERE}", "label": "x"}}]}}',
        422,
        f"image_id {NOWHERE}: the dataset has no such image",
    ),
    "no labels": ("PUT", "labels", '{"labels": []}', 422, "labels: .*at least 1"),
    "unknown file": (
        "PUT",
        "labels",
        '{"labels": [{"file": "p0.png", "label": "x"}, {"file": "nope.png", "label": "x"}]}',
        422,
        "line 2.*nope.png.*no such image",
    ),
    "unknown id": (
        "PUT",
        "labels",
        f'{{"labels": [{{"image_id": "{NOWHERE}", "label": "x"}}]}}',
        422,
        "no such image",
    ),
    "contradiction": (
        "PUT",
        "labels",
        '{"labels": [{"file": "p0.png", "label": "x"}, {"file": "p0.png", "label": "y"}]}',
        422,
        "contradicts",
    ),
    "too many labels": (
        "PUT",
        "labels",
        json.dumps({"labels": [{"file": "p0.png", "label": "x"}] * 401}),
        422,
        "found 401; at most 400",
    ),
    "no stage": ("POST", "/jobs", f'{{"dataset_id": "{NOWHERE}"}}', 422, "stage"),
    "odd stage": ("POST", "/jobs", '{"stage": "dance"}', 422, "stage.*pretrain"),
    "unknown dataset": (
        "POST",
        "/jobs",
        f'{{"stage": "pipeline", "dataset_id": "{NOWHERE}"}}',
        404,
        NOWHERE,
    ),
    "bad id": ("POST", "/jobs", '{"stage": "pretrain", "dataset_id": "7"}', 422, "dataset_id"),
    "alias nowhere": ("PUT", "/aliases/a", f'{{"model_id": "{NOWHERE}"}}', 404, NOWHERE),
}


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    BODIES.values(),
    ids=BODIES,
)
def test_bad_json(
    client: TestClient, dataset_id: str, method: str, path: str, body: str, status: int, said: str
) -> None:
    path = f"/datasets/{dataset_id}/labels" if path == "labels" else path
    answer = client.request(method, path, content=body.encode(), headers=JSON)
    assert_problem(answer, status, said)
