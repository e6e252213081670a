"""Every error has a status, and its body is what RFC 9457 and our documentation say."""

from __future__ import annotations

import http
import json
import re

import pytest
from starlette.requests import Request

from api import errors as api_errors
from api.errors import PROBLEM, STATUS, Problem, problem, status_of
from core import errors


def tree(root: type[errors.FewlabelsError]) -> list[type[errors.FewlabelsError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in tree(child))]


ALL = tree(errors.FewlabelsError)[1:]


def request() -> Request:
    scope = {"type": "http", "headers": [], "state": {"request_id": "abc"}}
    return Request(scope)


def test_the_tree_is_all_there() -> None:
    defined = {name for name, value in vars(errors).items() if value in ALL}
    assert len(ALL) > 35
    assert defined <= {kind.__name__ for kind in ALL}
    elsewhere = {kind.__module__ for kind in ALL} - {"core.errors"}
    assert all(
        module.startswith(("core.embedded", "core.client", "core.demo", "core.upload"))
        for module in elsewhere
    )  # not HTTP
    assert STATUS.keys() <= set(ALL)


@pytest.mark.parametrize("kind", ALL)
def test_every_error_has_a_status_and_a_body(kind: type[errors.FewlabelsError]) -> None:
    status = status_of(kind)
    assert 400 <= http.HTTPStatus(status) < 600
    answer = problem(request(), status=status, code=kind.__name__, detail="name: found x")
    body = json.loads(bytes(answer.body))
    assert answer.status_code == body["status"] == status
    assert answer.headers["content-type"] == PROBLEM
    assert answer.headers["x-request-id"] == body["request_id"] == "abc"
    assert body["type"] == f"urn:fewlabels:problem:{kind.__name__}"
    assert re.fullmatch(r"[A-Z][a-z]+( [a-z]+)*", body["title"])
    assert body["title"].replace(" ", "").lower() == kind.__name__.lower()
    assert body.keys() <= Problem.model_fields.keys()
    assert ("Retry-After" in answer.headers) == (status in {429, 503})
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)
    assert kind.__doc__


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.DatasetNotFound, 404),
        (errors.NameTaken, 409),
        (errors.LabelsInvalid, 422),
        (errors.RequestInvalid, 400),
        (errors.ImageTooLarge, 413),
        (errors.ArchiveTooLarge, 413),
        (errors.Unauthenticated, 401),
        (errors.Forbidden, 403),
        (errors.Overloaded, 429),
        (errors.ArtifactCorrupt, 503),
        (errors.DeadlineExceeded, 504),
        (errors.BatchFailed, 500),
    ],
)
def test_documented_statuses(kind: type[errors.FewlabelsError], status: int) -> None:
    assert status_of(kind) == status
    described = api_errors.responses(kind)[status]
    assert kind.__name__ in described["description"]
    assert PROBLEM in described["content"]
