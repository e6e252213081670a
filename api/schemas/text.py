"""Text as the database can keep it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("has a NUL character, which no text may have")
    return text


WITHOUT_NUL = AfterValidator(_without_nul)
Text = Annotated[str, WITHOUT_NUL]
