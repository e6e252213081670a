"""ICC profiles made by hand (ICC.1:2001-04), and what they mean as arithmetic."""

from __future__ import annotations

import struct
from itertools import product

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Columns: red, green and blue at full, as XYZ under D50.
SRGB = np.array(
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
)
ADOBE = np.array(
    [[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]]
)
P3 = np.array(
    [[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]]
)
D50 = (0.9642, 1.0, 0.8249)
ADOBE_GAMMA = 563 / 256
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + fixed(*values)


def gamma(value: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256)) + bytes(2)


def srgb_curve() -> bytes:
    return b"para" + bytes(4) + struct.pack(">HH", 3, 0) + fixed(*SRGB_CURVE)


def profile(space: bytes, tags: dict[bytes, bytes], *, connection: bytes = b"XYZ ") -> bytes:
    """A profile of a screen or a press with these tags."""
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    tags = {b"wtpt": xyz(*D50), **tags}
    place = 132 + 12 * len(tags)
    table, body = b"", b""
    for name, value in tags.items():
        table += name + struct.pack(">II", place + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = struct.pack(
        ">I4sI4s4s4s", place + len(body), b"test", 0x04200000, kind, space, connection
    )
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + fixed(*D50)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def screen(primaries: Floats, curve: bytes) -> bytes:
    """The profile of an RGB space."""
    names = (b"rXYZ", b"gXYZ", b"bXYZ")
    colours = {name: xyz(*primaries[:, at]) for at, name in enumerate(names)}
    return profile(b"RGB ", {**colours, **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)})


def linear_grey() -> bytes:
    return profile(b"GRAY", {b"kTRC": gamma(1.0)})


def press(corners: dict[tuple[int, int, int, int], tuple[float, float, float]]) -> bytes:
    """A CMYK space by the L*a*b* colours of full inks on each other; white where none is given."""
    grid = b"".join(
        bytes([round(light * 2.55), round(a + 128), round(b + 128)])
        for light, a, b in (
            corners.get(inks, (100.0, 0.0, 0.0))  # type: ignore[arg-type]
            for inks in product((0, 1), repeat=4)
        )
    )
    identity = bytes(range(256))
    matrix = fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + identity * 4 + grid + identity * 3
    return profile(b"CMYK", {b"A2B0": table}, connection=b"Lab ")


def to_linear(stored: Floats, curve: float | None) -> Floats:
    """Light of samples from 0 to 1; without a gamma by sRGB's curve."""
    if curve is not None:
        return stored**curve
    return np.where(stored <= 0.04045, stored / 12.92, ((stored + 0.055) / 1.055) ** 2.4)


def to_srgb(light: Floats) -> Floats:
    """Samples of sRGB from 0 to 255 that show linear light of sRGB's primaries."""
    light = np.clip(light, 0, 1)
    shown = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return 255 * shown


def converted(pixels_HWC: NDArray[np.uint8], primaries: Floats, curve: float | None) -> Floats:
    """Pixels of an RGB space as sRGB, step by step."""
    light = to_linear(pixels_HWC / 255, curve)
    return to_srgb(light @ primaries.T @ np.linalg.inv(SRGB).T)
