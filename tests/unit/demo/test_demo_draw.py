"""What is uploaded, labelled and held out never overlaps in the wrong way."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from core.demo.draw import Draw, draw_digits, draw_labelled
from core.demo.images import Sample, write_digits


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return write_digits(tmp_path_factory.mktemp("digits"))


def make_samples(folder: Path, *, labels: str, unlabelled: int = 0) -> list[Sample]:
    samples = []
    for index, label in enumerate([*labels, *[None] * unlabelled]):
        path = folder / f"{index}.png"
        path.write_text(f"content {index:05d}")
        samples.append(Sample(path.name, path, label))
    return samples


def names(samples: list[Sample]) -> set[str]:
    return {sample.name for sample in samples}


def assert_sound(draw: Draw) -> None:
    assert names(draw.training) <= names(draw.uploaded)
    assert not names(draw.held_out) & names(draw.uploaded)


def test_the_digits_are_split_the_same_whatever_the_seed(digits: list[Sample]) -> None:
    draws = [draw_digits(digits, per_class=5, seed=seed) for seed in range(3)]
    for draw in draws:
        assert_sound(draw)
        assert (len(draw.uploaded), len(draw.held_out)) == (1297, 500)
        assert set(Counter(sample.label for sample in draw.held_out).values()) == {50}
        assert set(Counter(sample.label for sample in draw.training).values()) == {5}
        assert names(draw.held_out) == names(draws[0].held_out)
    assert len({frozenset(names(draw.training)) for draw in draws}) == 3
    assert draw_digits(digits, per_class=5, seed=1) == draws[1]


def test_labelled_images_that_are_not_trained_on_are_held_out(tmp_path: Path) -> None:
    samples = make_samples(tmp_path, labels="a" * 10 + "b" * 4, unlabelled=30)
    draw = draw_labelled(samples, per_class=3, seed=0)
    assert_sound(draw)
    assert Counter(sample.label for sample in draw.training) == {"a": 3, "b": 3}
    assert Counter(sample.label for sample in draw.held_out) == {"a": 7, "b": 1}
    assert len(draw.uploaded) == 36
    assert draw.notes == ()
    assert draw_labelled(samples, per_class=3, seed=1).training != draw.training


def test_with_too_few_labels_nothing_is_held_out(tmp_path: Path) -> None:
    draw = draw_labelled(make_samples(tmp_path, labels="aabb"), per_class=5, seed=0)
    assert (len(draw.uploaded), len(draw.training), draw.held_out) == (4, 4, [])


def test_a_class_that_cannot_be_measured_is_told(tmp_path: Path) -> None:
    samples = make_samples(tmp_path, labels="aaaaab", unlabelled=9)
    draw = draw_labelled(samples, per_class=2, seed=0)
    assert any("no held-out image is left of: b" in note for note in draw.notes)


def test_no_more_than_half_is_held_out(tmp_path: Path) -> None:
    samples = make_samples(tmp_path, labels="a" * 60 + "b" * 40)
    draw = draw_labelled(samples, per_class=5, seed=0)
    assert_sound(draw)
    held_out = Counter(sample.label for sample in draw.held_out)
    assert 48 <= held_out.total() <= 50
    assert held_out["a"] == pytest.approx(held_out.total() * 55 / 90, abs=1)
    assert len(draw.uploaded) + held_out.total() == 100
    assert any("without their label" in note for note in draw.notes)


def test_copies_do_not_leak(tmp_path: Path) -> None:
    samples = make_samples(tmp_path, labels="aaabbb", unlabelled=20)
    draw = draw_labelled(samples, per_class=1, seed=0)
    trained, measured = draw.training[0], draw.held_out[0]
    free = [sample for sample in draw.uploaded if sample.label is None]
    free[0].path.write_bytes(measured.path.read_bytes())
    draw.held_out[1].path.write_bytes(trained.path.read_bytes())
    again = draw_labelled(samples, per_class=1, seed=0)
    assert_sound(again)
    assert again.training == draw.training
    assert names(draw.uploaded) - names(again.uploaded) == {free[0].name}
    assert names(draw.held_out) - names(again.held_out) == {draw.held_out[1].name}
    assert "2 copies of other images are left out" in again.notes
