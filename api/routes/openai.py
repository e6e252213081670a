"""Embeddings in the shape of OpenAI's API, for applications that have its client."""

from __future__ import annotations

import base64
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError

from api.answered import told
from api.asked import check_count, from_base64, pixels_of
from api.auth import InferCaller
from api.errors import openai_refusal, responses
from api.guard import GuardedRoute
from api.presence import TimeoutMs, in_seconds, unless_gone
from api.schemas.openai import (
    OpenAIEmbedding,
    OpenAIEmbeddingsIn,
    OpenAIEmbeddingsOut,
    OpenAIUsage,
)
from core.config import Settings
from core.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    FewlabelsError,
    ImageInvalid,
    ModelNotFound,
    Overloaded,
    RequestInvalid,
    TooManyImages,
)

if TYPE_CHECKING:
    from core.inference.engine import Answered, Engine


class OpenAIRoute(GuardedRoute):
    """A route whose refusals also have the member `error` that OpenAI's clients read."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The guarded handler, its errors told in both forms."""
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handle(request)
            except (FewlabelsError, RequestValidationError) as error:
                return await openai_refusal(request, error)

        return answered


router = APIRouter(tags=["inference"], route_class=OpenAIRoute)


@router.post(
    "/v1/embeddings",
    responses=responses(
        ModelNotFound,
        ImageInvalid,
        TooManyImages,
        BodyTooLarge,
        Overloaded,
        DeadlineExceeded,
    ),
    summary="Vectors of images, for OpenAI's clients",
)
async def openai_embeddings(
    body: OpenAIEmbeddingsIn,
    request: Request,
    response: Response,
    caller: InferCaller,
    timeout_ms: TimeoutMs = None,
) -> OpenAIEmbeddingsOut:
    """As `/embed`, but one bad image refuses the request: the shape has no place for it."""
    settings: Settings = request.app.state.settings
    images = _images(body, settings)

    async def work() -> Answered:
        source = await request.app.state.lookup.source(caller, body.model)
        engine = cast("Engine", await request.app.state.engine)
        state = request.app.state
        loads = [partial(pixels_of, image, state.reader, state.store) for image in images]
        return await engine.answer(source, loads, seconds=in_seconds(timeout_ms))

    answered = await unless_gone(request, work())
    response.headers.update(told(answered))
    data = []
    for index, answer in enumerate(answered.results):
        if isinstance(answer, FewlabelsError):
            raise type(answer)(f"input.{index}: {answer}")
        vector = answer.embedding_D.astype("<f4")
        if body.dimensions not in (None, len(vector)):
            raise RequestInvalid(
                f"dimensions: found {body.dimensions}, the model has {len(vector)}"
            )
        as_base64 = body.encoding_format == "base64"
        embedding = base64.b64encode(vector.tobytes()).decode() if as_base64 else vector.tolist()
        data.append(OpenAIEmbedding(index=index, embedding=embedding))
    usage = OpenAIUsage(prompt_tokens=len(data), total_tokens=len(data))
    return OpenAIEmbeddingsOut(model=str(answered.model.model_id), data=data, usage=usage)


def _images(body: OpenAIEmbeddingsIn, settings: Settings) -> list[bytes | FewlabelsError]:
    given = [body.input] if isinstance(body.input, str) else body.input
    check_count(len(given), settings)
    for index, uri in enumerate(given):
        if not uri.startswith("data:"):
            raise RequestInvalid(
                f"input.{index}: found {uri[:40]!r}; a data: URI of an image is needed"
            )
    return [from_base64(uri, index) for index, uri in enumerate(given)]
