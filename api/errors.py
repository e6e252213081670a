"""Errors to HTTP: the one table of status codes and the RFC 9457 bodies."""

from __future__ import annotations

import errno
import http
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import DataError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import Message

from api.faults import SHOWN_CHARACTERS, fault
from core import errors
from core.telemetry import logger

log = logger(__name__)
PROBLEM = "application/problem+json"
SHOWN_FAULTS = 100

STATUS: dict[type[errors.FewlabelsError], int] = {
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.TooLarge: 413,
    errors.ImageTooLarge: 413,
    errors.Invalid: 422,
    errors.RequestInvalid: 400,
    errors.Overloaded: 429,
    errors.JobCancelled: 409,
    errors.IllegalTransition: 500,
    errors.BatchFailed: 500,
    errors.ConfigurationInvalid: 500,
    errors.EmbeddedServerFailed: 500,
    errors.Unavailable: 503,
    errors.DeadlineExceeded: 504,
}
UNREADABLE = "There was an error parsing the body"  # FastAPI's words for what json cannot load
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE}
EVERYWHERE = (
    errors.RequestInvalid,
    errors.Unauthenticated,
    errors.Forbidden,
    errors.TooManyRequests,
)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
RETRY_AFTER = {429: "1", 503: "5"}


class Problem(BaseModel):
    """What went wrong, as RFC 9457 describes it."""

    type: str = Field(examples=["urn:fewlabels:problem:DatasetNotFound"])
    title: str = Field(examples=["Dataset not found"])
    status: int = Field(examples=[404])
    detail: str = Field(
        description="Which field, what was found, what is allowed.",
        examples=["dataset_id: no dataset has the id 0b0e…"],
    )
    request_id: str | None = Field(description="Also in the X-Request-ID header and in the logs.")
    errors: list[dict[str, Any]] | None = Field(
        default=None, description="Single faults, when there are several."
    )


def status_of(error: type[errors.FewlabelsError]) -> int:
    """The status of an error by its nearest ancestor in the table."""
    return next(STATUS[ancestor] for ancestor in error.__mro__ if ancestor in STATUS)


