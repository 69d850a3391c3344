"""Decoded pictures: in RGB of 8 bits, and what there is to say of one."""

from __future__ import annotations

import warnings

import numpy as np
from PIL import Image
from PIL.ExifTags import Base


def as_rgb(picture: Image.Image) -> Image.Image:
    """In RGB, 8 bits per channel; grey of 16 bits is scaled (Pillow would clip it at 255, to white).

    Raises ValueError where the range of the values is not known: whole numbers of 32 bits, and fractions.
    """
    if has_sixteen_bits(picture):
        values = np.asarray(picture).astype(np.uint32)
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise ValueError(f"its mode is {picture.mode}, whose range is not known; allowed: 8 or 16 bits per channel")
    return picture.convert("RGB")


def has_sixteen_bits(picture: Image.Image) -> bool:
    """Whether it is grey of 16 bits. (Of colours of 16 bits Pillow itself keeps the upper 8.)"""
    return picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in ("PNG", "PPM"))


def is_grey(picture: Image.Image) -> bool:
    """Whether it has one channel by its mode (an alpha channel is none); a palette is of colours."""
    return picture.mode in ("1", "L", "LA", "La", "I", "F") or picture.mode.startswith("I;16")


def _frames(picture: Image.Image) -> int:
    try:
        return int(getattr(picture, "n_frames", 1))
    except Exception:  # whatever Pillow makes of a damaged directory: the first frame was read
        return 1


def remark_on(picture: Image.Image) -> str | None:
    """A kind of `REMARKS`, of a picture that was loaded."""
    if has_sixteen_bits(picture):
        return "sixteen_bits"
    if picture.has_transparency_data and np.asarray(picture.convert("RGBA"))[..., 3].min() < 255:
        return "transparency"
    if picture.format in ("TIFF", "WEBP") and _frames(picture) > 1:  # MPO has a photograph and its preview
        return "frames"
    if "exif" in picture.info:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged EXIF data: of no pixel
            try:
                orientation = picture.getexif().get(Base.Orientation)
            except Exception:  # whatever Pillow makes of it
                return None
        if orientation in range(2, 9):
            return "orientation"
    return None
