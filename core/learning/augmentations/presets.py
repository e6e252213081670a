"""Named strengths for kinds of images, and where their figures come from."""

from __future__ import annotations

from core.learning.augmentations.config import AugmentationConfig

_PHOTO = AugmentationConfig(
    crop_area=(0.08, 1.0),
    crop_ratio=4 / 3,
    flip=0.5,
    brightness=0.8,
    contrast=0.8,
    saturation=0.8,
    hue=0.2,
    jitter=0.8,
    grey=0.2,
    blur=0.5,
)

PRESETS: dict[str, AugmentationConfig] = {
    # SimCLR on ImageNet (arXiv 2002.05709, appendix A).
    "photo": _PHOTO,
    # As used on CIFAR: half the colour and no blur (the same, appendix B.9), larger crops
    # (SupCon's reference code).
    "small": AugmentationConfig(
        crop_area=(0.2, 1.0),
        crop_ratio=4 / 3,
        flip=0.5,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.1,
        jitter=0.8,
        grey=0.2,
    ),
    # Without colour, light and texture are what gives an image away among others: they change the
    # most, and the shape is left. Measured on Fashion-MNIST (docs/benchmarks.md).
    "greyscale": AugmentationConfig(
        crop_area=(0.4, 1.0),
        crop_ratio=4 / 3,
        flip=0.5,
        brightness=0.8,
        contrast=0.8,
        jitter=1.0,
        blur=0.5,
        solarize=0.2,
    ),
    # Writing: mirrored letters are other letters, and a part of a letter may be another one too.
    "document": AugmentationConfig(
        crop_area=(0.5, 1.2),
        crop_ratio=4 / 3,
        rotation=15.0,
        shear=15.0,
        brightness=0.4,
        contrast=0.4,
        jitter=0.8,
    ),
    # Nothing is up or down. The dye's hue is what tells tissues apart, so it stays, and so does
    # most of the scale.
    "microscopy": AugmentationConfig(
        crop_area=(0.4, 1.0),
        crop_ratio=4 / 3,
        flip=0.5,
        vertical_flip=0.5,
        quarter_turns=True,
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
        jitter=0.8,
    ),
    # Seen from above, with the light and colours of photographs. A solarised view in ten is
    # BYOL's mean of its two views (arXiv 2006.07733, appendix B: 0.0 and 0.2, threshold 0.5).
    "satellite": AugmentationConfig(
        crop_area=(0.2, 1.0),
        crop_ratio=4 / 3,
        flip=0.5,
        vertical_flip=0.5,
        quarter_turns=True,
        brightness=_PHOTO.brightness,
        contrast=_PHOTO.contrast,
        saturation=_PHOTO.saturation,
        hue=_PHOTO.hue,
        jitter=_PHOTO.jitter,
        grey=_PHOTO.grey,
        blur=_PHOTO.blur,
        solarize=0.1,
    ),
}
