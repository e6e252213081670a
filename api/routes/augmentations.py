"""The picture of what training does to the images of a dataset."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from api.auth import ReadCaller
from api.dependencies import SettingsDep, StoreDep
from api.errors import responses
from api.guard import GuardedRoute
from api.schemas.augmentations import PreviewQuery
from core.errors import (
    DatasetNotFound,
    ImageInvalid,
    ImageTooLarge,
    NotEnoughImages,
    Overloaded,
    SpecInvalid,
)
from core.images.decoding import Pixels
from core.images.reader import ImageReader
from core.images.recording import image_key
from core.jobs.previews import LARGEST_IMAGES, PreviewLimits, PreviewPlan, plan_preview
from core.storage.store import BlobStore

router = APIRouter(tags=["datasets"], route_class=GuardedRoute)

ERRORS = (DatasetNotFound, NotEnoughImages, SpecInvalid, Overloaded, ImageInvalid, ImageTooLarge)
PICTURE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One row an image: first as the network gets it, then its views.",
        "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
        "headers": {
            "X-Fewlabels-Plan": {
                "description": "What `auto` became, as JSON.",
                "schema": {"type": "string"},
                "example": '{"image_size": 32, "channels": 3, "augmentation": "small", '
                '"augmentation_strength": 1.0}',
            }
        },
    }
}


@router.get(
    "/datasets/{dataset_id}/augmentations",
    response_class=Response,
    responses={**PICTURE, **responses(*ERRORS)},
    summary="A picture of what training does to the images",
)
def draw_augmentations(
    dataset_id: UUID,
    asked: Annotated[PreviewQuery, Query()],
    request: Request,
    caller: ReadCaller,
    store: StoreDep,
    settings: SettingsDep,
) -> Response:
    """Look before you train: is what makes an image what it is still to be seen in its views?

    Each row shows a training image and random views of it, made by the code that training uses.
    Where two classes look alike in the views (a mirrored b is a d), take another preset or a
    lower strength: `/datasets/{id}/augmentations?augmentation=document&strength=0.5`.
    """
    options = {
        "image_size": asked.image_size,
        "augmentation": asked.augmentation,
        "augmentation_strength": asked.strength,
    }
    limits = PreviewLimits(
        images=asked.n, views=asked.views, pixels=LARGEST_IMAGES * settings.max_image_pixels
    )
    # A transaction of its own: no connection is held while the picture is drawn.
    with request.app.state.sessions.begin() as session:
        plan = plan_preview(
            session, caller, dataset_id, options, limits=limits, device=settings.planning_device
        )
    reader: ImageReader = request.app.state.reader
    loads = [partial(_pixels, store, reader, sha256) for sha256 in plan.sha256s]
    picture = _drawn(plan, asked, loads)
    resolved = {name: value for name, value in asdict(plan).items() if name != "sha256s"}
    headers = {"Cache-Control": "private, no-cache", "X-Fewlabels-Plan": json.dumps(resolved)}
    return Response(picture, media_type="image/png", headers=headers)


def _drawn(plan: PreviewPlan, asked: PreviewQuery, loads: Sequence[Callable[[], Pixels]]) -> bytes:
    # By name and here: importing this module must not load PyTorch.
    previews = importlib.import_module("core.inference.previews")
    wanted = previews.Asked(
        image_size=plan.image_size,
        channels=plan.channels,
        augmentation=plan.augmentation,
        strength=plan.augmentation_strength,
        views=asked.views,
        seed=asked.seed,
    )
    picture: bytes = previews.draw_views(loads, wanted)
    return picture


def _pixels(store: BlobStore, reader: ImageReader, sha256: str) -> Pixels:
    # Refused only where limits are narrower than when the image was uploaded.
    return reader.read(store.get(image_key(sha256)))
