"""Bodies and formats that schemathesis cannot make up by itself; it loads this module."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from typing import Any
from uuid import UUID

import schemathesis
from hypothesis import strategies as st
from schemathesis.transport.serialization import Binary

from tests.integration.api.problems import picture

CSV = "text/csv"
WRONG_TYPES = [
    *("application/json", CSV, "application/zip", "multipart/form-data", "text/plain", "?", ""),
    *("application/json; charset=utf-16", "multipart/form-data; boundary=x; charset=rot13"),
]
PICTURES = [picture(number, kind) for number, kind in enumerate(("PNG", "JPEG", "WEBP", "GIF"))]
NAMES = st.one_of(st.sampled_from(["a.png", "bolt/b.png", "../c.png", "/d"]), st.text(max_size=30))
CELLS = st.one_of(
    st.sampled_from(["file", "label", "split", "sha256", "image_id", "p0.png", "bolt", "train"]),
    st.text(max_size=12),
)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """An image, a damaged image, or anything."""
    whole = draw(st.one_of(st.sampled_from(PICTURES), st.binary(max_size=200)))
    return whole if draw(st.booleans()) else whole[: draw(st.integers(0, len(whole)))]


@st.composite
def zips(draw: st.DrawFn) -> bytes:
    """A zip archive of a few files, sometimes cut."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", draw(st.sampled_from([0, 8]))) as archive:
        for name in draw(st.lists(NAMES, max_size=4, unique=True)):
            archive.writestr(zipfile.ZipInfo(name), draw(files()))
    return _perhaps_cut(draw, made.getvalue())


@st.composite
def tars(draw: st.DrawFn) -> bytes:
    """A tar archive of a few files, compressed or not, sometimes cut."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=draw(st.sampled_from(["w", "w:gz"]))) as archive:
        for name in draw(st.lists(NAMES, max_size=4, unique=True)):
            data = draw(files())
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return _perhaps_cut(draw, made.getvalue())


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """Lines of CSV: labels that may be set, and such that may not."""
    head = draw(st.sampled_from(["file,label", "sha256,label,split", "image_id,split", ""]))
    rows = draw(st.lists(st.lists(CELLS, max_size=4).map(",".join), max_size=5))
    text = draw(st.sampled_from(["\n", "\r\n"])).join(filter(None, [head, *rows]))
    return _perhaps_cut(draw, text.encode("utf-8", "surrogatepass"))


def _perhaps_cut(draw: st.DrawFn, whole: bytes) -> bytes:
    return whole[: draw(st.integers(0, len(whole)))] if draw(st.integers(0, 4)) == 0 else whole


@schemathesis.serializer(CSV)
def _as_it_is(_: schemathesis.SerializationContext, value: object) -> bytes:
    """Examples are text, and what does not fit the schema is anything."""
    return value if isinstance(value, bytes) else str(value).encode()


@schemathesis.hook
def flatmap_case(
    _: schemathesis.HookContext, case: schemathesis.Case[Any]
) -> st.SearchStrategy[Any]:
    """CSV that is some, in place of any text; and now and then a body that is not what it says."""
    if case.media_type is None:
        return st.just(case)
    _name_what_exists(case)
    told = st.sampled_from([None] * 7 + WRONG_TYPES)
    # A strategy for a media type would be in the way of the example that the document has for it.
    bodies = tables() if case.media_type == CSV else st.just(case.body)
    return st.builds(_sent, st.just(case), bodies, told)


def _name_what_exists(case: schemathesis.Case[Any]) -> None:
    # The dictionaries of the configuration do not reach into the alternatives of a job.
    if case.path == "/jobs" and isinstance(case.body, dict) and _is_id(case.body.get("dataset_id")):
        case.body["dataset_id"] = os.environ["FUZZ_DATASET_ID"]


def _is_id(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(UUID(value))
    except ValueError:
        return False


def _sent(
    case: schemathesis.Case[Any], body: Any, media_type: str | None
) -> schemathesis.Case[Any]:
    if body is not case.body:  # one that is set is judged anew, and bytes then are no string
        case.body = body
    if media_type is not None:
        case.headers["Content-Type"] = media_type
    return case


schemathesis.openapi.format("binary", files().map(Binary))
schemathesis.openapi.media_type("application/zip", zips())
schemathesis.openapi.media_type("application/x-tar", tars())
