"""What pydantic found wrong with a request, in words for the caller."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from typing import Any

SHOWN_CHARACTERS = 200
SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = SHORT.maxlong = SHOWN_CHARACTERS
UNION_BRANCH = re.compile(r"(constrained-)?(int|float|str)|literal\[.*\]")
WORDS = {"Extra inputs are not permitted": "there is no such field"}


def fault(entry: Mapping[str, Any]) -> dict[str, str]:
    """What pydantic found wrong: which field, and what is allowed and was found."""
    location = [str(part) for part in entry["loc"]]
    if entry["type"] == "json_invalid":
        reason = entry.get("ctx", {}).get("error", entry["msg"])
        # Of FastAPI the place is a part of the location, of pydantic it is in the words.
        place = f" at character {location[-1]}" if location[-1].isdecimal() else ""
        return {"field": "body", "detail": f"not JSON: {reason}{place}"}
    # Which branch of a union was tried is our affair: the user sent one field.
    location = [part for part in location if not UNION_BRANCH.fullmatch(part)]
    field = ".".join(location[1:] or location)
    shown = "" if entry["type"] == "missing" else f"; found {_shown(entry.get('input'))}"
    said = WORDS.get(entry["msg"], entry["msg"].removeprefix("Value error, "))
    return {"field": field, "detail": f"{said}{shown}"}


def _shown(value: object) -> str:
    text = SHORT.repr(value)  # repr would first write out a body of megabytes
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
