"""The exported file in plain ONNX Runtime, by the lines of the documentation."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from sklearn.datasets import load_sample_images

from tests.tiny_models import CLASSES

PAGE = Path(__file__).parents[3] / "docs" / "export.md"
# Pillow and PyTorch resize to values of 0 to 255 that are at most one apart.
TOLERANCE = 2e-3


def test_ten_lines_of_the_page_give_the_answers_of_the_service(
    client: TestClient,
    add_model: Callable[..., UUID],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model_id = str(add_model(classes=CLASSES, seed=5, exported=True, head_std=1.0))
    (tmp_path / "model.onnx").write_bytes(
        client.get(f"/models/{model_id}/files/model.onnx").content
    )
    photo = turned_photo()
    (tmp_path / "photo.jpg").write_bytes(photo)
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 12
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(code, found)

    def ask(path: str) -> dict[str, Any]:
        answer = client.post(path, content=photo, headers={"content-type": "image/jpeg"})
        return dict(answer.json()["items"][0])

    embedded = ask(f"/embed?model={model_id}")
    predicted = ask(f"/predict?model={model_id}&top_k=3")
    np.testing.assert_allclose(found["embedding"], embedded["embedding"], atol=TOLERANCE)
    assert found["label"] == predicted["label"]
    by_name = {said["label"]: said["probability"] for said in predicted["predictions"]}
    for name, probability in zip(CLASSES, found["probabilities"][0], strict=True):
        assert probability == pytest.approx(by_name[name], abs=TOLERANCE)


def turned_photo() -> bytes:
    """A photograph that is not square and lies on its side, as its EXIF says."""
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(load_sample_images().images[1]).save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()
