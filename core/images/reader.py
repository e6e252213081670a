"""Pixels for those who serve: small JPEGs and PNGs here, everything else in a confined process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from core.images.decoding import Pixels, check_length, decode_ordinary
from core.images.pool import DecodePool


class ImageReader:
    """The pixels of images that nobody vouches for, without a risk to the process that asks.

    What `decode_ordinary` takes costs no more than its size says, and less than a way to another
    process and back; whatever else comes, time and memory are limited there.
    """

    def __init__(self, decoders: DecodePool) -> None:
        """Over processes that are used for this alone: uploads keep theirs busy for long."""
        self._decoders = decoders
        self._limits = decoders.limits

    def begin(self, data: bytes) -> Pixels | Callable[[], Pixels]:
        """The pixels (RGB, uint8, height x width x 3), or what gives them and may take long.

        Raises:
            ImageTooLarge: The file is longer than it may be. What is called later raises what
                else is wrong with it, as `DecodePool.pixels`.
        """
        check_length(data, self._limits.max_bytes)
        quick = decode_ordinary(data, max_pixels=self._limits.max_pixels)
        return partial(self._decoders.pixels, data) if quick is None else quick

    def read(self, data: bytes) -> Pixels:
        """The pixels, however long it takes.

        Raises:
            ImageInvalid: It cannot be decoded within the limits.
            DecodersUnavailable: A process does not start.
        """
        begun = self.begin(data)
        return begun() if callable(begun) else begun

    def close(self) -> None:
        """End the processes, once nobody asks any more."""
        self._decoders.close()
