"""Which image of a dataset is meant: by its id, its sha256, a file name, or several of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.db.arrays import rows_of
from core.db.models import Image, ImageName
from core.errors import LabelsInvalid
from core.images.recording import stored_name


@dataclass(frozen=True, slots=True)
class Reference:
    """How an image is named: in one way, or in several that must agree."""

    image_id: UUID | None = None
    sha256: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        if self.file is not None:
            return f"file {self.file!r}"
        return f"sha256 {self.sha256}" if self.image_id is None else f"image_id {self.image_id}"


def names_of(session: Session, dataset_id: UUID, sha256: str, *, most: int = 3) -> list[str]:
    """Some of the names that an image of the dataset goes by, in their order."""
    named = (
        select(ImageName.name)
        .join(Image, Image.id == ImageName.image_id)
        .where(Image.dataset_id == dataset_id, Image.sha256 == sha256)
    )
    return list(session.scalars(named.order_by(ImageName.name).limit(most)))


@dataclass(frozen=True, slots=True)
class FoundImages:
    """The images of a dataset that references name, by each of the ways."""

    by_id: set[UUID]
    by_sha256: dict[str, set[UUID]]
    by_name: dict[str, set[UUID]]

    def meant(self, reference: Reference) -> UUID:
        """The one image that is meant.

        Raises:
            LabelsInvalid: There is none, or more than one, or the ways name different ones.
        """
        ways: list[tuple[Reference, set[UUID]]] = []
        if reference.image_id is not None:
            known = {reference.image_id} & self.by_id
            ways.append((Reference(image_id=reference.image_id), known))
        if reference.sha256 is not None:
            known = self.by_sha256.get(reference.sha256, set())
            ways.append((Reference(sha256=reference.sha256), known))
        if reference.file is not None:
            ways.append((Reference(file=reference.file), self._named(reference.file)))
        for way, images in ways:
            if not images:
                raise LabelsInvalid(f"{way}: the dataset has no such image")
        common = set.intersection(*(images for _, images in ways))
        if not common:
            named = " and ".join(str(way) for way, _ in ways)
            raise LabelsInvalid(f"{named}: they name different images; one of them is enough")
        if len(common) > 1:
            raise LabelsInvalid(
                f"{reference}: {len(common)} images have this name; use image_id or sha256"
            )
        return next(iter(common))

    def _named(self, file: str) -> set[UUID]:
        spelt = (self.by_name[name] for name in spellings(file) if name in self.by_name)
        return next(spelt, set())


def find_images(
    session: Session, dataset_id: UUID, references: Collection[Reference]
) -> FoundImages:
    """Look up all that the references name, in a few statements."""
    ids = rows_of(id=("uuid", list({r.image_id for r in references} - {None})))
    hashes = rows_of(sha256=("text", list({r.sha256 for r in references} - {None})))
    names = {name for r in references if r.file is not None for name in spellings(r.file)}
    own = Image.dataset_id == dataset_id
    known = session.scalars(select(Image.id).where(own).join(ids, ids.c.id == Image.id))
    by_sha256 = session.execute(
        select(Image.sha256, Image.id).where(own).join(hashes, hashes.c.sha256 == Image.sha256)
    )
    return FoundImages(
        by_id=set(known),
        by_sha256={sha256: {image_id} for sha256, image_id in by_sha256},
        by_name=_resolve_names(session, dataset_id, names),
    )


def spellings(file: str) -> list[str]:
    """The names under which a file may be kept, the likeliest first."""
    # As it is listed; as an upload would keep it; without the blanks beside a comma of a CSV.
    trimmed = file.strip() or file
    return list(dict.fromkeys((file, stored_name(file), stored_name(trimmed))))


def _resolve_names(session: Session, dataset_id: UUID, names: set[str]) -> dict[str, set[UUID]]:
    """Images by the full name they were uploaded under, else by its last component."""
    exact = _look_up(session, dataset_id, names, ImageName.name)
    last_component = func.regexp_replace(ImageName.name, "^.*/", "")
    rest = {name for name in names - exact.keys() if "/" not in name}
    return exact | _look_up(session, dataset_id, rest, last_component)


def _look_up(
    session: Session, dataset_id: UUID, names: set[str], column: Any
) -> dict[str, set[UUID]]:
    found: dict[str, set[UUID]] = defaultdict(set)
    if names:
        asked = rows_of(name=("text", list(names)))
        statement = select(asked.c.name, ImageName.image_id).join(ImageName, asked.c.name == column)
        for name, image_id in session.execute(statement.where(ImageName.dataset_id == dataset_id)):
            found[name].add(image_id)
    return dict(found)
