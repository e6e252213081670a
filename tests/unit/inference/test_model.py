"""A model is its file: nothing of it is left from how it was built."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from core.learning.architecture import Architecture
from core.learning.checkpoint import load_weights, save_weights
from core.learning.encoders import ENCODERS


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_is_whole_without_weights_of_its_own(encoder: str, tmp_path: Path) -> None:
    architecture = Architecture(encoder=encoder, image_size=32, channels=3, class_count=3)
    built = architecture.build()
    save_weights(built, tmp_path / "w")
    with torch.device("meta"):
        module = architecture.build()
    load_weights(module, tmp_path / "w", mapped=True)
    expected = {**dict(built.named_parameters()), **dict(built.named_buffers())}
    found = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name
