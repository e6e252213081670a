"""From labels to a classifier: what is chosen, on which labels, and what is said about it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from core.learning.determinism import seed_everything
from core.learning.encoders import Encoder
from core.learning.evaluation import Score, accuracy, features, predict_logits
from core.learning.finetuning import FinetuneConfig, Finetuned, finetune
from core.learning.heads import ProjectionHead
from core.learning.logistic import choose_l2, fit_logistic
from core.learning.preprocessing import Preprocessing
from core.learning.run import Run
from tests.unit.learning.digits import (
    Canvases,
    Targets,
    canvases,
    of_each,
    preprocessing_of,
    random_encoder,
)

HEAD = FinetuneConfig(method="auto", layer="auto")
NETWORK = FinetuneConfig(method="full", epochs=2)
Drawn = tuple[Canvases, Targets]


@pytest.fixture(scope="module")
def digits() -> Drawn:
    return canvases()


@pytest.fixture(scope="module")
def preprocessing(digits: Drawn) -> Preprocessing:
    return preprocessing_of(digits[0])


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return random_encoder()


@pytest.fixture(scope="module")
def projection() -> ProjectionHead:
    seed_everything(1)
    return ProjectionHead(128, hidden_dim=96, projection_dim=16)


@pytest.mark.parametrize("layer", ["encoder", "projection"])
def test_a_linear_head_is_the_exact_fit_of_the_layers_features(
    digits: Drawn,
    preprocessing: Preprocessing,
    encoder: Encoder,
    projection: ProjectionHead,
    layer: str,
) -> None:
    images, targets = of_each(digits, 5)
    config = FinetuneConfig(layer=layer, calibrate=False)
    found = finetune(
        images,
        targets,
        encoder,
        config,
        preprocessing,
        class_count=10,
        run=Run(),
        projection=projection,
    )
    x = features(encoder, images, preprocessing).clone()
    if layer == "projection":
        with torch.no_grad():
            x = projection.first_layer().eval()(x)
    y = torch.from_numpy(targets)
    l2 = choose_l2(x, y, class_count=10, seed=0)
    wanted = fit_logistic(x, y, class_count=10, l2=l2)
    assert found.report["l2"] == l2
    assert found.classifier.head.in_features == (128 if layer == "encoder" else 96)
    logits = predict_logits(found.classifier, images, preprocessing)
    torch.testing.assert_close(logits.softmax(1), wanted.logits(x).softmax(1), atol=1e-3, rtol=0)


def test_auto_compares_methods_and_layers_on_held_out_labels(
    digits: Drawn, preprocessing: Preprocessing, encoder: Encoder, projection: ProjectionHead
) -> None:
    images, targets = of_each(digits, 5)
    found = finetune(
        images,
        targets,
        encoder,
        HEAD,
        preprocessing,
        class_count=10,
        run=Run(),
        projection=projection,
    )
    tried = [(trial["method"], trial["layer"]) for trial in found.report["candidates"]]
    assert tried == [
        ("linear", "encoder"),
        ("linear", "projection"),
        ("prototype", "encoder"),
        ("prototype", "projection"),
    ]
    assert (found.report["method"], found.report["layer"]) in tried
    assert found.held_out is not None
    assert found.held_out.method == "5-fold cross-validation of the head"
    score = found.report["cross_validation"]
    assert isinstance(score, Score)
    assert score.total == 50
    test_images, test_targets = of_each(digits, 100, start=5)
    logits = predict_logits(found.classifier, test_images, preprocessing)
    served = accuracy(logits, torch.from_numpy(test_targets))
    low, high = found.report["candidates"][0]["interval_95"]
    assert low - 0.1 < served < high + 0.1


def test_held_out_predictions_of_random_labels_are_no_better_than_chance(
    digits: Drawn, preprocessing: Preprocessing, encoder: Encoder, projection: ProjectionHead
) -> None:
    images, targets = digits[0][:300], np.arange(300) % 3
    found = finetune(
        images,
        targets,
        encoder,
        dataclasses.replace(HEAD, candidates=("linear", "prototype")),
        preprocessing,
        class_count=3,
        run=Run(),
        projection=projection,
    )
    # Four standard deviations, though the best of four candidates was chosen.
    share = found.report["cross_validation"].accuracy
    assert abs(share - 1 / 3) < 4 * (2 / 9 / 300) ** 0.5


def test_one_label_a_class_takes_defaults_and_says_so(
    digits: Drawn, preprocessing: Preprocessing, encoder: Encoder
) -> None:
    images, targets = of_each(digits, 1)
    found = finetune(images, targets, encoder, HEAD, preprocessing, class_count=10, run=Run())
    report = found.report
    assert (report["method"], report["candidates"], report["cross_validation"]) == (
        "linear",
        [],
        None,
    )
    assert report["temperature"] is None
    assert found.held_out is None
    assert any("No class has more than one label" in text for text in report["warnings"])
    assert any("not calibrated" in text for text in report["warnings"])


@pytest.mark.parametrize("method", ["linear", "prototype"])
def test_two_labels_are_enough(
    digits: Drawn, preprocessing: Preprocessing, encoder: Encoder, method: str
) -> None:
    images, targets = of_each(digits, 1)
    config = FinetuneConfig(method=method)
    found = finetune(
        images[:2], targets[:2], encoder, config, preprocessing, class_count=2, run=Run()
    )
    logits = predict_logits(found.classifier, images[:2], preprocessing)
    assert logits.argmax(1).tolist() == [0, 1]


def test_one_class_with_one_image_and_imbalance_are_told(
    digits: Drawn, preprocessing: Preprocessing, encoder: Encoder
) -> None:
    images, targets = digits[0][digits[1] < 3], digits[1][digits[1] < 3]
    keep = np.concatenate(
        [np.flatnonzero(targets == 0)[:40], np.flatnonzero(targets == 1)[:10], [0]]
    )
    keep[-1] = np.flatnonzero(targets == 2)[0]
    config = FinetuneConfig(class_weights="auto")
    found = finetune(
        images[keep], targets[keep], encoder, config, preprocessing, class_count=3, run=Run()
    )
    report = found.report
    assert report["class_weights"] == "balanced"
    assert report["cross_validation"].total == 50
    assert any("largest class has 40 labels, the smallest 1" in t for t in report["warnings"])
    assert any("1 of 3 classes have a single label" in t for t in report["warnings"])
    plain = finetune(
        images[keep],
        targets[keep],
        encoder,
        FinetuneConfig(),
        preprocessing,
        class_count=3,
        run=Run(),
    )
    rest = images[targets == 2][1:]
    rare = [
        int((predict_logits(each.classifier, rest, preprocessing).argmax(1) == 2).sum())
        for each in (found, plain)
    ]
    assert rare[0] >= rare[1]


def test_a_validation_split_decides_and_is_not_trained_on(
    digits: Drawn, preprocessing: Preprocessing, encoder: Encoder, projection: ProjectionHead
) -> None:
    train, validation = of_each(digits, 5), of_each(digits, 10, start=5)

    def run(held: Drawn) -> Finetuned:
        return finetune(
            *train,
            encoder,
            HEAD,
            preprocessing,
            class_count=10,
            run=Run(),
            projection=projection,
            validation=held,
        )

    found = run(validation)
    assert found.report["cross_validation"] is None
    assert found.held_out is not None
    assert found.held_out.method == "validation split"
    assert {trial["total"] for trial in found.report["candidates"]} == {100}
    few = run((validation[0][:9], validation[1][:9]))
    assert few.report["cross_validation"].total == 50
    assert any("only 9 labels" in text for text in few.report["warnings"])


def test_a_layer_that_is_not_there_is_refused(
    digits: Drawn, preprocessing: Preprocessing, encoder: Encoder
) -> None:
    config = FinetuneConfig(layer="projection")
    with pytest.raises(ValueError, match=r"layer: found 'projection', .* allowed is 'encoder'"):
        finetune(*of_each(digits, 2), encoder, config, preprocessing, class_count=10, run=Run())


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"method": "head"}, "method: found 'head', allowed are linear"),
        ({"layer": "x"}, "layer: found 'x'"),
        ({"solver": "x"}, "solver: found 'x'"),
        ({"class_weights": "x"}, "class_weights: found 'x'"),
        ({"candidates": ("auto",)}, "candidates: found"),
        ({"candidates": ()}, "candidates: found"),
        ({"label_smoothing": 1.0}, "label_smoothing: found 1.0"),
        ({"views": 1}, "views: found 1"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(values: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        FinetuneConfig(**values)  # type: ignore[arg-type]


def test_the_configuration_survives_json() -> None:
    config = dataclasses.replace(NETWORK, candidates=("linear", "full"), budget_minutes=2.0)
    assert FinetuneConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
