"""Which method and layer: what is asked for, or what does best on held-out labels."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional

from core.learning.calibration import CALIBRATION_LABELS
from core.learning.classifier import Classifier
from core.learning.evaluation import accuracy, predict_logits
from core.learning.finetuning.candidates import (
    allowed_layers,
    allowed_methods,
    layer_features,
    with_share_of_budget,
)
from core.learning.finetuning.config import HEAD_METHODS, NETWORK_METHODS
from core.learning.finetuning.labelled import Labelled
from core.learning.finetuning.network import put_head, train_network
from core.learning.finetuning.phases import Phases
from core.learning.finetuning.setup import Setup
from core.learning.finetuning.trials import HeldOut, Trial, choose, predictions_of_choice
from core.learning.logistic import NEVER_HELD_OUT, LinearHead, held_out_folds
from core.learning.progress import Progress

FOLDS = 5
# With more labels one held-out fifth says enough.
CROSS_VALIDATED_LABELS = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What to make of the labels.

    Attributes:
        method: One of the methods but "auto".
        layer: "encoder" or "projection".
        trials: All that was tried.
        chosen: The trial of this method and layer, None when nothing could be held out.
        held_out: Predictions by the whole procedure, None when nothing could be held out.
        classifier: If the trial's network was trained on all labels already, that network.
        trainings: Networks that are trained in all; each has the same share of a time budget.
        untried: Methods for whose comparison there are too few labels.
    """

    method: str
    layer: str
    trials: list[Trial] = field(default_factory=list)
    chosen: Trial | None = None
    held_out: HeldOut | None = None
    classifier: Classifier | None = None
    trainings: int = 1
    untried: tuple[str, ...] = ()


