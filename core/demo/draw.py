"""Which images are uploaded, which of them get a label, and which are held out to measure on."""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.demo.images import Sample

DIGITS_HELD_OUT_PER_CLASS = 50
DIGITS_SPLIT_SEED = 0
MOST_HELD_OUT = 0.5
ByClass = dict[str, list[Sample]]


@dataclass(frozen=True, slots=True)
class Draw:
    """`training` are those of `uploaded` whose labels are sent; `held_out` are never uploaded."""

    uploaded: list[Sample]
    training: list[Sample]
    held_out: list[Sample]
    notes: tuple[str, ...] = ()


def draw_digits(samples: Sequence[Sample], *, per_class: int, seed: int) -> Draw:
    """50 of each digit are held out, always the same ones; the seed draws the labels."""
    shuffled = _shuffled_by_class(samples, DIGITS_SPLIT_SEED)
    held_out = _concatenated(part[:DIGITS_HELD_OUT_PER_CLASS] for part in shuffled.values())
    pool = _concatenated(part[DIGITS_HELD_OUT_PER_CLASS:] for part in shuffled.values())
    drawn = _shuffled_by_class(pool, seed)
    return Draw(pool, _concatenated(part[:per_class] for part in drawn.values()), held_out)


def draw_labelled(samples: Sequence[Sample], *, per_class: int, seed: int) -> Draw:
    """A few labels of each class to train on; the other labelled images are held out.

    No more than half of all images are held out: where more are labelled, the others are uploaded
    without their label. Copies of a held-out image are not uploaded, copies of a training image
    are not measured on.
    """
    drawn = _shuffled_by_class(samples, seed)
    training = _concatenated(part[:per_class] for part in drawn.values())
    left = {label: part[per_class:] for label, part in drawn.items()}
    chosen = _no_more_than(int(MOST_HELD_OUT * len(samples)), left)
    content = _content_of(samples)
    trained_on = {content[sample.path] for sample in training}
    held_out = [sample for sample in chosen if content[sample.path] not in trained_on]
    away = {sample.path for sample in chosen}
    hidden = {content[sample.path] for sample in held_out}
    uploaded = [s for s in samples if s.path not in away and content[s.path] not in hidden]
    copies = len(samples) - len(uploaded) - len(held_out)
    return Draw(uploaded, training, held_out, tuple(_notes(left, chosen, held_out, copies)))


def _notes(left: ByClass, chosen: list[Sample], held_out: list[Sample], copies: int) -> list[str]:
    notes = []
    if extra := sum(map(len, left.values())) - len(chosen):
        notes.append(f"{extra:,} labelled images are uploaded without their label")
    if copies:
        notes.append(f"{copies:,} copies of other images are left out")
    measured = Counter(sample.label for sample in held_out)
    missing = [label for label in left if not measured[label]]
    if missing and held_out:
        notes.append(f"no held-out image is left of: {', '.join(missing[:10])}")
    return notes


def _no_more_than(limit: int, left: ByClass) -> list[Sample]:
    total = sum(map(len, left.values()))
    if total <= limit:
        return _concatenated(left.values())
    return _concatenated(part[: len(part) * limit // total] for part in left.values())


def _shuffled_by_class(samples: Sequence[Sample], seed: int) -> ByClass:
    by_class: ByClass = defaultdict(list)
    for sample in samples:
        if sample.label is not None:
            by_class[sample.label].append(sample)
    generator = random.Random(seed)
    for label in sorted(by_class):
        generator.shuffle(by_class[label])
    return {label: by_class[label] for label in sorted(by_class)}


def _content_of(samples: Sequence[Sample]) -> dict[Path, str]:
    # Only files of the same size can be copies; the others need not be read for this.
    sizes = {sample.path: sample.path.stat().st_size for sample in samples}
    common = {size for size, count in Counter(sizes.values()).items() if count > 1}
    return {
        path: _sha256(path) if size in common else f"size {size}" for path, size in sizes.items()
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _concatenated(parts: Iterable[Sequence[Sample]]) -> list[Sample]:
    return [sample for part in parts for sample in part]
