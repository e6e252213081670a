"""Request bodies that name the fields there are when they get one that is not."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError
from pydantic_core.core_schema import ErrorType

UNKNOWN = "extra_forbidden"
KNOWN_KINDS = frozenset(get_args(ErrorType))


class StrictBody(BaseModel):
    """Refuses fields that it does not have, and says which it has."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="wrap")
    @classmethod
    def _name_the_fields(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(value)
        except ValidationError as error:
            faults = error.errors(include_url=False)
            if not any(_is_own(fault) for fault in faults):
                raise
            told = [cls._told(fault) for fault in faults]
            raise ValidationError.from_exception_data(error.title, told) from error

    @classmethod
    def _told(cls, fault: ErrorDetails) -> InitErrorDetails:
        kind: str | PydanticCustomError = fault["type"]
        if _is_own(fault):
            kind = PydanticCustomError(UNKNOWN, cls._words(str(fault["loc"][0])))
        elif kind not in KNOWN_KINDS:
            kind = PydanticCustomError(fault["type"], fault["msg"])
        return InitErrorDetails(
            type=kind, loc=fault["loc"], input=fault["input"], ctx=fault.get("ctx", {})
        )

    @classmethod
    def _words(cls, name: str) -> str:
        fields = sorted(field.alias or key for key, field in cls.model_fields.items())
        near = get_close_matches(name, fields, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        return f"there is no such field; {meant}allowed are {', '.join(fields)}"


def _is_own(fault: ErrorDetails) -> bool:
    return fault["type"] == UNKNOWN and len(fault["loc"]) == 1
