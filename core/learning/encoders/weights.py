"""Weights pre-trained on ImageNet with labels, from torchvision, fitted to another input."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import WeightsEnum

# Mean and standard deviation of the values in [0, 1] that all these weights were trained with.
IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

SILENCE_SECONDS = 10.0
HEADS = ("fc.", "classifier.", "heads.")
POSITIONS = "encoder.pos_embedding"


class WeightsUnavailable(OSError):
    """Pre-trained weights could not be fetched or read; the message says where to put the file."""


def load_imagenet(body: nn.Module, weights: WeightsEnum, *, name: str) -> None:
    """Fill an encoder's body with ImageNet weights; none of its weights stay random.

    Only the classification head is left out. What depends on the input is fitted to the body:

    - One channel: the first convolution's weights are summed over the colours, so that a grey
      image gives what it gives with its value three times.
    - A smaller first kernel (small stems): each patch is answered as the original kernel would
      answer it after bilinear enlargement (close to the resizing of arXiv 2212.08013, 3.4).
    - ViT's position embeddings: interpolated to the body's grid (arXiv 2010.11929, 3.2).

    Args:
        body: Of torchvision's class, with its head replaced by an identity.
        weights: Of the same architecture.
        name: The encoder's, for the message of an error.

    Raises:
        WeightsUnavailable: They are neither in torch's folder nor can they be fetched, or the
            file there holds something else.
    """
    given = _state_dict(weights, name)
    wanted = body.state_dict()
    first = next(key for key, module in body.named_modules() if isinstance(module, nn.Conv2d))
    try:
        state = {
            key: value for key, value in given.items() if key in wanted or not key.startswith(HEADS)
        }
        kernel = f"{first}.weight"
        state[kernel] = fit_kernel(state[kernel], wanted[kernel].shape)
        if POSITIONS in wanted:
            state[POSITIONS] = fit_positions(state[POSITIONS], wanted[POSITIONS].shape[1])
        body.load_state_dict(state)
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        path = weights_path(weights)
        raise WeightsUnavailable(
            f"init: {path} does not hold the ImageNet weights of {name} ({error}); delete it to "
            "have it fetched again"
        ) from error


def weights_path(weights: WeightsEnum) -> Path:
    """Where torch keeps the file: below TORCH_HOME if that is set."""
    name: str = weights.url.rsplit("/", 1)[-1]
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def fit_kernel(weight_OIHW: Tensor, shape: torch.Size) -> Tensor:
    """A first convolution's weights for other channels and a smaller kernel."""
    _, channels, side, _ = shape
    if channels == 1:
        weight_OIHW = weight_OIHW.sum(dim=1, keepdim=True)
    original = weight_OIHW.shape[-1]
    if side >= original:
        return weight_OIHW
    pixels_PHW = torch.eye(side * side).view(-1, side, side)
    # Row p: what a patch that is white at pixel p alone looks like when it is enlarged.
    enlarged_PHW = functional.interpolate(
        pixels_PHW[:, None], size=(original, original), mode="bilinear", align_corners=False
    )[:, 0]
    smaller_OIP: Tensor = torch.einsum("oihw,phw->oip", weight_OIHW, enlarged_PHW)
    return smaller_OIP.view(*weight_OIHW.shape[:2], side, side)


def fit_positions(embedding_1ND: Tensor, length: int) -> Tensor:
    """Position embeddings of a class token and a square grid for a grid of another size."""
    token_11D, grid_1GD = embedding_1ND[:, :1], embedding_1ND[:, 1:]
    side, original = round((length - 1) ** 0.5), round(grid_1GD.shape[1] ** 0.5)
    if side == original:
        return embedding_1ND
    grid_1DHW = grid_1GD.transpose(1, 2).reshape(1, -1, original, original)
    resized_1DHW = functional.interpolate(
        grid_1DHW, size=(side, side), mode="bicubic", align_corners=False, antialias=True
    )
    return torch.cat([token_11D, resized_1DHW.flatten(2).transpose(1, 2)], dim=1)


def _state_dict(weights: WeightsEnum, name: str) -> Mapping[str, Tensor]:
    path = weights_path(weights)
    found = f"{path} cannot be read" if path.exists() else f"{weights.url} cannot be fetched"
    try:
        # torch says on stdout that it downloads; stdout belongs to the program.
        with _impatient(), contextlib.redirect_stdout(sys.stderr):
            state: Mapping[str, Tensor] = weights.get_state_dict(
                progress=False, check_hash=True, map_location="cpu", weights_only=True
            )
    except MemoryError:
        raise
    except Exception as error:  # a file or an answer may be broken in any way
        raise WeightsUnavailable(
            f"init: the ImageNet weights of {name} are not available: {found} ({error}). Put the "
            f"file of {weights.url} into {path.parent} (or set TORCH_HOME to a folder that has it "
            "in hub/checkpoints), or choose init 'random'"
        ) from error
    return state


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Sockets opened meanwhile give up: torch would wait for ever for a host that is silent."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
