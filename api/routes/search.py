"""The nearest images; vectors to take away; evaluations and what jobs found out about a model."""

from __future__ import annotations

import csv
import io
from functools import partial
from typing import IO, TYPE_CHECKING, Annotated, Literal, cast
from uuid import UUID

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from api.asked import pixels_of
from api.auth import InferCaller, ReadCaller, WriteCaller
from api.dependencies import SessionDep, SettingsDep, StoreDep
from api.downloads import attachment
from api.errors import responses
from api.guard import GuardedRoute
from api.lookup import Lookup
from api.presence import unless_gone
from api.questions import SEARCH_BODY, question_of
from api.routes.jobs import _out
from api.schemas.jobs import JobOut
from api.schemas.search import EvaluateIn, NeighbourOut, ReportOut, SearchIn, SearchOut
from core.auth import Caller
from core.datasets.service import get_dataset, get_image
from core.db.vectors import Report
from core.errors import (
    BodyTooLarge,
    DatasetNotFound,
    DeadlineExceeded,
    FewlabelsError,
    ImageInvalid,
    ImageNotFound,
    ModelNotFound,
    NotEmbedded,
    NotEnoughLabels,
    NotIndexed,
    Overloaded,
    SpecInvalid,
    TooManyImages,
    TooManyJobs,
    VectorInvalid,
    WrongModelKind,
)
from core.jobs.reports import list_reports
from core.jobs.submission import submit
from core.registry.service import get_model
from core.search import stored
from core.search.nearest import Found, Question, find_nearest
from core.search.stored import VectorSet

if TYPE_CHECKING:
    from core.inference.engine import Engine
    from core.registry.artifact import ModelSource

searches = APIRouter(tags=["inference"], route_class=GuardedRoute)
router = APIRouter(tags=["models"], route_class=GuardedRoute)
OfDataset = Annotated[UUID, Query(description="The dataset whose vectors are meant.")]


@searches.post(
    "/search",
    responses=responses(
        ModelNotFound,
        DatasetNotFound,
        ImageNotFound,
        NotEmbedded,
        NotIndexed,
        VectorInvalid,
        ImageInvalid,
        TooManyImages,
        BodyTooLarge,
        Overloaded,
        DeadlineExceeded,
    ),
    openapi_extra=SEARCH_BODY,
    summary="The nearest images to an image or a vector",
)
async def search(request: Request, caller: InferCaller) -> SearchOut:
    """By cosine distance, among the vectors that embed jobs have stored."""
    body, data = await question_of(request)
    lookup: Lookup = request.app.state.lookup
    source = await lookup.source(caller, body.model)
    vector = None
    if data is not None:
        vector = await _vector_of_upload(request, source, data)
    elif body.vector is not None:
        vector = np.array(body.vector, dtype=np.float64)
    found = await run_in_threadpool(_find, request, caller, source.model_id, body, vector)
    items = [NeighbourOut.model_validate(item, from_attributes=True) for item in found.neighbours]
    return SearchOut(model_id=source.model_id, method=found.method, items=items)


async def _vector_of_upload(
    request: Request, source: ModelSource, data: bytes | FewlabelsError
) -> NDArray[np.float32]:
    engine = cast("Engine", await request.app.state.engine)
    load = partial(pixels_of, data, request.app.state.reader, request.app.state.store)
    [answer] = (await unless_gone(request, engine.answer(source, [load]))).results
    if isinstance(answer, FewlabelsError):
        raise type(answer)(f"image: {answer}")
    return answer.embedding_D


def _find(
    request: Request,
    caller: Caller,
    model_id: UUID,
    body: SearchIn,
    vector: NDArray[np.floating] | None,
) -> Found:
    with request.app.state.sessions.begin() as session:
        if body.dataset_id is not None:
            get_dataset(session, caller, body.dataset_id)
        if vector is None:
            vector = _vector_of_stored(session, caller, model_id, cast(UUID, body.image_id))
        question = Question(
            vectors=VectorSet(model_id, body.dataset_id),
            vector=vector,
            labels=body.labels,
            without=body.image_id,
            limit=body.limit,
            method=body.method,
            ef_search=body.ef_search,
        )
        return find_nearest(session, question)


def _vector_of_stored(
    session: Session, caller: Caller, model_id: UUID, image_id: UUID
) -> NDArray[np.float16]:
    image = get_image(session, caller, image_id)
    vector = stored.vector_of(session, model_id, image.id)
    if vector is None:
        raise NotEmbedded(
            f"image_id: no vector of model {model_id} is stored for image {image_id}; run an embed "
            f"job on dataset {image.dataset_id}"
        )
    return vector


