"""Fields that a body does not have are refused with the names of those it has."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, TypeAdapter, ValidationError, field_validator

from api.schemas.strict import StrictBody


class Circle(StrictBody):
    kind: Literal["circle"]
    radius: Annotated[int, Field(ge=1)] = 1
    colour: str = "red"

    @field_validator("colour")
    @classmethod
    def _is_a_colour(cls, value: str) -> str:
        if value != "red":
            raise ValueError("only {red} is left")
        return value


class Square(StrictBody):
    kind: Literal["square"]
    side: int = 1


SHAPE: TypeAdapter[Any] = TypeAdapter(
    dict[str, Annotated[Circle | Square, Field(discriminator="kind")]]
)


def faults_of(shape: dict[str, Any]) -> list[tuple[tuple[str | int, ...], str]]:
    with pytest.raises(ValidationError) as caught:
        SHAPE.validate_python({"shape": shape})
    return [(fault["loc"], fault["msg"]) for fault in caught.value.errors()]


def test_a_near_name_is_proposed_where_it_stands() -> None:
    [(place, words)] = faults_of({"kind": "circle", "radios": 2})
    assert place == ("shape", "circle", "radios")
    assert words == (
        "there is no such field; did you mean radius? allowed are colour, kind, radius"
    )


def test_a_far_name_gets_the_list_of_its_own_kind() -> None:
    [(_, words)] = faults_of({"kind": "square", "zzz{x}": 2})
    assert words == "there is no such field; allowed are kind, side"


def test_other_faults_of_the_same_body_are_told_too() -> None:
    found = dict(faults_of({"kind": "circle", "radius": 0, "colour": "blue", "x": 1}))
    assert found["shape", "circle", "radius"] == "Input should be greater than or equal to 1"
    assert "only {red} is left" in found["shape", "circle", "colour"]
    assert "allowed are" in found["shape", "circle", "x"]


def test_what_is_right_is_taken() -> None:
    assert SHAPE.validate_python({"shape": {"kind": "circle"}})["shape"].radius == 1
