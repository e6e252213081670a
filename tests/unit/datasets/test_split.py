"""The split: by content alone, for good, in the shares asked for; and its list there and back."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest

from core.datasets.snapshot import SnapshotItem, _serialise, load_items, snapshot_key, split_of
from core.storage.folder import FolderStore

HASHES = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(20_000)]


@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.2), (0.0, 0.5), (0.4, 0.5), (0, 0)])
def test_shares_are_right(validation: float, test: float) -> None:
    found: Counter[str] = Counter(
        split_of(h, validation_fraction=validation, test_fraction=test) for h in HASHES
    )
    # Four standard deviations of a binomial share of 20,000.
    for name, share in (("validation", validation), ("test", test)):
        assert found[name] / len(HASHES) == pytest.approx(
            share, abs=4 * (share * (1 - share) / len(HASHES)) ** 0.5
        )


def test_it_never_changes() -> None:
    """These were written down once: another outcome would move images of existing datasets."""
    kinds = "".join(split_of(h, validation_fraction=0.3, test_fraction=0.3)[0] for h in HASHES[:24])
    assert kinds == "tvvttttttttvtvtvttttttvt"


def test_more_validation_takes_nothing_from_the_test_split() -> None:
    for sha256 in HASHES[:2000]:
        before = split_of(sha256, validation_fraction=0.0, test_fraction=0.2)
        after = split_of(sha256, validation_fraction=0.3, test_fraction=0.2)
        assert (before == "test") == (after == "test")


def test_it_does_not_follow_the_plain_hash() -> None:
    chosen = [h for h in HASHES if h < "4"]
    tests = sum(split_of(h, validation_fraction=0, test_fraction=0.25) == "test" for h in chosen)
    assert 0.2 < tests / len(chosen) < 0.3


@pytest.mark.parametrize("label", ["bolt", "a\u2028b", "\x85", "a\nb\r\x1c", '"', "ü", None])
def test_list_there_and_back(tmp_path: Path, label: str | None) -> None:
    store = FolderStore(tmp_path)
    store.prepare()
    items = [SnapshotItem(h, label, "train") for h in HASHES[:3]]
    for listed in (items, []):
        content = _serialise(listed)
        digest = hashlib.sha256(content).hexdigest()
        store.put(snapshot_key(digest), content)
        assert load_items(store, digest) == listed
