"""Imports that a worker carries out: from buckets, claimed and fenced, tried again."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, text, update
from sqlalchemy.orm import Session

from core.config import Settings
from core.db.direct import ImportOrder
from core.direct import orders
from core.errors import LeaseLost, StoreUnavailable
from core.storage.s3 import S3Address
from core.storage.s3.client import make_client
from tests.integration.api.direct_calls import BUCKET, NOISE, Direct, direct_calls
from tests.integration.api.problems import assert_problem, picture, pictures
from tests.unit.images.archive_samples import tar_of


@pytest.fixture(scope="module")
def direct(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Direct]:
    with direct_calls(settings, tmp_path_factory.mktemp("s3")) as calls:
        yield calls


def fill_bucket(direct: Direct, prefix: str, files: dict[str, bytes]) -> None:
    """As somebody else would, past the service."""
    bucket = make_client(S3Address.from_url(f"{direct.server.host}/{BUCKET}?secure=false"))
    for name, data in files.items():
        bucket.put_object(BUCKET, prefix + name, io.BytesIO(data), len(data))


def order(direct: Direct, dataset_id: str, bucket: str, prefix: str, **fields: str) -> Any:
    body = {"source": {"bucket": bucket, "prefix": prefix}, **fields}
    return direct.client.post(f"/datasets/{dataset_id}/imports", json=body)


def test_what_lies_in_a_bucket_is_imported(direct: Direct) -> None:
    files = {
        "day/1.png": picture(1),
        "day/2.png": picture(2),
        "day/again.png": picture(1),
        "day/.hidden.png": picture(3),
        "large.png": NOISE,
        "text.txt": b"text",
    }
    fill_bucket(direct, "first/", files)
    fill_bucket(direct, "second/", pictures(1))
    dataset_id = direct.dataset()
    answer = order(direct, dataset_id, BUCKET, "first/")
    assert answer.status_code == 202, answer.text
    direct.work(answer.json()["id"])
    told = direct.told(answer.json())
    assert told["state"] == "complete", told
    outcomes = [(line["file"], line["outcome"], line["code"]) for line in told["lines"]]
    assert outcomes == [
        ("day/1.png", "added", None),
        ("day/2.png", "added", None),
        ("day/again.png", "duplicate", "Duplicate"),
        ("large.png", "rejected", "ImageTooLarge"),
        ("text.txt", "rejected", "ImageInvalid"),
    ]
    # The bucket stays as it is.
    assert (direct.server.folder / BUCKET / "first/day/1.png").read_bytes() == picture(1)


def labels_of(direct: Direct, dataset_id: str) -> dict[str, str | None]:
    items = direct.client.get(f"/datasets/{dataset_id}/images").json()["items"]
    return {item["names"][0]: item["label"] for item in items}


def test_folders_below_a_prefix_are_labels(direct: Direct) -> None:
    files = {
        "bolt/1.png": picture(40),
        "a/bolt/2.png": picture(41),
        "nut/3.png": picture(42),
        "set/3.png": picture(42),
        "4.png": picture(43),
    }
    fill_bucket(direct, "classes/", files)
    dataset_id = direct.dataset()
    accepted = order(direct, dataset_id, BUCKET, "classes/", labels="folders").json()
    direct.work(accepted["id"])
    told = direct.told(accepted)
    assert (told["state"], told["added"]) == ("complete", 4)
    assert (told["labelled"], told["unlabelled"]) == (2, 1)
    assert [line["code"] for line in told["lines"] if line["outcome"] == "unlabelled"] == [
        "TwoClasses"
    ]
    expected = {"a/bolt/2.png": "bolt", "bolt/1.png": "bolt", "nut/3.png": None, "4.png": None}
    assert labels_of(direct, dataset_id) == expected
    history = direct.client.get(f"/datasets/{dataset_id}/labels/history").json()["items"]
    assert [change["to_label"] for change in history] == ["bolt", "bolt"]


def test_labels_by_folder_are_the_same_twice(
    direct: Direct, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_bucket(direct, "twice/", {"a/1.png": picture(50), "b/1.png": picture(50)})
    accepted = order(direct, direct.dataset(), BUCKET, "twice/", labels="folders").json()

    def away(session: Session, held: orders.Held, error: Any = None) -> None:
        raise LeaseLost("a worker that fell silent before it wrote the end")

    with monkeypatch.context() as patched:
        patched.setattr(orders, "end", away)
        direct.work(accepted["id"])
    assert direct.told(accepted)["unlabelled"] == 1
    with direct.sessions.begin() as session:
        late = update(ImportOrder).where(ImportOrder.import_id == UUID(accepted["id"]))
        session.execute(late.values(lease_expires_at=func.clock_timestamp()))
    with direct.sessions.begin() as session:
        orders.sweep(session, hints_waiting=0)
    direct.work(accepted["id"])
    told = direct.told(accepted)
    assert (told["state"], told["unlabelled"], len(told["lines"])) == ("complete", 1, 3)


def test_too_many_folders_fail_the_import_and_keep_its_images(direct: Direct) -> None:
    most = direct.place.settings.max_classes
    fill_bucket(direct, "many/", {f"{n}/a.png": picture(60 + n) for n in range(most + 1)})
    dataset_id = direct.dataset()
    accepted = order(direct, dataset_id, BUCKET, "many/", labels="folders").json()
    direct.work(accepted["id"])
    told = direct.told(accepted)
    assert (told["state"], told["error_code"]) == ("failed", "LabelsInvalid")
    assert f"{most + 1} images of this import were added" in told["error_detail"]
    assert set(labels_of(direct, dataset_id).values()) == {None}


def test_an_import_from_a_bucket_goes_on_behind_what_is_recorded(direct: Direct) -> None:
    fill_bucket(direct, "on/", pictures(5))
    accepted = order(direct, direct.dataset(), BUCKET, "on/").json()
    with direct.sessions.begin() as session:
        row = session.get_one(ImportOrder, UUID(accepted["id"]))
        row.last_file = "p2.png"
    direct.work(accepted["id"])
    assert [line["file"] for line in direct.told(accepted)["lines"]] == ["p3.png", "p4.png"]


@pytest.mark.parametrize("bucket", ["blobs", "unknown", "http://127.0.0.1/x", "../blobs", ""])
def test_other_buckets_are_not_read(direct: Direct, bucket: str) -> None:
    """Not even the server's own, though the settings name it: it has everybody's images."""
    answer = order(direct, direct.dataset(), bucket, "")
    said = "this server imports from: cameras, other" if bucket else "bucket"
    assert_problem(answer, 422, said)


def test_an_address_is_no_part_of_a_request(direct: Direct) -> None:
    source = {"bucket": BUCKET, "prefix": "", "endpoint": "127.0.0.1:1"}
    url = f"/datasets/{direct.dataset()}/imports"
    assert_problem(direct.client.post(url, json={"source": source}), 422, "endpoint")


def test_a_bucket_that_is_not_there_is_tried_again_then_told(direct: Direct) -> None:
    accepted = order(direct, direct.dataset(), "other", "").json()
    direct.work(accepted["id"])
    assert direct.told(accepted)["state"] == "queued"
    direct.work(accepted["id"])
    told = direct.told(accepted)
    assert (told["state"], told["error_code"]) == ("failed", StoreUnavailable.__name__)
    assert "NoSuchBucket" in told["error_detail"]


def test_orders_from_silent_workers_are_given_to_others(direct: Direct) -> None:
    accepted = direct.send(direct.dataset(), tar_of(pictures(2)))
    import_id = UUID(accepted["id"])
    with direct.sessions.begin() as session:
        held = orders.claim(session, import_id, lease_seconds=60)
        assert held is not None
        assert orders.claim(session, import_id, lease_seconds=60) is None
    for state in ("queued", "failed"):
        with direct.sessions.begin() as session:
            late = update(ImportOrder).values(lease_expires_at=text("now() - interval '1 second'"))
            session.execute(late.where(ImportOrder.import_id == import_id))
        with direct.sessions.begin() as session:
            assert orders.sweep(session, hints_waiting=100)[0] == 1
        assert direct.told(accepted)["state"] == state
        writes: list[Callable[[Session], None]] = [
            lambda session: orders.note(session, held, "x"),
            lambda session: orders.renew(session, held, lease_seconds=9),
            lambda session: orders.end(session, held),
            lambda session: orders.give_back(session, held, reason=None),
        ]
        for write in writes:
            with pytest.raises(LeaseLost), direct.sessions.begin() as session:
                write(session)
        with direct.sessions.begin() as session:
            orders.claim(session, import_id, lease_seconds=60)
    assert direct.told(accepted)["error_code"] == "ProcessDied"
    assert direct.sweep() == 1


def test_a_hint_that_was_lost_is_sent_again(direct: Direct) -> None:
    accepted = order(direct, direct.dataset(), BUCKET, "nothing/").json()
    with direct.sessions.begin() as session:
        session.execute(update(ImportOrder).values(hinted_at=None))
        assert orders.sweep(session, hints_waiting=0) == (0, 1)
        assert orders.sweep(session, hints_waiting=0) == (0, 0)
    direct.work(accepted["id"])
    told = direct.told(accepted)
    assert (told["state"], told["lines"]) == ("complete", [])
