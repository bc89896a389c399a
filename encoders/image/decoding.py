"""A picture as a person sees it: upright, in eight bits of sRGB, its first frame.

A camera turns a picture by a note in its EXIF data, a scanner writes sixteen bits, print shops CMYK, phones a wide colour space:
who takes the pixels as they lie in the file compares things that nobody sees. Transparency stays, for the encoder to lay on white.
Not done here: finding the bytes, and limits of size (see `encoder`).
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageCms, ImageOps

__all__ = ["DECODING_VERSION", "as_seen", "on_white"]

DECODING_VERSION = 1
"""Part of the encoders' ids: raise it when a picture would be decoded into other pixels."""

_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


def as_seen(picture: Image.Image) -> Image.Image:
    """Return a loaded picture upright, of mode L, LA, RGB or RGBA in sRGB; a colour profile that cannot be used is left out."""
    upright = ImageOps.exif_transpose(picture)
    if upright.mode in _DEEP:
        return _in_eight_bits(upright)
    profile = picture.info.get("icc_profile")
    seen = _in_srgb(upright, profile) if profile else upright
    if seen.mode == "P":
        return seen.convert("RGBA" if "transparency" in seen.info else "RGB")
    if seen.mode in ("L", "LA", "RGB", "RGBA"):
        return seen
    return seen.convert("RGBA" if seen.mode in ("PA", "La", "RGBa") else "RGB")


def on_white(picture: Image.Image) -> Image.Image:
    """Return the picture in RGB, what is transparent as white: a model has no fourth channel."""
    if picture.mode not in ("LA", "RGBA") and "transparency" not in picture.info:
        return picture.convert("RGB")
    layered = picture.convert("RGBA")
    white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layered).convert("RGB")


def _in_eight_bits(picture: Image.Image) -> Image.Image:
    """Return a grey picture of sixteen or more bits in eight: of its mode's range, or of its own where that has none."""
    values = np.asarray(picture, dtype=np.float64)
    values = np.where(np.isfinite(values), values, 0.0)
    low, high = float(values.min(initial=0.0)), float(values.max(initial=0.0))
    ranges = (65535.0,) if picture.mode.startswith("I;16") else (1.0, 255.0, 65535.0) if picture.mode == "F" else (255.0, 65535.0)
    top = next((most for most in ranges if high <= most), high)
    scaled = (values - min(low, 0.0)) / (top - min(low, 0.0)) * 255.0
    return Image.fromarray(np.rint(np.clip(scaled, 0.0, 255.0)).astype(np.uint8))


def _in_srgb(picture: Image.Image, profile: bytes) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = picture.mode if picture.mode in ("RGB", "RGBA") else "RGB"
        if picture.mode not in ("RGB", "RGBA", "CMYK", "LAB"):
            return picture
        return ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode=mode) or picture
    except (ImageCms.PyCMSError, OSError, ValueError):  # of another colour model, or damaged: browsers leave it out too
        return picture
