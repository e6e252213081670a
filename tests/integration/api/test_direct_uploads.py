"""Archives that go straight to a real S3 server, in parts that the API never sees."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
import urllib3
from fastapi.testclient import TestClient
from sqlalchemy import text, update

from core.config import Settings
from core.db.direct import DirectUpload
from tests.faulty_line import faulty_line
from tests.integration.api.direct_calls import BUCKET, NOISE, PART, Direct, direct_calls
from tests.integration.api.problems import assert_problem, picture, pictures
from tests.unit.images.archive_samples import tar_of, zip_of


@pytest.fixture(scope="module")
def direct(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Direct]:
    with direct_calls(settings, tmp_path_factory.mktemp("s3")) as calls:
        yield calls


@pytest.mark.parametrize(
    ("pack", "media_type"), [(tar_of, "application/x-tar"), (zip_of, "application/zip")]
)
def test_an_archive_in_parts_is_imported_and_removed(
    direct: Direct, pack: Callable[..., bytes], media_type: str
) -> None:
    dataset_id = direct.dataset()
    data = pack({**pictures(4), "noise.png": NOISE, "text.txt": b"text", "again.png": picture(1)})
    digest = hashlib.sha256(data).hexdigest()
    accepted = direct.send(dataset_id, data, media_type=media_type, sha256=digest)
    assert accepted["state"] == "queued"
    assert direct.client.get(f"/datasets/{dataset_id}").json()["image_count"] == 0
    direct.work(accepted["id"])
    told = direct.told(accepted)
    assert told["state"] == "complete", told
    assert (told["added"], told["duplicates"], told["rejected"]) == (4, 1, 2)
    assert [line["number"] for line in told["lines"]] == list(range(7))
    assert direct.client.get(f"/datasets/{dataset_id}").json()["image_count"] == 4
    assert direct.incoming() == []
    direct.work(accepted["id"])  # a second hint
    assert direct.told(accepted) == told


def test_folders_of_an_archive_are_labels(direct: Direct) -> None:
    dataset_id = direct.dataset()
    files = {"bolt/1.png": picture(1), "nut/2.png": picture(2), "3.png": picture(3)}
    started = direct.announce(dataset_id, tar_of(files))
    tags = direct.put(started, tar_of(files))
    accepted = direct.complete(started, tags, labels="folders").json()
    direct.work(accepted["id"])
    told = direct.told(accepted)
    assert (told["state"], told["labelled"], told["unlabelled"]) == ("complete", 2, 0)
    found = direct.client.get(f"/datasets/{dataset_id}").json()["labels_per_class"]
    assert found == {"bolt": 1, "nut": 1}


def test_completing_twice_gives_the_same_import(direct: Direct) -> None:
    dataset_id = direct.dataset()
    started = direct.announce(dataset_id, tar_of(pictures(2)))
    assert len(started["urls"]) == 1
    tags = direct.put(started, tar_of(pictures(2)))
    first = direct.complete(started, tags).json()
    assert direct.complete(started, tags).json() == first
    url = f"/datasets/{dataset_id}/uploads/{started['id']}"
    assert_problem(direct.client.delete(url), 409, "it is complete")
    direct.work(first["id"])
    again = direct.complete(started, tags).json()
    assert (again["id"], again["state"], again["added"]) == (first["id"], "complete", 2)
    assert len(direct.client.get(f"/datasets/{dataset_id}/imports").json()["items"]) == 1


def test_an_upload_is_announced_once_under_one_idempotency_key(direct: Direct) -> None:
    url = f"/datasets/{direct.dataset()}/uploads"
    body = {"file": "a.tar", "bytes": 10, "media_type": "application/x-tar"}
    key = {"idempotency-key": str(uuid4())}
    first = direct.client.post(url, json=body, headers=key)
    again = direct.client.post(url, json=body, headers=key)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotent-replayed"] == "true"
    other = direct.client.post(url, json={**body, "bytes": 11}, headers=key)
    assert_problem(other, 422, "another path, query or body")
    assert direct.client.delete(f"{url}/{first.json()['id']}").is_success


def test_an_answer_that_was_lost_is_no_harm(direct: Direct) -> None:
    """The store has made the object, and the process died before it recorded that."""
    dataset_id, data = direct.dataset(), tar_of(pictures(2))
    started = direct.announce(dataset_id, data)
    tags = direct.put(started, data)
    with direct.sessions.begin() as session:
        row = session.get_one(DirectUpload, UUID(started["id"]))
    remote = direct.place.multipart_uploads()
    remote.complete(row.key, row.store_upload, tags, size=len(data))
    accepted = direct.complete(started, tags).json()
    direct.work(accepted["id"])
    assert direct.told(accepted)["added"] == 2


def test_parts_that_are_not_there_are_named(direct: Direct) -> None:
    data = tar_of({**pictures(2), "noise.png": NOISE})
    dataset_id = direct.dataset()
    started = direct.announce(dataset_id, data)
    url = started["urls"]
    odd = direct.announce(dataset_id, data)
    tags = direct.put(odd, data[:-1])
    assert_problem(direct.complete(odd, tags), 422, f"announced with {len(data)}")
    first = urllib3.request("PUT", url[0], body=data[:PART]).headers["etag"]
    last = hashlib.md5(data[PART:]).hexdigest()
    assert_problem(direct.complete(started, [first]), 422, "found 1; the upload has 2 parts")
    assert_problem(direct.complete(started, [first, last]), 422, "part 2 has not arrived")
    assert_problem(direct.complete(started, [last, last]), 422, "part 1, the object store has")
    assert urllib3.request("PUT", url[1], body=data[PART:]).status == 200
    accepted = direct.complete(started, [first, last]).json()
    direct.work(accepted["id"])
    assert direct.told(accepted)["added"] == 2
    url = f"/datasets/{dataset_id}/uploads/{odd['id']}"
    assert direct.client.delete(url).status_code == 204


def test_an_address_is_for_its_part_alone(direct: Direct) -> None:
    data = tar_of({**pictures(1), "noise.png": NOISE})
    started = direct.announce(direct.dataset(), data)
    other = started["urls"][0].replace("partNumber=1", "partNumber=2")
    assert other != started["urls"][0]
    assert urllib3.request("PUT", other, body=b"x").status == 403
    plain = started["urls"][0].partition("?")[0]
    assert urllib3.request("PUT", plain, body=b"x").status in {400, 403}
    url = f"/datasets/{started['dataset_id']}/uploads/{started['id']}"
    assert direct.client.delete(url).status_code == 204
    assert_problem(direct.client.delete(url), 404, "upload_id")
    assert urllib3.request("PUT", started["urls"][0], body=b"x").status == 404
    assert_problem(direct.complete(started, ["a", "b"]), 404, "upload_id")


def test_addresses_name_the_store_as_clients_reach_it(direct: Direct) -> None:
    with faulty_line(direct.server.port) as (port, faults):
        outside = f"http://127.0.0.1:{port}"
        settings = direct.place.settings.model_copy(update={"direct_url": outside})
        remote = replace(direct.place, settings=settings).multipart_uploads()
        key = f"incoming/{'1' * 64}"
        upload = remote.start(key, "application/zip")
        [url] = remote.addresses(key, upload, parts=1, hours=1)
        assert url.startswith(f"{outside}/blobs/{key}?")
        assert "X-Amz-Expires=3600" in url
        answer = urllib3.request("PUT", url, body=b"x")
        assert answer.status == 200
        deadline = time.monotonic() + 10
        while not faults.passed:  # counted behind the answer
            assert time.monotonic() < deadline, "it went past the line"
            time.sleep(0.01)
        remote.complete(key, upload, [answer.headers["etag"]], size=1)
    assert direct.place.blobs.get(key) == b"x"
    direct.place.blobs.delete(key)


@pytest.mark.parametrize(
    ("data", "fields", "code", "added"),
    [
        (tar_of(pictures(3)), {"sha256": "0" * 64}, "ChecksumWrong", 0),
        (b"neither" * 100, {}, "ArchiveInvalid", 0),
        (tar_of(pictures(3)).rstrip(b"\0")[:-10], {}, "ArchiveInvalid", 2),
        (tar_of(pictures(301)), {}, "TooManyImages", 0),
    ],
)
def test_an_import_that_cannot_be_says_why(
    direct: Direct, data: bytes, fields: dict[str, str], code: str, added: int
) -> None:
    accepted = direct.send(direct.dataset(), data, **fields)
    direct.work(accepted["id"])
    told = direct.told(accepted)
    assert (told["state"], told["error_code"]) == ("failed", code)
    assert told["added"] == added
    assert direct.incoming() == []


def test_limits(direct: Direct) -> None:
    dataset_id = direct.dataset()
    body = {"file": "a.zip", "bytes": 20_000_001, "media_type": "application/zip"}
    url = f"/datasets/{dataset_id}/uploads"
    assert_problem(direct.client.post(url, json=body), 413, "at most 20000000")
    body["bytes"] = 20_000_000
    started = [direct.announce(dataset_id, b"x" * 10) for _ in range(3)]
    refused = direct.client.post(url, json=body)
    assert_problem(refused, 429, "at most 3 are allowed")
    assert refused.headers["retry-after"] == "60"
    for one in started:
        assert direct.client.delete(f"{url}/{one['id']}").status_code == 204
    answer = direct.client.post(url, json=body)
    assert len(answer.json()["urls"]) == 4
    assert direct.client.delete(f"{url}/{answer.json()['id']}").status_code == 204


def test_what_is_abandoned_is_removed(direct: Direct) -> None:
    dataset_id, data = direct.dataset(), tar_of(pictures(2))
    left, kept, made = (direct.announce(dataset_id, data) for _ in range(3))
    for one in (left, kept, made):
        tags = direct.put(one, data)
    with direct.sessions.begin() as session:
        rows = [session.get_one(DirectUpload, UUID(one["id"])) for one in (left, made)]
        late = update(DirectUpload).where(DirectUpload.id.in_([row.id for row in rows]))
        session.execute(late.values(expires_at=text("now() - interval '1 second'")))
        key, upload = rows[1].key, rows[1].store_upload
    # Completed in the store, but nobody was told.
    direct.place.multipart_uploads().complete(key, upload, tags, size=len(data))
    assert direct.incoming() == [key]
    assert direct.sweep() == 2
    assert direct.sweep() == 0
    assert direct.incoming() == []
    assert urllib3.request("PUT", left["urls"][0], body=data).status == 404
    assert_problem(direct.complete(left, tags), 404, "upload_id")
    assert direct.complete(kept, tags).status_code == 202
    assert direct.client.delete(f"/datasets/{dataset_id}").status_code == 204
    assert len(direct.incoming()) == 1
    assert direct.sweep() == 1
    assert direct.incoming() == []
    with direct.sessions.begin() as session:
        assert session.query(DirectUpload).filter(DirectUpload.dataset_id.is_(None)).count() == 0


@pytest.mark.usefixtures("unchanged")
def test_a_folder_sends_callers_to_the_other_way(client: TestClient, dataset_id: str) -> None:
    body = {"file": "a.zip", "bytes": 10, "media_type": "application/zip"}
    answer = client.post(f"/datasets/{dataset_id}/uploads", json=body)
    problem = assert_problem(answer, 409, "POST /datasets/{dataset_id}/images")
    assert problem["type"].endswith("NoObjectStore")
    source = {"source": {"bucket": BUCKET, "prefix": ""}}
    answer = client.post(f"/datasets/{dataset_id}/imports", json=source)
    assert_problem(answer, 409, "POST /datasets/{dataset_id}/images")
