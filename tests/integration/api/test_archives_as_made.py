"""Archives as tools make them, sent without a length: every file is accounted for."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator

import pytest
from fastapi.testclient import TestClient

from tests.integration.api.problems import picture

FILES = {f"Größe M{n % 2 + 8}/bild {n}.png": picture(n) for n in range(6)}
EMPTY = "Größe M8/leer.png"


class Pipe(io.RawIOBase):
    """What cannot seek: a zip archive that goes there has sizes behind its entries."""

    def __init__(self) -> None:
        super().__init__()
        self.written = io.BytesIO()

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        return self.written.write(data)  # type: ignore[arg-type]


def piped_zip() -> bytes:
    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**FILES, EMPTY: b""}.items():
            archive.writestr(name, data)
    assert pipe.written.getvalue()[6] & 8  # the flag for it
    return pipe.written.getvalue()


def zip_64() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in {**FILES, EMPTY: b""}.items():
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as entry:
                entry.write(data)
    return buffer.getvalue()


def tar_with_links() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in {**FILES, EMPTY: b""}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        for kind, target in (
            (tarfile.SYMTYPE, "/etc/passwd"),
            (tarfile.LNKTYPE, next(iter(FILES))),
        ):
            link = tarfile.TarInfo(f"Größe M8/link {kind.decode()}.png")
            link.type, link.linkname = kind, target
            archive.addfile(link)
    return buffer.getvalue()


ARCHIVES = {"piped zip": (piped_zip, 0), "zip64": (zip_64, 0), "tar.gz": (tar_with_links, 2)}


def pieces(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), 700):
        yield data[start : start + 700]


@pytest.mark.parametrize(("make", "links"), ARCHIVES.values(), ids=ARCHIVES)
def test_all_of_it_comes_in_once(
    client: TestClient, add_dataset: Callable[..., str], make: Callable[[], bytes], links: int
) -> None:
    dataset_id = add_dataset()
    path = f"/datasets/{dataset_id}/images?labels=folders"
    answer = client.post(path, content=pieces(make()))
    assert "content-length" not in answer.request.headers
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["added"], body["duplicates"], body["rejected"]) == (6, 0, 1 + links)
    codes = {line["file"]: line["code"] for line in body["lines"]}
    assert codes.pop(EMPTY) == "ImageInvalid"
    assert list(codes.values()) == ["not_a_file"] * links
    labels = client.get(f"/datasets/{dataset_id}").json()["labels_per_class"]
    assert labels == {"Größe M8": 3, "Größe M9": 3}
    again = client.post(path, content=pieces(make())).json()
    assert (again["added"], again["duplicates"]) == (0, 6)