def responses(*kinds: type[errors.FewlabelsError]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for the errors of an operation; those of every operation are included."""
    documented: dict[int | str, list[str]] = {}
    for kind in (*kinds, *EVERYWHERE):
        documented.setdefault(status_of(kind), []).append(kind.__name__)
    documented.setdefault(422, []).append("RequestValidation")
    return {
        status: {
            "description": f"{http.HTTPStatus(int(status)).phrase}: {', '.join(names)}",
            "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status, names in documented.items()
    }


def problem(
    request: Request,
    *,
    status: int,
    code: str,
    detail: str,
    faults: Sequence[Mapping[str, Any]] = (),
) -> JSONResponse:
    """An error response."""
    body = Problem(
        type=f"urn:fewlabels:problem:{code}",
        title=_title(code),
        status=status,
        detail=detail,
        request_id=getattr(request.state, "request_id", None),
        errors=[dict(fault) for fault in faults] or None,
    )
    # Ours also where the answer goes past our middleware, as a 500 does.
    headers = dict(getattr(request.state, "safe_headers", {}))
    if status in RETRY_AFTER:
        headers["Retry-After"] = RETRY_AFTER[status]
    if body.request_id:
        headers["X-Request-ID"] = body.request_id
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    content = body.model_dump(mode="json", exclude_none=True)
    return JSONResponse(content, status, headers=headers, media_type=PROBLEM)


def install(app: FastAPI) -> None:
    """Register the handlers."""
    app.add_exception_handler(errors.FewlabelsError, _known)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(OperationalError, _database_gone)
    app.add_exception_handler(InterfaceError, _database_gone)
    app.add_exception_handler(NoConnectionFree, _database_gone)
    app.add_exception_handler(DataError, _not_storable)
    app.add_exception_handler(ClientDisconnect, _caller_left)
    app.add_exception_handler(OSError, _no_room)
    app.add_exception_handler(Exception, _unknown)


def _title(code: str) -> str:
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in code).strip()
    return words[:1].upper() + words[1:]


async def _known(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.FewlabelsError)
    return refusal(request, error)


def refusal(request: Request, error: errors.FewlabelsError) -> JSONResponse:
    """The answer to a request that ended in an error of ours."""
    status = status_of(type(error))
    if isinstance(error, errors.DeadlineExceeded):
        # Its caller chose the time, and there are many of them when there is too much to do.
        log.warning("too late", detail=str(error))
    elif status >= 500:
        log.error("request failed", code=error.code, detail=str(error), exc_info=error)
    answer = problem(
        request, status=status, code=error.code, detail=str(error), faults=error.problems
    )
    if error.retry_after is not None:
        answer.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if isinstance(error, errors.TooManyRequests):
        answer.headers["RateLimit"] = f'"key";r=0;t={answer.headers["Retry-After"]}'
    return answer


async def openai_refusal(
    request: Request, error: errors.FewlabelsError | RequestValidationError
) -> JSONResponse:
    """The same problem with the member `error`, under the statuses that OpenAI's API has."""
    if isinstance(error, errors.FewlabelsError):
        answer = refusal(request, error)
    else:
        answer = await _validation(request, error)
    body = json.loads(bytes(answer.body))
    status = 400 if answer.status_code == 422 else answer.status_code
    kind = "invalid_request_error" if status < 500 else "server_error"
    code = body["type"].rpartition(":")[2]
    told = {"message": body["detail"], "type": kind, "param": None, "code": code}
    content = {**body, "status": status, "error": told}
    headers = {
        name: value
        for name, value in answer.headers.items()
        if name not in {"content-length", "content-type"}
    }
    return JSONResponse(content, status, headers=headers, media_type=PROBLEM)


async def _validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    entries = error.errors()
    faults = [fault(entry) for entry in entries[:SHOWN_FAULTS]]
    malformed = any(entry["type"] == "json_invalid" for entry in entries)
    first = faults[0]
    more = f" (and {len(entries) - 1} more)" if len(entries) > 1 else ""
    return problem(
        request,
        status=400 if malformed else 422,
        code="JsonInvalid" if malformed else "RequestInvalid",
        detail=f"{first['field']}: {first['detail']}{more}",
        faults=faults,
    )


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    phrase = http.HTTPStatus(error.status_code).phrase
    code = phrase.title().replace(" ", "")
    detail = f"{request.method} {request.url.path[:SHOWN_CHARACTERS]}: {error.detail}"
    if error.status_code == 413:
        return body_too_large(request)
    if error.status_code == 400 and error.detail == UNREADABLE:
        detail = "body: not JSON that can be read: not UTF-8, nested too deeply, or a number of "
        detail += "thousands of digits"
    response = problem(request, status=error.status_code, code=code, detail=detail)
    response.headers.update(error.headers or {})
    if error.status_code == 405:
        response.headers["Allow"] = ", ".join(_allowed_methods(request))
    return response


def _allowed_methods(request: Request) -> list[str]:
    """All methods that the path takes; Starlette names those of the first route only."""
    routes = request.app.router.routes

    def taken(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in routes)

    return [method for method in METHODS if taken(method)]


def is_plain_refusal(message: Message) -> bool:
    """Whether this begins the answer that Starlette gives to a declared length over the limit."""
    return (
        message["type"] == "http.response.start"
        and message["status"] == 413
        and (b"content-type", PROBLEM.encode()) not in message["headers"]
    )


def body_too_large(request: Request) -> JSONResponse:
    """The refusal of a body over the limit of its route."""
    limit = request.scope.get("starlette.max_body_size")
    detail = f"body: larger than the {limit} bytes allowed here"
    return problem(request, status=413, code="BodyTooLarge", detail=detail)


async def _caller_left(request: Request, error: Exception) -> JSONResponse:
    log.info("the caller left before the end of its request", error=repr(error))
    detail = "body: ended before the length that was declared"
    return problem(request, status=400, code="ClientDisconnected", detail=detail)


async def _not_storable(request: Request, error: Exception) -> JSONResponse:
    log.warning("the database refused a value", exc_info=error)
    detail = "a value in the request is of a form that the database cannot keep or compare"
    return problem(request, status=422, code="ValueNotStorable", detail=detail)


async def _database_gone(request: Request, error: Exception) -> JSONResponse:
    log.error("the database does not answer", exc_info=error)
    detail = "the database does not answer; nothing was changed, try again"
    return problem(request, status=503, code="DatabaseUnavailable", detail=detail)


async def _unknown(request: Request, error: Exception) -> JSONResponse:
    log.error("unexpected error", exc_info=error)
    detail = "an unexpected error, which is our fault; the log has it under this request_id"
    return problem(request, status=500, code="InternalError", detail=detail)


async def _no_room(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, OSError)
    if error.errno not in NO_ROOM:
        return await _unknown(request, error)
    log.error("no room", exc_info=error)
    detail = f"the server has no room for this now ({error.strerror}); nothing was changed"
    return problem(request, status=503, code="NoRoom", detail=detail)
