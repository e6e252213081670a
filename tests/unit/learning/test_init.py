"""ImageNet weights: read from files as torchvision's own networks would leave them."""

from __future__ import annotations

import os
import shutil
import socket
import urllib.request
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import WeightsEnum, get_model, get_model_weights

from core.learning.encoders import WeightsUnavailable, create_encoder, weights
from core.learning.encoders.weights import fit_kernel, fit_positions, weights_path


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder of downloads, and nowhere to download from."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    # urllib looks for a proxy once, at its first request.
    monkeypatch.setattr(urllib.request, "_opener", None)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
    yield tmp_path
    shutil.rmtree(tmp_path / "hub")  # hundreds of megabytes, which pytest would keep


def first_weights(name: str) -> WeightsEnum:
    return get_model_weights(name).IMAGENET1K_V1


def published(name: str) -> nn.Module:
    """torchvision's network with random weights, stored where its download would be."""
    torch.manual_seed(0)
    model: nn.Module = get_model(name, weights=None).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.get_buffer("running_mean"), -0.1, 0.1)
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 1.5)
    path = weights_path(first_weights(name))
    path.parent.mkdir(parents=True)
    torch.save(model.state_dict(), path)
    return model


def without_head(model: nn.Module, name: str) -> nn.Module:
    if name.startswith("resnet"):
        model.fc = nn.Identity()
    elif name.startswith("convnext"):
        assert isinstance(model.classifier, nn.Sequential)
        model.classifier[2] = nn.Identity()
    else:
        model.classifier = nn.Identity()
    return model


