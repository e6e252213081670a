"""Training the whole network on the labels."""

from __future__ import annotations

import copy

import torch

from core.learning.classifier import Classifier
from core.learning.determinism import seed_everything
from core.learning.evaluation import features
from core.learning.finetuning.contrastive import train_contrastive
from core.learning.finetuning.labelled import Labelled
from core.learning.finetuning.setup import Setup
from core.learning.finetuning.supervised import train_supervised
from core.learning.heads import ProjectionHead
from core.learning.logistic import LinearHead
from core.learning.run import Run

# Of the projection head that SupCon gets when there is none yet.
PROJECTION_DIM = 64


def train_network(setup: Setup, data: Labelled, *, method: str, layer: str, run: Run) -> Classifier:
    """A classifier whose encoder learnt from the labels, too.

    With "full" a pre-trained encoder gets the head that fits its features before both are trained:
    a head that knows nothing would first distort them (arXiv 2202.10054).

    Args:
        setup: Where to begin.
        data: The labels.
        method: "full" or "supcon".
        layer: Features of the "encoder" or of the first layer of its "projection" head.
        run: Device, callbacks, checkpoints.

    Raises:
        Stopped: The run was asked to stop.
        Diverged: The loss became infinite or not a number.
    """
    seed_everything(setup.config.seed)
    if method == "supcon":
        return _supcon(setup, data, layer, run)
    classifier = setup.classifier(layer)
    if not setup.config.from_scratch:
        fit_head(setup, classifier, data, device=run.device)
    train_supervised(
        classifier,
        data.images_NHWC,
        data.targets_N,
        config=setup.config,
        preprocessing=setup.preprocessing,
        run=run,
        weights_K=setup.weights_K,
    )
    return classifier.cpu().eval()


def _supcon(setup: Setup, data: Labelled, layer: str, run: Run) -> Classifier:
    classifier = setup.classifier(layer)
    projection = copy.deepcopy(setup.projection)
    if projection is None:
        width = classifier.encoder.feature_dim
        projection = ProjectionHead(width, hidden_dim=width, projection_dim=PROJECTION_DIM)
    train_contrastive(
        classifier.encoder,
        projection,
        data.images_NHWC,
        data.targets_N,
        config=setup.config,
        preprocessing=setup.preprocessing,
        run=run,
    )
    if layer == "projection":
        classifier.hidden = projection.first_layer()
    fit_head(setup, classifier, data, device=run.device)
    return classifier.cpu().eval()


def fit_head(setup: Setup, classifier: Classifier, data: Labelled, *, device: str) -> None:
    """Put the linear head on that fits the features of the labels."""
    features_ND = features(classifier.eval(), data.images_NHWC, setup.preprocessing, device=device)
    head, _ = setup.fitter("linear").fit(features_ND, data.targets_N)
    put_head(classifier, head)


@torch.no_grad()
def put_head(classifier: Classifier, head: LinearHead) -> None:
    """Replace the weights of the head by these."""
    classifier.head.weight.copy_(head.weight_KD)
    classifier.head.bias.copy_(head.bias_K)
