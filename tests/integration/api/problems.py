"""What every refusal must look like, and pictures to send."""

from __future__ import annotations

import re
from typing import Any

from httpx2 import Response

from tests.unit.images.image_samples import encode, gradient


def picture(number: int, kind: str = "PNG") -> bytes:
    """A small image unlike those of other numbers."""
    image = gradient()
    image.putpixel((0, 0), (number % 256, number // 256, 7))
    return encode(image, kind)


def pictures(count: int) -> dict[str, bytes]:
    return {f"p{number}.png": picture(number) for number in range(count)}


def assert_problem(response: Response, status: int, *said: str) -> dict[str, Any]:
    """RFC 9457 with all its parts, these words in the detail, and nothing of our insides."""
    assert response.status_code == status, f"{response.status_code}: {response.text[:800]}"
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert re.fullmatch(r"urn:fewlabels:problem:[A-Z][A-Za-z]+", body["type"])
    assert re.fullmatch(r"[A-Z][a-z]*( [a-z]+)*", body["title"]), body["title"]
    assert body["request_id"] == response.headers["x-request-id"]
    assert len(response.content) < 100_000
    for words in ("Traceback", "psycopg", "sqlalchemy", "site-packages", 'File "'):
        assert words not in response.text
    for words in said:
        assert re.search(words, body["detail"], re.IGNORECASE), (words, body["detail"])
    return body