@router.get(
    "/models/{model_id}/embeddings.npy",
    response_class=Response,
    responses=responses(ModelNotFound, DatasetNotFound, NotEmbedded),
    summary="The stored vectors of a dataset, for numpy.load",
)
def get_vectors(
    model_id: UUID,
    dataset_id: OfDataset,
    session: SessionDep,
    caller: ReadCaller,
    settings: SettingsDep,
    dtype: Literal["float32", "float16"] = "float32",
) -> Response:
    """Rows in the order of the image ids; `embeddings.csv` with the same ETag names them."""
    vectors, length, digest = _owned(session, caller, model_id, dataset_id)
    kind = np.dtype(dtype).newbyteorder("<")
    shape = (stored.count_vectors(session, vectors), length)

    def write(file: IO[bytes]) -> None:
        header = {"descr": kind.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for block in stored.read_vectors(session, vectors):
            file.write(block.astype(kind).tobytes())

    folder, name = settings.data_dir / "downloads", "embeddings.npy"
    answer = attachment(write, name=name, media_type="application/x-npy", folder=folder)
    answer.headers["ETag"] = f'"{digest}"'
    return answer


@router.get(
    "/models/{model_id}/embeddings.csv",
    response_class=Response,
    responses=responses(ModelNotFound, DatasetNotFound, NotEmbedded),
    summary="Which images the rows of embeddings.npy are of",
)
def get_vector_rows(
    model_id: UUID,
    dataset_id: OfDataset,
    session: SessionDep,
    caller: ReadCaller,
    settings: SettingsDep,
) -> Response:
    """Columns row, image_id, sha256, file, label; the same order, and the same ETag."""
    vectors, _, digest = _owned(session, caller, model_id, dataset_id)

    def write(file: IO[bytes]) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        lines = csv.writer(text)
        lines.writerow(["row", "image_id", "sha256", "file", "label"])
        for number, row in enumerate(stored.read_rows(session, vectors)):
            lines.writerow([number, row.image_id, row.sha256, row.name or "", row.label or ""])
        text.detach()

    folder, name = settings.data_dir / "downloads", "embeddings.csv"
    answer = attachment(write, name=name, media_type="text/csv; charset=utf-8", folder=folder)
    answer.headers["ETag"] = f'"{digest}"'
    return answer


def _owned(
    session: Session, caller: Caller, model_id: UUID, dataset_id: UUID
) -> tuple[VectorSet, int, str]:
    # One view of the data for the header, the rows and the ETag.
    session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
    model = get_model(session, caller, model_id)
    vectors = VectorSet(model.id, get_dataset(session, caller, dataset_id).id)
    length = stored.dimension_of(session, vectors)
    if length is None:
        raise NotEmbedded(
            f"dataset_id: no vectors of model {model_id} are stored for dataset {dataset_id}; run "
            "an embed job first"
        )
    return vectors, length, stored.order_digest(session, vectors)


@router.post(
    "/models/{model_id}/evaluate",
    status_code=202,
    responses=responses(
        ModelNotFound,
        DatasetNotFound,
        WrongModelKind,
        NotEnoughLabels,
        SpecInvalid,
        TooManyJobs,
        BodyTooLarge,
    ),
    summary="Evaluate a classifier on a labelled dataset, as a job",
)
def evaluate(
    model_id: UUID,
    body: EvaluateIn,
    session: SessionDep,
    caller: WriteCaller,
    store: StoreDep,
    settings: SettingsDep,
    response: Response,
) -> JobOut:
    """The job's `result` has accuracy with interval, confusion matrix, figures by class, ECE."""
    get_model(session, caller, model_id)
    spec = {"stage": "evaluate", "model_id": str(model_id), **body.model_dump(mode="json")}
    [job] = submit(session, caller, spec, store=store, settings=settings)
    response.headers["Location"] = f"/jobs/{job.id}"
    session.expire_all()
    return _out(session, job)


@router.get(
    "/models/{model_id}/reports",
    response_model=list[ReportOut],
    responses=responses(ModelNotFound),
    summary="What embed and evaluate jobs found out, the newest hundred",
)
def get_reports(
    model_id: UUID,
    session: SessionDep,
    caller: ReadCaller,
    stage: Literal["embed", "evaluate"] | None = None,
) -> list[Report]:
    return list_reports(session, get_model(session, caller, model_id), stage=stage)
