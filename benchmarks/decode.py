"""How long JPEGs take to decode: Pillow, simplejpeg, torchvision, this project's own `decode`.

Prints one line of JSON: milliseconds an image, the largest difference to Pillow's pixels, and how
many 32-pixel PNGs a second the pool of decoding processes looks at.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from io import BytesIO
from typing import Any

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_image
from torchvision.io import ImageReadMode, decode_jpeg

from core.images.decoding import decode
from core.images.pool import DecodeLimits, DecodePool

Pixels = NDArray[np.uint8]
CASES = {"1mp": (1152, 864), "224px": (224, 224)}
ROUNDS, SECONDS = 5, 0.3
SMALL_FILES = 6000
LIMITS: dict[str, Any] = {"max_bytes": 2**25, "max_pixels": 50_000_000}


def by_pillow(data: bytes) -> Pixels:
    with Image.open(BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


def by_simplejpeg(data: bytes) -> Pixels:
    pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
    return pixels


def by_torchvision(data: bytes) -> Pixels:
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    pixels: Pixels = decode_jpeg(encoded, mode=ImageReadMode.RGB).permute(1, 2, 0).numpy()
    return pixels


WAYS: dict[str, Callable[[bytes], Pixels]] = {
    "pillow": by_pillow,
    "simplejpeg": by_simplejpeg,
    "torchvision": by_torchvision,
    "decode": lambda data: decode(data, **LIMITS).pixels_HWC,
}


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The image as a file."""
    written = BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()


def milliseconds(way: Callable[[bytes], Pixels], data: bytes) -> float:
    """The median over rounds: what else runs on the machine comes and goes."""
    times = []
    for _ in range(ROUNDS):
        count, begin = 0, time.perf_counter()
        while (passed := time.perf_counter() - begin) < SECONDS:
            way(data)
            count += 1
        times.append(passed / count * 1000)
    return round(statistics.median(times), 3)


def small_pngs_per_second() -> int:
    """Through the pool, with a process a core."""
    noise = np.random.default_rng(0)
    sides = (SMALL_FILES, 32, 32, 3)
    files = [
        encoded(Image.fromarray(pixels), "PNG")
        for pixels in noise.integers(0, 256, sides, dtype=np.uint8)
    ]
    limits = DecodeLimits(**LIMITS, seconds=10.0, memory_mb=1536)
    with closing(DecodePool(limits, processes=os.cpu_count() or 1)) as pool:
        pool.inspect(files[:256])
        begin = time.perf_counter()
        pool.inspect(files)
        return round(len(files) / (time.perf_counter() - begin))


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    photo = Image.fromarray(load_sample_image("china.jpg"))
    result: dict[str, Any] = {}
    for name, size in CASES.items():
        for progressive in (False, True):
            image = photo.resize(size)
            data = encoded(image, "JPEG", quality=85, progressive=progressive)
            expected = by_pillow(data).astype(int)
            result[f"{name}_progressive" if progressive else name] = {
                way: {
                    "ms": milliseconds(function, data),
                    "difference": int(np.abs(function(data) - expected).max()),
                }
                for way, function in WAYS.items()
            }
    result["small_pngs_per_second"] = small_pngs_per_second()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
