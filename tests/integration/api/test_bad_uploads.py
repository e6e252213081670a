"""Bad files, archives and forms are refused in words and leave nothing behind."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.integration.api.problems import assert_problem, picture, pictures
from tests.unit.images.archive_samples import tar_of, zip_of
from tests.unit.images.image_samples import ihdr, png

GOOD = picture(1)


HUGE_HEADER = png(ihdr(50_000, 50_000, 8, 2), b"")


JSON = {"content-type": "application/json"}


REJECTED = {
    "empty": (b"", "ImageInvalid"),
    "truncated": (picture(2)[:60], "ImageInvalid"),
    "truncated jpeg": (picture(2, "JPEG")[:-200], "ImageInvalid"),
    "text named jpg": (b"hello, I am no picture", "ImageInvalid"),
    "huge header": (HUGE_HEADER, "ImageTooLarge"),
    "gif": (b"GIF89a" + bytes(40), "ImageInvalid"),
    "too many bytes": (GOOD + os.urandom(2_000_001), "ImageTooLarge"),
}


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("data", "code"), REJECTED.values(), ids=REJECTED)
def test_bad_file_is_a_line_of_the_report(
    client: TestClient, dataset_id: str, data: bytes, code: str
) -> None:
    answer = client.post(f"/datasets/{dataset_id}/images", files={"files": ("x.jpg", data)})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["added"], body["rejected"]) == (0, 1)
    (line,) = body["lines"]
    assert (line["file"], line["outcome"], line["code"]) == ("x.jpg", "rejected", code)
    assert len(line["detail"]) > 10


def bomb() -> bytes:
    return zip_of({"bomb.png": bytes(5_000_000)})


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("archive", "code"),
    [
        (bomb(), "decompression_bomb"),
        (zip_of({"../up.png": GOOD}), "unsafe_name"),
        (zip_of({"a/../../up.png": GOOD}), "unsafe_name"),
        (tar_of({"../up.png": GOOD}), "unsafe_name"),
        (tar_of({"/etc/x.png": GOOD}), "unsafe_name"),
        (zip_of({"text.jpg": b"text"}), "ImageInvalid"),
    ],
)
def test_bad_entry_is_a_line_of_the_report(
    client: TestClient, dataset_id: str, folder: Path, archive: bytes, code: str
) -> None:
    answer = client.post(f"/datasets/{dataset_id}/images", content=archive)
    assert answer.status_code == 200, answer.text
    assert [line["code"] for line in answer.json()["lines"]] == [code]
    assert not list((folder / "uploads").glob("*"))
    assert not (folder / "up.png").exists()


@pytest.mark.parametrize("name", ["a\0b.png", "\ud800.png", "é" * 1500 + ".png", "‮gnp.png", "\0"])
def test_odd_names_are_made_harmless(
    client: TestClient, add_dataset: Callable[..., str], name: str
) -> None:
    dataset_id = add_dataset()
    archive = io.BytesIO()
    style: Any = {"format": tarfile.GNU_FORMAT, "errors": "surrogatepass"}
    with tarfile.open(fileobj=archive, mode="w", **style) as tar:
        info = tarfile.TarInfo(name)
        info.size = len(GOOD)
        tar.addfile(info, io.BytesIO(GOOD))
    answer = client.post(f"/datasets/{dataset_id}/images", content=archive.getvalue())
    assert answer.status_code == 200, answer.text
    items = client.get(f"/datasets/{dataset_id}/images").json()["items"]
    assert len(items) == answer.json()["added"]
    for item in items:
        assert all("\0" not in stored and stored for stored in item["names"])


@pytest.mark.parametrize("charset", ["utf-8", "utf-7", "undefined", "idna", "rot13", "utf-16", "x"])
@pytest.mark.parametrize("name", [b"a\0b.png", b"+2AA-.png", b"\xff\xfe.png", b"", b"x" * 3000])
def test_odd_names_in_a_form(
    client: TestClient, add_dataset: Callable[..., str], name: bytes, charset: str
) -> None:
    dataset_id = add_dataset()
    body = (
        b'--B\r\nContent-Disposition: form-data; name="files"; filename="'
        + name
        + b'"\r\nContent-Type: image/png\r\n\r\n'
        + GOOD
        + b"\r\n--B--\r\n"
    )
    kind = {"content-type": f"multipart/form-data; boundary=B; charset={charset}"}
    answer = client.post(f"/datasets/{dataset_id}/images", content=body, headers=kind)
    if answer.status_code == 200:
        assert answer.json()["added"] == 1
        (item,) = client.get(f"/datasets/{dataset_id}/images").json()["items"]
        assert "\0" not in item["names"][0]
    else:
        assert_problem(answer, 400, "body|files")


def test_a_name_in_a_form_stays_inside(client: TestClient, dataset_id: str) -> None:
    files = [("files", ("../../etc/x.png", GOOD, "image/png"))]
    answer = client.post(f"/datasets/{dataset_id}/images", files=files).json()
    assert (answer["added"], answer["lines"][0]["code"]) == (0, "unsafe_name")


def test_long_incompressible_name_fits_the_index(
    client: TestClient, add_dataset: Callable[..., str]
) -> None:
    name = "".join(chr(0x4E00 + int.from_bytes(os.urandom(2)) % 20_000) for _ in range(1024))
    dataset = add_dataset({name: GOOD})
    assert client.get(f"/datasets/{dataset}").json()["image_count"] == 1


UPLOADS: dict[str, tuple[bytes, str, int, str]] = {
    "no body": (b"", "application/zip", 422, "archive|body"),
    "json": (b'{"files": []}', "application/json", 422, "archive|zip"),
    "text": (b"hello" * 400, "text/plain", 422, "zip"),
    "broken zip": (zip_of(pictures(3))[:-30], "application/zip", 422, "zip|archive"),
    "no boundary": (b"--B--", "multipart/form-data", 400, "boundary"),
    "no files": (
        b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--B--\r\n',
        "multipart/form-data; boundary=B",
        400,
        "files: the form has no file",
    ),
    "form cut": (
        b'--B\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\nabc',
        "multipart/form-data; boundary=B",
        400,
        "body",
    ),
    "form garbage": (b"\0" * 500, "multipart/form-data; boundary=B", 400, "multipart"),
    "too many files": (
        b"".join(
            b'--B\r\nContent-Disposition: form-data; name="f"; filename="%d"\r\n\r\nx\r\n' % n
            for n in range(41)
        )
        + b"--B--\r\n",
        "multipart/form-data; boundary=B",
        413,
        "40",
    ),
}


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("body", "kind", "status", "said"), UPLOADS.values(), ids=UPLOADS)
def test_bad_upload(
    client: TestClient, dataset_id: str, body: bytes, kind: str, status: int, said: str
) -> None:
    answer = client.post(
        f"/datasets/{dataset_id}/images", content=body, headers={"content-type": kind}
    )
    assert_problem(answer, status, said)


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_archive_that_is_good_at_first(
    client: TestClient, add_dataset: Callable[..., str], folder: Path, pack: Callable[..., bytes]
) -> None:
    """What a cut tar archive brought stays; a cut zip has lost its directory."""
    dataset_id, archive = add_dataset(), pack(pictures(90))
    url = f"/datasets/{dataset_id}/images"
    answer = client.post(url, content=archive[: len(archive) // 2 + 700])
    kept = client.get(f"/datasets/{dataset_id}").json()["image_count"]
    words = f"{kept} images .* added before" if pack is tar_of else "nothing was added"
    problem = assert_problem(answer, 422, words)
    assert (kept > 0) == (pack is tar_of)
    assert not list((folder / "uploads").glob("*"))
    (told,) = client.get(f"/datasets/{dataset_id}/imports").json()["items"]
    assert (told["state"], told["error_code"], told["added"]) == ("failed", "ArchiveInvalid", kept)
    assert told["id"] in problem["detail"]
    again = client.post(url, content=archive).json()
    assert (again["added"], again["duplicates"], again["rejected"]) == (90 - kept, kept, 0)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("method", "path", "limit"),
    [
        ("POST", "/datasets", 300_000),
        ("PUT", "/datasets/{}/labels", 300_000),
        ("POST", "/datasets/{}/images", 4_000_000),
        ("POST", "/embed", 16_000_000),
        ("POST", "/jobs", 300_000),
    ],
)
def test_body_over_the_limit(
    client: TestClient, dataset_id: str, method: str, path: str, limit: int, chunked: bool
) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(limit // 100_000 + 1):
            yield b" " * 100_000

    body: Any = pieces() if chunked else b" " * (limit + 1)
    answer = client.request(method, path.format(dataset_id), content=body, headers=JSON)
    assert_problem(answer, 413, "body", str(limit))


@pytest.mark.usefixtures("unchanged")
def test_form_over_the_limit(client: TestClient, dataset_id: str) -> None:
    files = [("files", (f"{n}", os.urandom(1_900_000))) for n in range(3)]
    answer = client.post(f"/datasets/{dataset_id}/images", files=files)
    assert_problem(answer, 413, "body", "4000000")


def test_dataset_over_its_limit(client: TestClient, add_dataset: Callable[..., str]) -> None:
    dataset_id = add_dataset(pictures(20))
    url = f"/datasets/{dataset_id}/images"
    answer = client.post(url, content=tar_of(pictures(301)))
    assert_problem(answer, 413, "300 images", "280 more", "nothing was added")
    assert client.get(f"/datasets/{dataset_id}").json()["image_count"] == 20
    assert client.post(url, content=tar_of(pictures(300))).json()["added"] == 280


def test_zip_with_lying_sizes(client: TestClient, add_dataset: Callable[..., str]) -> None:
    data = bytearray(zip_of({"a.png": GOOD}, zipfile.ZIP_STORED))
    place = data.rindex(b"PK\x01\x02")
    data[place + 24 : place + 28] = struct.pack("<I", 2**31)
    answer = client.post(f"/datasets/{add_dataset()}/images", content=bytes(data))
    if answer.status_code == 200:
        assert answer.json()["added"] in {0, 1}
    else:
        assert_problem(answer, 422)
    assert client.get("/datasets").status_code == 200