@pytest.mark.parametrize(
    "name",
    ["resnet18", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0", "convnext_tiny"],
)
def test_features_are_those_of_torchvision(name: str, torch_home: Path) -> None:
    reference = without_head(published(name), name)
    colour = create_encoder(name, image_size=64, channels=3, stem="imagenet", init="imagenet")
    grey = create_encoder(name, image_size=64, channels=1, stem="imagenet", init="imagenet")
    small = create_encoder(name, image_size=64, channels=3, stem="small", init="imagenet")
    images_BCHW, grey_B1HW = torch.randn(2, 3, 64, 64), torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            colour.eval()(images_BCHW), reference(images_BCHW), rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(
            grey.eval()(grey_B1HW), reference(grey_B1HW.repeat(1, 3, 1, 1)), rtol=1e-4, atol=1e-4
        )
        assert small.eval()(images_BCHW).isfinite().all()
    last = list(reference.state_dict())[-1]
    assert torch.equal(small.body.state_dict()[last], reference.state_dict()[last])


def test_vision_transformer(torch_home: Path) -> None:
    reference = published("vit_b_16")
    reference.heads = nn.Identity()
    embedding_1ND = reference.get_parameter("encoder.pos_embedding").detach()
    same = create_encoder("vit_b_16", image_size=224, channels=3, init="imagenet").eval()
    image_1CHW = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(same(image_1CHW), reference(image_1CHW), rtol=1e-3, atol=1e-3)
    small = create_encoder("vit_b_16", image_size=32, channels=1, init="imagenet")
    found_1ND = small.body.get_parameter("encoder.pos_embedding")
    assert torch.equal(found_1ND, fit_positions(embedding_1ND, 1 + 8 * 8))
    with torch.no_grad():
        assert small.eval()(torch.randn(1, 1, 32, 32)).isfinite().all()


def test_files_of_old_torch_versions(torch_home: Path) -> None:
    model = published("resnet18")
    state = OrderedDict(
        (key, value)
        for key, value in model.state_dict().items()
        if not key.endswith("num_batches_tracked")
    )
    path = weights_path(first_weights("resnet18"))
    torch.save(state, path, _use_new_zipfile_serialization=False)
    encoder = create_encoder("resnet18", image_size=224, channels=3, init="imagenet")
    assert torch.equal(encoder.body.get_parameter("conv1.weight"), state["conv1.weight"])


@pytest.mark.parametrize(("original", "side"), [(7, 3), (4, 2), (4, 3), (16, 4), (16, 8)])
def test_a_smaller_kernel_sees_the_enlarged_patch(original: int, side: int) -> None:
    torch.manual_seed(0)
    weight_OIHW = torch.randn(5, 3, original, original)
    patch_1CHW = torch.randn(1, 3, side, side)
    fitted_OIHW = fit_kernel(weight_OIHW, torch.Size((5, 3, side, side)))
    enlarged_1CHW = functional.interpolate(patch_1CHW, size=(original, original), mode="bilinear")
    torch.testing.assert_close(
        functional.conv2d(patch_1CHW, fitted_OIHW),
        functional.conv2d(enlarged_1CHW, weight_OIHW),
        rtol=1e-4,
        atol=1e-4,
    )


def test_a_kernel_that_fits_is_kept() -> None:
    weight_OIHW = torch.randn(5, 3, 3, 3)
    assert torch.equal(fit_kernel(weight_OIHW, torch.Size((5, 3, 3, 3))), weight_OIHW)
    grey_OIHW = fit_kernel(weight_OIHW, torch.Size((5, 1, 3, 3)))
    torch.testing.assert_close(
        grey_OIHW[:, 0], weight_OIHW[:, 0] + weight_OIHW[:, 1] + weight_OIHW[:, 2]
    )


def _grid(value: Callable[[float, float], float], side: int) -> Tensor:
    """One value a cell, of its centre in [0, 1]^2, after a class token of 7; (1, 1 + side^2, 1)."""
    centres = [(row + 0.5) / side for row in range(side)]
    cells = [value(y, x) for y in centres for x in centres]
    return torch.tensor([7.0, *cells]).view(1, -1, 1)


@pytest.mark.parametrize("side", [4, 8, 14, 20])
def test_positions_keep_their_place(side: int) -> None:
    def plane(y: float, x: float) -> float:
        return 3.0 * y - 2.0 * x

    fitted_1ND = fit_positions(_grid(plane, 14), 1 + side * side)
    expected_1ND = _grid(plane, side)
    assert fitted_1ND[0, 0].item() == 7.0
    inner = slice(1, -1)  # at the border the kernel has less to look at
    found_HW = fitted_1ND[0, 1:, 0].view(side, side)[inner, inner]
    torch.testing.assert_close(
        found_HW, expected_1ND[0, 1:, 0].view(side, side)[inner, inner], rtol=0, atol=0.1
    )


def test_unreachable_weights_say_where_to_put_them(torch_home: Path) -> None:
    with pytest.raises(WeightsUnavailable) as caught:
        create_encoder("resnet18", image_size=224, channels=3, init="imagenet")
    message = str(caught.value)
    assert "https://download.pytorch.org/models/resnet18-" in message
    assert str(torch_home / "hub" / "checkpoints") in message
    assert "TORCH_HOME" in message
    assert "init 'random'" in message


def test_a_host_that_does_not_answer_is_given_up(
    torch_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "SILENCE_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(WeightsUnavailable, match="timed out"):
            create_encoder("resnet18", image_size=224, channels=3, init="imagenet")
    assert socket.getdefaulttimeout() is None


def test_a_file_of_another_network_is_refused(torch_home: Path) -> None:
    published("resnet18")
    path = weights_path(first_weights("resnet18"))
    path.rename(weights_path(first_weights("resnet34")))
    with pytest.raises(WeightsUnavailable, match="does not hold the ImageNet weights of resnet34"):
        create_encoder("resnet34", image_size=224, channels=3, init="imagenet")


def test_a_broken_file_is_refused(torch_home: Path) -> None:
    path = weights_path(first_weights("resnet18"))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not weights")
    with pytest.raises(WeightsUnavailable, match="cannot be read"):
        create_encoder("resnet18", image_size=224, channels=3, init="imagenet")
    torch.save([torch.zeros(3)], path)
    with pytest.raises(WeightsUnavailable, match="does not hold the ImageNet weights of resnet18"):
        create_encoder("resnet18", image_size=224, channels=3, init="imagenet")


class _Touch:
    """What unpickling this would do is to make a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.path,)


def test_code_in_a_file_is_not_run(torch_home: Path, tmp_path: Path) -> None:
    path, made = weights_path(first_weights("resnet18")), tmp_path / "made"
    path.parent.mkdir(parents=True)
    torch.save({"conv1.weight": _Touch(str(made))}, path)
    with pytest.raises(WeightsUnavailable, match="cannot be read"):
        create_encoder("resnet18", image_size=224, channels=3, init="imagenet")
    assert not made.exists()
