"""Hostile files and archives over HTTP: refused by name and code, what is sound beside is added."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from tests.integration.api.problems import assert_problem, picture
from tests.unit.images.archive_samples import tar_of
from tests.unit.images.hostile import archives, files, unreadable_archives

ARCHIVES, UNREADABLE = archives(), unreadable_archives()
SMALL = 100_000  # so that all of them fit into one upload


def test_all_in_one_upload_beside_sound_images(
    client: TestClient, add_dataset: Callable[..., str]
) -> None:
    hostile = {name: item for name, item in files().items() if len(item[0]) < SMALL}
    assert len(hostile) >= 200
    entries: dict[str, bytes] = {}
    for number, (name, (data, _)) in enumerate(hostile.items()):
        entries[name] = data
        if number % 5 == 0:
            entries[f"good {number}.png"] = picture(number)
    dataset_id = add_dataset()
    answer = client.post(f"/datasets/{dataset_id}/images", content=tar_of(entries))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["added"] == len(entries) - len(hostile)
    found = {line["file"]: (line["outcome"], line["code"]) for line in body["lines"]}
    assert found == {name: ("rejected", code) for name, (_, code) in hostile.items()}
    assert all(len(line["detail"]) > 10 for line in body["lines"])
    assert client.get(f"/datasets/{dataset_id}").json()["image_count"] == body["added"]


@pytest.mark.parametrize("name", ARCHIVES)
def test_what_is_bad_in_an_archive_is_refused_alone(
    client: TestClient, add_dataset: Callable[..., str], name: str
) -> None:
    archive, expected = ARCHIVES[name]
    answer = client.post(f"/datasets/{add_dataset()}/images", content=archive)
    assert answer.status_code == 200, answer.text
    assert answer.json()["added"] == 1
    assert {line["code"] for line in answer.json()["lines"]} == expected


@pytest.mark.parametrize("name", UNREADABLE)
def test_archive_is_refused(client: TestClient, add_dataset: Callable[..., str], name: str) -> None:
    """What came before the damage stays, and is told."""
    archive, code = UNREADABLE[name]
    dataset_id = add_dataset()
    answer = client.post(f"/datasets/{dataset_id}/images", content=archive)
    body = assert_problem(answer, 413 if code == "ArchiveTooLarge" else 422)
    assert body["type"].endswith(code)
    kept = client.get(f"/datasets/{dataset_id}").json()["image_count"]
    assert (f"{kept} images of this upload" if kept else "nothing was added") in body["detail"]
