"""What schemathesis makes up of the OpenAPI document; `make fuzz` is the long version of this."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.test_openapi import OPERATIONS
from tests.fuzz.runs import SHARES, fuzz
from tests.fuzz.service import Service, running_service

EXAMPLES = 3
SEED = 1


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("fuzz")) as running:
        yield running


@pytest.mark.parametrize("identity", SHARES)
def test_every_answer_is_a_documented_one(service: Service, identity: str, tmp_path: Path) -> None:
    run = fuzz(service, identity, examples=EXAMPLES, seed=SEED, folder=tmp_path / "run")
    assert run.failed == 0, run.shown
    assert run.operations == len(OPERATIONS)
    assert run.cases >= len(OPERATIONS)
