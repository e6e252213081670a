"""Bad images and fields of /embed and /predict are refused in words."""

from __future__ import annotations

import base64
import os
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from tests.integration.api.problems import assert_problem, picture
from tests.unit.images.image_samples import ihdr, png

GOOD = picture(1)


HUGE_HEADER = png(ihdr(50_000, 50_000, 8, 2), b"")


BASE64 = base64.b64encode(GOOD).decode()


NOWHERE = "00000000-0000-4000-8000-000000000000"


GARBAGE = base64.b64encode(os.urandom(7_800_000)).decode()


IMAGES: dict[str, tuple[list[Any], int, str]] = {
    "not base64": (["!!!"], 422, "images.0: not base64"),
    "not ascii": (["é"], 422, "images.0: not base64"),
    "empty": ([""], 422, "image"),
    "ten megabytes of garbage": ([GARBAGE], 413, "bytes"),
    "garbage": ([GARBAGE[:1_000_000]], 422, "image"),
    "huge header": ([base64.b64encode(HUGE_HEADER).decode()], 413, "pixels"),
    "truncated": ([base64.b64encode(GOOD[:60]).decode()], 422, "image"),
    "none": ([], 422, "images: .*at least 1"),
    "too many": ([BASE64] * 9, 413, "found 9; at most 8"),
    "numbers": ([7], 422, "images.0"),
    "all bad": (["!!!", "AAAA"], 422, "none of the 2 images"),
}


@pytest.mark.parametrize("route", ["/embed", "/predict"])
@pytest.mark.parametrize(("images", "status", "said"), IMAGES.values(), ids=IMAGES)
def test_bad_images(
    client: TestClient, classifier: UUID, route: str, images: list[Any], status: int, said: str
) -> None:
    answer = client.post(route, json={"model": str(classifier), "images": images})
    problem = assert_problem(answer, status, said)
    if "bad" in said or "none of" in said:
        assert [fault["index"] for fault in problem["errors"]] == [0, 1]


@pytest.mark.parametrize(
    ("field", "value", "status"),
    [
        ("top_k", 0, 422),
        ("top_k", 10**30, 422),
        ("top_k", "x", 422),
        ("top_k", 1.5, 422),
        ("model", "", 422),
        ("model", 7, 422),
        ("model", "a\0b", 422),
        ("model", "no-such-alias", 404),
        ("model", NOWHERE, 404),
        ("model", "x" * 201, 422),
        ("model", "../../etc/passwd", 404),
        ("modle", "x", 422),
    ],
)
@pytest.mark.parametrize("as_form", [False, True])
def test_bad_inference_fields(
    client: TestClient, classifier: UUID, field: str, value: Any, status: int, as_form: bool
) -> None:
    fields = {"model": str(classifier), field: value}
    if as_form and field != "modle" and value != 7:
        answer = client.post("/predict", data=fields, files={"files": ("a.png", GOOD)})
        assert_problem(answer, status, field)
    elif not as_form:
        answer = client.post("/predict", json={**fields, "images": [BASE64]})
        assert_problem(answer, status, field)


@pytest.mark.parametrize(
    ("count", "status", "said"), [(0, 400, "no file"), (9, 413, "8"), (40, 413, "8")]
)
def test_wrong_number_of_form_files(
    client: TestClient, classifier: UUID, count: int, status: int, said: str
) -> None:
    files = [("files", (f"{n}.png", GOOD)) for n in range(count)]
    sent: Any = files or [("model", (None, b"x"))]
    answer = client.post("/predict", data={"model": str(classifier)}, files=sent)
    assert_problem(answer, status, said)


def test_encoder_does_not_predict(client: TestClient, encoder: UUID) -> None:
    answer = client.post("/predict", json={"model": str(encoder), "images": [BASE64]})
    assert_problem(answer, 422, "of the kind encoder.*needs a classifier")


@pytest.mark.parametrize("as_form", [False, True])
def test_options_beside_the_body_are_not_ignored(
    client: TestClient, classifier: UUID, as_form: bool
) -> None:
    fields = {"model": str(classifier)}
    if as_form:
        answer = client.post("/predict?top_k=1", data=fields, files={"files": ("a.png", GOOD)})
    else:
        answer = client.post("/predict?top_k=1", json={**fields, "images": [BASE64]})
    assert_problem(answer, 400, "top_k: found in the query, .* fields of the body")
