"""CUDA graphs answer as PyTorch does on the CPU, at every size of batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.learning.architecture import Architecture
from core.learning.preprocessing import Preprocessing
from core.learning.runtimes.cuda import cuda_graphs
from core.learning.runtimes.eager import eager
from core.learning.runtimes.run import difference

HALF = 1e-2  # what float16 costs


@pytest.mark.gpu
def test_graphs_answer_alike() -> None:
    torch.manual_seed(0)
    preprocessing = Preprocessing(image_size=32, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
    module = Architecture(encoder="resnet18", image_size=32, channels=3, class_count=4).build()
    images = np.random.default_rng(0).integers(0, 256, (19, 32, 32, 3), dtype=np.uint8)
    expected = eager(module.eval(), preprocessing)(images)
    run = cuda_graphs(module, preprocessing, device="cuda", most=8)
    for count in (1, 3, 8, 19):
        vectors, probabilities = expected
        assert probabilities is not None
        part = (vectors[:count], probabilities[:count])
        assert difference(part, run(images[:count])) < HALF