class Comparison:
    """The candidates of one call, on the labels at hand.

    Args:
        setup: Where all of them begin.
        data: The labels to train on.
        validation: Labels to compare on; None compares on held-out labels of `data`.
        phases: For reports and checkpoints.
    """

    def __init__(
        self, setup: Setup, data: Labelled, validation: Labelled | None, phases: Phases
    ) -> None:
        self.setup = setup
        self.data = data
        self.validation = validation
        self.phases = phases
        self.methods = allowed_methods(setup, data)
        self.layers = allowed_layers(setup)
        self.features: dict[str, Tensor] = {}
        self.validation_features: dict[str, Tensor] = {}
        self.heads: dict[tuple[str, str], LinearHead] = {}

    def decide(self) -> Decision:
        """Try what has to be tried.

        Raises:
            Stopped: The run was asked to stop.
            Diverged: A network's loss became infinite or not a number.
        """
        networks = [name for name in self.methods if name in NETWORK_METHODS]
        heads = [name for name in self.methods if name in HEAD_METHODS]
        if networks and not heads and len(self.layers) == 1:
            return self._among_networks(networks, self.layers[0], None)
        self._compute_features()
        best = self._among_heads(heads or ["linear"])
        return self._among_networks(networks, best.layer, best if heads else None)

    def carry_out(self, decision: Decision) -> tuple[Classifier, float | None]:
        """The classifier, trained on all labels, and the penalty on its head if that is known.

        Raises:
            Stopped: The run was asked to stop.
            Diverged: The network's loss became infinite or not a number.
        """
        if decision.classifier is not None:
            return decision.classifier, None
        if decision.method in HEAD_METHODS:
            return self._fit_head(decision)
        classifier = train_network(
            with_share_of_budget(self.setup, decision.trainings),
            self.data,
            method=decision.method,
            layer=decision.layer,
            # Of this choice alone: a later attempt may come to another one.
            run=self.phases.begin(
                f"training {decision.method}", folder=f"{decision.method}-{decision.layer}"
            ),
        )
        return classifier, None

    def _fit_head(self, decision: Decision) -> tuple[Classifier, float | None]:
        run, started = self.phases.begin("fitting the head"), time.monotonic()
        features_ND, targets_N = self.features[decision.layer], self.data.targets_N
        l2 = decision.chosen.l2 if decision.chosen else None
        head = self.heads.get((decision.method, decision.layer))
        if head is None:
            fitter = self.setup.fitter(decision.method)
            head, l2 = fitter.fit(features_ND, targets_N, l2=l2)
        classifier = self.setup.classifier(decision.layer)
        put_head(classifier, head)
        if run.on_step is not None:
            logits_NK = head.logits(features_ND)
            metrics = {"train_accuracy": accuracy(logits_NK, targets_N)}
            run.on_step(
                Progress(
                    step=1,
                    steps=1,
                    epoch=1,
                    epochs=1,
                    loss=functional.cross_entropy(logits_NK, targets_N).item(),
                    images_per_second=len(targets_N) / max(time.monotonic() - started, 1e-9),
                    seconds_left=0.0,
                    metrics=metrics if l2 is None else {**metrics, "l2": l2},
                )
            )
        return classifier, l2

    def _compute_features(self) -> None:
        device = self.phases.begin("computing features").device
        self.features = layer_features(self.setup, self.layers, self.data, device=device)
        if self.validation is not None:
            self.validation_features = layer_features(
                self.setup, self.layers, self.validation, device=device
            )

    def _among_heads(self, methods: Sequence[str]) -> Decision:
        fold_N = self._folds()
        if self.validation is None and not (fold_N >= 0).any():
            # One label a class, nothing to compare on. On digits the projection head's first
            # layer was the better one then, as for ImageNet with few labels (arXiv 2006.10029),
            # and a linear head better than class means.
            return Decision(method=methods[0], layer=self.layers[-1], trainings=0)
        trials = [
            self._head_trial(method, layer, fold_N) for method in methods for layer in self.layers
        ]
        chosen = trials[choose(trials, weights_K=self.setup.weights_K)]
        return Decision(
            method=chosen.method,
            layer=chosen.layer,
            trials=trials,
            chosen=chosen,
            held_out=predictions_of_choice(trials, weights_K=self.setup.weights_K),
            trainings=0,
        )

    def _folds(self) -> Tensor:
        fold_N = held_out_folds(self.data.targets_N, folds=FOLDS, seed=self.setup.config.seed)
        if len(fold_N) > CROSS_VALIDATED_LABELS:
            fold_N = torch.where(fold_N == 0, 0, NEVER_HELD_OUT)
        return fold_N

    def _head_trial(self, method: str, layer: str, fold_N: Tensor) -> Trial:
        self.phases.begin("comparing heads")  # asks whether to stop
        fitter, seed = self.setup.fitter(method), self.setup.config.seed
        features_ND, targets_N = self.features[layer], self.data.targets_N
        if self.validation is not None:
            head, l2 = fitter.fit(features_ND, targets_N)
            self.heads[method, layer] = head
            logits_MK = head.logits(self.validation_features[layer])
            held = HeldOut.of(
                logits_MK, self.validation.targets_N, seed=seed, method="validation split"
            )
            return Trial(method, layer, held, l2)
        logits_NK, l2 = fitter.cross_validate(features_ND, targets_N, fold_N)
        tested_N = fold_N >= 0
        logits_MK, targets_M = logits_NK[tested_N], targets_N[tested_N]
        folds = int(fold_N.max()) + 1
        if folds == 1:
            held = HeldOut.of(logits_MK, targets_M, seed=seed, method="a held-out fifth")
        else:
            name = f"{folds}-fold cross-validation of the head"
            held = HeldOut(logits_MK, targets_M, fold_N[tested_N], name)
        return Trial(method, layer, held, l2)

    def _among_networks(
        self, methods: Sequence[str], layer: str, head: Decision | None
    ) -> Decision:
        """The best of these and of the head that was best, compared on equal terms."""
        if not methods:
            assert head is not None
            return head
        if self.validation is not None:
            return self._on_validation(methods, layer, head)
        held_N = held_out_folds(self.data.targets_N, folds=FOLDS, seed=self.setup.config.seed) == 0
        compared = len(methods) > 1 or head is not None
        if int(held_N.sum()) < CALIBRATION_LABELS or not (compared or self.setup.config.calibrate):
            if head is not None:
                return replace(head, untried=tuple(methods))
            return Decision(method=methods[0], layer=layer, untried=tuple(methods[1:]))
        kept = self.data.rows(~held_N)
        trials = [
            Trial(method, layer, self._of_network(classifier, self.data.rows(held_N)))
            for method, classifier in self._trained(methods, layer, kept, len(methods) + 1)
        ]
        if head is None:
            return replace(self._best(trials), trainings=len(methods) + 1)
        refitted = self._refitted(head, held_N)
        decision = self._best([refitted, *trials], others=head.trials)
        if decision.chosen is refitted:
            return replace(head, trials=decision.trials, trainings=len(methods) + 1)
        return replace(decision, trainings=len(methods) + 1)

    def _on_validation(self, methods: Sequence[str], layer: str, head: Decision | None) -> Decision:
        assert self.validation is not None
        trained = dict(self._trained(methods, layer, self.data, len(methods)))
        trials = [
            Trial(method, layer, self._of_network(classifier, self.validation))
            for method, classifier in trained.items()
        ]
        if head is None or head.chosen is None or head.held_out is None:
            decision = self._best(trials)
        else:
            others = [trial for trial in head.trials if trial is not head.chosen]
            # The best head was chosen on these labels, too.
            whole = replace(head.chosen, held_out=head.held_out)
            decision = self._best([head.chosen, *trials], others=others, honest=[whole, *trials])
        return replace(decision, classifier=trained.get(decision.method), trainings=len(methods))

    def _best(
        self,
        trials: list[Trial],
        *,
        others: Sequence[Trial] = (),
        honest: Sequence[Trial] | None = None,
    ) -> Decision:
        """The best trial; `honest` has the trials with predictions that no choice flatters."""
        weights_K = self.setup.weights_K
        chosen = trials[choose(trials, weights_K=weights_K, margin=0.0)]
        return Decision(
            method=chosen.method,
            layer=chosen.layer,
            trials=[*others, *trials],
            chosen=chosen,
            held_out=predictions_of_choice(honest or trials, weights_K=weights_K, margin=0.0),
        )

    def _trained(
        self, methods: Sequence[str], layer: str, data: Labelled, trainings: int
    ) -> list[tuple[str, Classifier]]:
        """Networks on these labels; a time budget is for all trainings of the call together."""
        setup = with_share_of_budget(self.setup, trainings)
        trained = []
        for method in methods:
            verb = "training" if trainings == 1 else "trying"
            run = self.phases.begin(f"{verb} {method}", folder=f"trial-{method}-{layer}")
            network = train_network(setup, data, method=method, layer=layer, run=run)
            trained.append((method, network))
        return trained

    def _of_network(self, classifier: Classifier, held: Labelled) -> HeldOut:
        logits_MK = predict_logits(
            classifier, held.images_NHWC, self.setup.preprocessing, device=self.phases.device
        )
        name = "validation split" if held is self.validation else "a held-out fifth of the labels"
        return HeldOut.of(logits_MK, held.targets_N, seed=self.setup.config.seed, method=name)

    def _refitted(self, head: Decision, held_N: Tensor) -> Trial:
        """The head, too, with four fifths of the labels."""
        features_ND, targets_N = self.features[head.layer], self.data.targets_N
        fitted, l2 = self.setup.fitter(head.method).fit(features_ND[~held_N], targets_N[~held_N])
        held = HeldOut.of(
            fitted.logits(features_ND[held_N]),
            targets_N[held_N],
            seed=self.setup.config.seed,
            method="a held-out fifth of the labels",
        )
        return Trial(head.method, head.layer, held, l2)
