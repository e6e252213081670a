"""docs/learning.md against the code: bodies, addresses, options, figures and pictures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from PIL import Image
from pydantic import BaseModel, TypeAdapter

from api.schemas.augmentations import PreviewQuery
from api.schemas.datasets import DatasetIn
from api.schemas.jobs import FinetuneJobIn, JobIn, PipelineJobIn
from api.schemas.stages import DistillOptions, FinetuneOptions, PretrainOptions
from core.jobs.plan import (
    DataFacts,
    Device,
    Parent,
    parent_of,
    plan_distill,
    plan_finetune,
    plan_pretrain,
)
from core.jobs.plan.network import augmentation_plan
from core.learning.augmentations import PRESETS
from core.learning.encoders import ENCODERS
from core.learning.evaluation import wilson_interval
from core.learning.losses import LOSSES, chance_loss

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "learning.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
SHELL = "\n".join(re.findall(r"^```bash\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
BODIES = re.findall(r"<<BODY\n(.*?)^BODY$", SHELL, re.MULTILINE | re.DOTALL)
ID = "3f2c8a52-6f0e-4a3e-9d8e-1f6f5b0c7d11"
DATA = DataFacts(
    images=2_000, labels_per_class={"a": 30, "b": 100}, greyscale=True, median_short_side=28
)
ENCODER = Parent("encoder", "resnet10", 32, 1, "small", has_projection=True)
CLASSIFIER = Parent("classifier", "resnet10", 32, 1, "small", classes=("a", "b"))


def body_of(text: str) -> dict[str, Any]:
    """What the shell would send."""
    loaded: dict[str, Any] = json.loads(re.sub(r"\$[A-Z]+", ID, text))
    return loaded


def rows(heading: str) -> list[list[str]]:
    """Cells of the table whose first row begins like this."""
    (table,) = re.findall(
        rf"^\| {re.escape(heading)} .*\n\|[-|]+\n((?:\|.*\n)+)", TEXT, re.MULTILINE
    )
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines()]


def named(cells: list[list[str]]) -> set[str]:
    """Names in `code` in the first column."""
    return {name for row in cells for name in re.findall(r"`(\w+)`", row[0])}


@pytest.mark.parametrize("text", BODIES)
def test_bodies_are_accepted(text: str) -> None:
    body = body_of(text)
    order: Any = TypeAdapter(JobIn).validate_python(body)
    if isinstance(order, PipelineJobIn):
        asked = {name: body.get(name, {}) for name in ("pretrain", "finetune", "distill")}
        pretrain = plan_pretrain(asked["pretrain"], DATA, "cpu")
        finetune = plan_finetune(asked["finetune"], DATA, "cpu", parent=parent_of(pretrain))
        assert plan_distill(asked["distill"], DATA, "cpu", parent=parent_of(finetune))
    elif order.stage == "pretrain":
        assert plan_pretrain(body, DATA, "cpu")
    elif order.stage == "finetune":
        assert plan_finetune(body, DATA, "cpu", parent=ENCODER)
    else:
        assert plan_distill(body, DATA, "cpu", parent=CLASSIFIER)


def test_there_is_a_body_for_each_stage() -> None:
    stages = [body_of(text)["stage"] for text in BODIES]
    assert {"pretrain", "finetune", "distill", "pipeline"} <= set(stages)
    assert SHELL.count("<<BODY") == len(BODIES)


def test_addresses_are_those_of_the_interface() -> None:
    paths = json.loads((Path(__file__).parent / "openapi.json").read_text())["paths"]
    known = {re.sub(r"\{\w+\}", "{}", path) for path in paths}
    addresses = re.findall(r'curl [^\n]*"\$API(/[^"]*)"', SHELL)
    assert len(addresses) == SHELL.count("curl ")
    for address in addresses:
        parts = urlsplit(address)
        assert re.sub(r"\$[A-Z]+", "{}", parts.path) in known, address
        if parts.query:
            assert parts.path.endswith("/augmentations"), address
            PreviewQuery.model_validate(dict(parse_qsl(parts.query)))


def test_the_dataset_is_accepted() -> None:
    (text,) = re.findall(r"/datasets\" -H \"\$JSON\" -d '(.*)'", SHELL)
    assert DatasetIn.model_validate_json(text).test_fraction > 0


@pytest.mark.parametrize("options", [PretrainOptions, FinetuneOptions, DistillOptions])
def test_every_option_is_explained(options: type[BaseModel]) -> None:
    explained = set(re.findall(r"`(\w+)`", TEXT))
    assert set(options.model_fields) - explained == set()


def test_no_option_is_made_up() -> None:
    parts = re.findall(
        r"^\| option \| what it means.*\n\|[-|]+\n((?:\|.*\n)+)", TEXT, flags=re.MULTILINE
    )
    offered = {*PretrainOptions.model_fields, *FinetuneJobIn.model_fields}
    offered |= set(DistillOptions.model_fields)
    first = [line.split(" | ")[0] for table in parts for line in table.splitlines()]
    assert {name for cell in first for name in re.findall(r"`(\w+)`", cell)} <= offered
    assert len(parts) == 4


def test_every_choice_is_explained() -> None:
    explained = set(re.findall(r"`(\w+)`", TEXT))
    assert {*ENCODERS, *LOSSES} - explained == set()
    assert named(rows("preset")) == set(PRESETS)
    methods = {"linear", "prototype", "full", "supcon", "auto"}
    assert named(rows("`method`")) == methods


@pytest.mark.parametrize(
    ("greyscale", "size", "preset"),
    [
        (False, 72, "photo"),
        (False, 64, "small"),
        (True, 40, "greyscale"),
        (True, 32, "document"),
    ],
)
def test_presets_that_auto_takes(greyscale: bool, size: int, preset: str) -> None:
    facts = DataFacts(images=500, labels_per_class={}, greyscale=greyscale, median_short_side=size)
    assert augmentation_plan({}, facts, size)["augmentation"] == preset
    (row,) = [row for row in rows("preset") if row[0] == f"`{preset}`"]
    assert ("grey" if greyscale else "colour") in row[3]
    assert "never" not in row[3]


def test_levels_of_chance() -> None:
    table = rows("batch_size")
    assert len(table) >= 4
    for batch, views, loss, level in table:
        found = chance_loss(views=int(views), batch_size=int(batch), loss=loss.strip("`"))
        assert float(level) == round(found, 3)


def test_the_interval_is_wilsons() -> None:
    assert [round(100 * end, 1) for end in wilson_interval(48, 50)] == [86.5, 98.9]
    assert "anything from 86.5 % to 98.9 %" in TEXT


def test_automatic_values_are_those_of_the_plan() -> None:
    many = DataFacts(images=5_000, labels_per_class={}, greyscale=True, median_short_side=32)
    steps = [
        plan_pretrain({}, DataFacts(images, {}, True, 32), "cpu")["steps"]
        for images in (1_297, 2_000, 40_000)
    ]
    assert [round(count, -2) for count in steps] == [500, 500, 2_000]
    assert plan_pretrain({}, DATA, "cpu")["batch_size"] == 128
    assert plan_pretrain({}, many, "cpu")["batch_size"] == 256
    assert plan_pretrain({"views": 8}, many, "cpu")["micro_batch_size"] is None
    assert plan_pretrain({"views": 16}, many, "cpu")["micro_batch_size"] is not None
    temperatures = [
        plan_pretrain({}, DataFacts(500, {}, grey, size), "cuda")["temperature"]
        for grey, size in ((True, 32), (False, 64), (False, 128))
    ]
    assert temperatures == [1.0, 0.5, 0.2]
    devices: list[tuple[Device, int, str]] = [
        ("cpu", 64, "resnet10"),
        ("cuda", 64, "resnet18"),
        ("cuda", 224, "resnet50"),
    ]
    for device, size, encoder in devices:
        plan = plan_pretrain({}, DataFacts(500, {}, False, size), device)
        assert plan["encoder"] == encoder


def test_pictures_are_small_and_used() -> None:
    files = list((ROOT / "docs" / "pictures").glob("*"))
    documents = TEXT + (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert len(files) >= 3
    for path in files:
        assert f"(pictures/{path.name})" in documents, path.name
        assert path.stat().st_size <= 150_000, path.name
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert 400 <= picture.width <= 1_200


def test_anchors_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    known = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    wanted = set(re.findall(r"\]\(#([^)]+)\)", TEXT))
    assert wanted - known == set()
