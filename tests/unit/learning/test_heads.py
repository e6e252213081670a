"""Projection heads of two and more layers."""

from __future__ import annotations

import json

import pytest
import torch

from core.learning.heads import ProjectionHead, ProjectionSpec, classification_head, hidden_layer


@pytest.mark.parametrize("layers", [2, 3, 4])
def test_projection_is_its_first_layer_and_the_rest(layers: int) -> None:
    torch.manual_seed(0)
    spec = ProjectionSpec(feature_dim=8, hidden_dim=16, projection_dim=4, layers=layers)
    head = spec.build().eval()
    features_BD = torch.rand(5, 8)
    hidden_BH = head.first_layer()(features_BD)
    assert hidden_BH.shape == (5, 16)
    assert (hidden_BH >= 0).all()
    torch.testing.assert_close(head(features_BD), head.output(head.further(hidden_BH)))
    assert head(features_BD).shape == (5, 4)
    linear = [m for m in head.modules() if isinstance(m, torch.nn.Linear)]
    assert len(linear) == layers


def test_names_of_a_two_layer_head_are_stable() -> None:
    head = ProjectionHead(8, hidden_dim=16, projection_dim=4)
    assert set(head.state_dict()) == {
        "hidden.weight",
        *(f"norm.{n}" for n in ("weight", "bias", "running_mean", "running_var")),
        "norm.num_batches_tracked",
        "output.weight",
        "output.bias",
    }


def test_first_layer_shares_its_weights() -> None:
    head = ProjectionHead(8, hidden_dim=16, projection_dim=4)
    copy = hidden_layer(8, 16)
    copy.load_state_dict(head.first_layer().state_dict())
    with torch.no_grad():
        head.hidden.weight.zero_()
    assert not head.first_layer().get_parameter("0.weight").any()
    assert copy.get_parameter("0.weight").any()


def test_one_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="projection_layers: found 1, at least 2"):
        ProjectionHead(8, hidden_dim=16, projection_dim=4, layers=1)


def test_spec_survives_json() -> None:
    spec = ProjectionSpec(feature_dim=8, hidden_dim=16, projection_dim=4, layers=3)
    assert ProjectionSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_a_new_classification_head_prefers_no_class() -> None:
    logits_BK = classification_head(8, 3)(torch.rand(2, 8))
    assert torch.equal(logits_BK, torch.zeros(2, 3))
