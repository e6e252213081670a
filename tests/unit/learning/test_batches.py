"""Which rows make a batch."""

from __future__ import annotations

import pytest
import torch

from core.learning.batches import Shuffled, WithLabels


def test_every_image_once_an_epoch_in_another_order_each() -> None:
    batches = Shuffled(23, batch_size=5, seed=3)
    assert batches.steps_per_epoch == 4
    epochs = [torch.cat([batches.rows(4 * epoch + i) for i in range(4)]) for epoch in range(3)]
    assert all(len(torch.unique(rows)) == 20 for rows in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    assert torch.unique(torch.cat(epochs)).tolist() == list(range(23))


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    one, other = Shuffled(50, batch_size=8, seed=1), Shuffled(50, batch_size=8, seed=1)
    forwards = [one.rows(step) for step in range(20)]
    backwards = [other.rows(step) for step in reversed(range(20))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forwards, backwards, strict=True))
    assert not torch.equal(forwards[0], Shuffled(50, batch_size=8, seed=2).rows(0))


def test_fewer_images_than_a_batch() -> None:
    with pytest.raises(ValueError, match="batch_size: found 8, there are only 7 images"):
        Shuffled(7, batch_size=8, seed=0)


LABELLED = torch.tensor([3, 10, 40, 41, 60])


@pytest.mark.parametrize(("share", "places"), [(0.01, 1), (0.25, 4), (0.5, 8), (1.0, 16)])
def test_labelled_images_get_their_places(share: float, places: int) -> None:
    shuffled = Shuffled(64, batch_size=16, seed=0)
    mixed = WithLabels(shuffled, LABELLED, share=share, seed=0)
    assert mixed.steps_per_epoch == shuffled.steps_per_epoch
    for step in range(6):
        changed = mixed.rows(step)[mixed.places]
        assert len(changed) == places
        assert torch.isin(changed, LABELLED).all()
        kept = torch.ones(16, dtype=torch.bool)
        kept[mixed.places] = False
        assert torch.equal(mixed.rows(step)[kept], shuffled.rows(step)[kept])


def test_places_are_spread_over_the_processes() -> None:
    mixed = WithLabels(Shuffled(64, batch_size=16, seed=0), LABELLED, share=0.25, seed=0)
    assert [((mixed.places // 4) == rank).sum().item() for rank in range(4)] == [1, 1, 1, 1]


def test_labelled_images_take_turns() -> None:
    mixed = WithLabels(Shuffled(64, batch_size=16, seed=0), LABELLED, share=0.25, seed=0)
    drawn = torch.cat([mixed.rows(step)[mixed.places] for step in range(10)]).view(8, 5)
    assert all(turn.sort().values.tolist() == LABELLED.tolist() for turn in drawn)
    assert len({tuple(turn.tolist()) for turn in drawn}) > 1
    again = WithLabels(Shuffled(64, batch_size=16, seed=0), LABELLED, share=0.25, seed=0)
    assert torch.equal(again.rows(7), mixed.rows(7))


def test_shares_and_labels_that_make_no_sense() -> None:
    shuffled = Shuffled(64, batch_size=16, seed=0)
    for share in (0.0, 1.1):
        with pytest.raises(ValueError, match=f"label_share: found {share}"):
            WithLabels(shuffled, LABELLED, share=share, seed=0)
    with pytest.raises(ValueError, match="no training image has a label"):
        WithLabels(shuffled, LABELLED[:0], share=0.5, seed=0)
