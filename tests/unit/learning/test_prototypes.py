"""Class means against a slow reference."""

from __future__ import annotations

import torch

from core.learning.evaluation import accuracy
from core.learning.prototypes import SCALE, prototype_head
from tests.unit.learning.digits import random_features, rows_of_each


def cosines(x: torch.Tensor, y: torch.Tensor, query: torch.Tensor, classes: int) -> torch.Tensor:
    """Cosine of each query to each class's mean direction, seen from the centre; by loops."""
    members = [
        [row for row, target in zip(x, y, strict=True) if target == k] for k in range(classes)
    ]
    centre = sum(sum(rows) / len(rows) for rows in members) / classes
    result = torch.zeros(len(query), classes, dtype=x.dtype)
    for k, rows in enumerate(members):
        mean = sum((row - centre) / (row - centre).norm() for row in rows)
        for n, q in enumerate(query):
            result[n, k] = (q - centre) @ mean / ((q - centre).norm() * mean.norm())
    return result


def test_logits_are_cosines_times_scale_and_relative_length() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 6, generator=generator).double() + 3
    y = torch.tensor([0] * 7 + [1] * 3 + [2] * 2)
    query = torch.randn(5, 6, generator=generator).double() + 3
    head = prototype_head(x, y, class_count=3)
    centre = torch.stack([x[y == k].mean(0) for k in range(3)]).mean(0)
    length = (query - centre).norm(dim=1) / (x - centre).norm(dim=1).mean()
    wanted = SCALE * length[:, None] * cosines(x, y, query, 3)
    torch.testing.assert_close(head.logits(query), wanted.float(), atol=1e-4, rtol=1e-4)


def test_one_label_a_class_is_better_than_chance() -> None:
    x, y = random_features()
    rows, rest = rows_of_each(y, 1), rows_of_each(y, 50, start=1)
    head = prototype_head(x[rows], y[rows], class_count=10)
    assert accuracy(head.logits(x[rows]), y[rows]) == 1.0
    assert accuracy(head.logits(x[rest]), y[rest]) > 0.3


def test_more_labels_of_a_class_give_it_no_advantage() -> None:
    x, y = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 1])
    many, labels = x[[0] * 50 + [1]], torch.tensor([0] * 50 + [1])
    head, same = prototype_head(x, y, class_count=2), prototype_head(many, labels, class_count=2)
    torch.testing.assert_close(head.weight_KD, same.weight_KD)
    torch.testing.assert_close(head.bias_K, same.bias_K)


def test_an_absent_class_stays_at_the_centre() -> None:
    x, y = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 2])
    head = prototype_head(x, y, class_count=3)
    torch.testing.assert_close(head.logits(x)[:, 1], torch.zeros(2))
    assert head.logits(x).argmax(1).tolist() == [0, 2]
