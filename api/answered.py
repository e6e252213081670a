"""What models said, as bodies and headers."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from fastapi import Request, Response
from numpy.typing import NDArray

from api.asked import Asked, Sent
from api.schemas.inference import EmbedIn, PredictIn
from core.errors import FewlabelsError

if TYPE_CHECKING:
    from core.inference.engine import Answered
    from core.inference.model import Answer

NPY = "application/x-npy"
FAILED = "X-Fewlabels-Failed"


def vectors(request: Request, asked: Asked[EmbedIn], answered: Answered) -> Response:
    """Vectors as the caller wants them: JSON, or the rows of a NumPy file."""
    headers = {**told(answered), "Vary": "Accept"}
    if NPY in request.headers.get("accept", ""):
        failed = [n for n, r in enumerate(answered.results) if isinstance(r, FewlabelsError)]
        if failed:
            headers[FAILED] = ",".join(map(str, failed))
        return Response(_npy(answered), media_type=NPY, headers=headers)
    as_base64 = asked.body.encoding_format == "base64"
    items = [
        {**_item(index, sent, result), "embedding": None}
        if isinstance(result, FewlabelsError)
        else {**_item(index, sent), "embedding": encoded(result.embedding_D, as_base64=as_base64)}
        for index, (sent, result) in enumerate(zip(asked.sent, answered.results, strict=True))
    ]
    model = answered.model
    body = {"model_id": model.model_id, "dimension": model.dimension, "items": items}
    return _json(body, headers)


def classes(asked: Asked[PredictIn], answered: Answered) -> Response:
    """The likeliest classes of each image, or that the model is unsure."""
    items = []
    for index, (sent, result) in enumerate(zip(asked.sent, answered.results, strict=True)):
        if isinstance(result, FewlabelsError):
            said: dict[str, Any] = {"label": None, "unsure": False, "predictions": None}
            items.append({**_item(index, sent, result), **said})
            continue
        scored = _top(result, answered.model.classes, asked.body.top_k)
        unsure = scored[0]["probability"] < asked.body.min_confidence
        label = None if unsure else scored[0]["label"]
        items.append(
            {**_item(index, sent), "label": label, "unsure": unsure, "predictions": scored}
        )
    return _json({"model_id": answered.model.model_id, "items": items}, told(answered))


def told(answered: Answered) -> dict[str, str]:
    """Headers that say which model answered, and where the time went, in milliseconds."""
    timing = answered.timing
    steps = {"decode": timing.decode, "queue": timing.queue, "forward": timing.forward}
    spent = ", ".join(f"{name};dur={1000 * seconds:.2f}" for name, seconds in steps.items())
    return {"X-Fewlabels-Model": str(answered.model.model_id), "Server-Timing": spent}


def encoded(vector: NDArray[np.float32], *, as_base64: bool) -> str | NDArray[np.float32]:
    """A vector for JSON: base64 of little-endian float32, or numbers that orjson writes."""
    if as_base64:
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return np.ascontiguousarray(vector)


def raise_if_all_failed(sent: Sequence[Sent], results: Sequence[Answer | FewlabelsError]) -> None:
    """A request none of whose images has an answer is refused with what is wrong with each."""
    bad = [result for result in results if isinstance(result, FewlabelsError)]
    if len(bad) < len(results):
        return
    faults = [
        {"index": index, "name": one.name, "code": error.code, "detail": str(error)}
        for index, (one, error) in enumerate(zip(sent, bad, strict=True))
    ]
    which = "the image" if len(bad) == 1 else f"none of the {len(bad)} images"
    said = "cannot be used" if len(bad) == 1 else "can be used; the first"
    raise type(bad[0])(f"images: {which} {said}: {bad[0]}", problems=faults)


def _json(body: dict[str, Any], headers: dict[str, str]) -> Response:
    content = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, media_type="application/json", headers=headers)


def _npy(answered: Answered) -> bytes:
    """(N, D) float32; the rows of images without an answer are NaN."""
    nothing = np.full(answered.model.dimension, np.nan, dtype=np.float32)
    rows = np.stack(
        [nothing if isinstance(r, FewlabelsError) else r.embedding_D for r in answered.results]
    )
    file = io.BytesIO()
    np.save(file, rows.astype("<f4"), allow_pickle=False)
    return file.getvalue()


def _item(index: int, sent: Sent, error: FewlabelsError | None = None) -> dict[str, Any]:
    return {
        "index": index,
        "name": sent.name,
        "image_id": sent.image_id,
        "error": error and {"code": error.code, "detail": str(error)},
    }


def _top(answer: Answer, names: Sequence[str], count: int) -> list[dict[str, Any]]:
    probabilities, order = answer.probabilities_K, answer.order_K
    assert probabilities is not None
    assert order is not None
    best = order[:count].tolist()
    return [{"label": names[k], "probability": float(probabilities[k])} for k in best]
