"""Pictures as vectors without weights: shape, colour and texture by scikit-image's descriptors, the offline default.

Shape is the histogram of oriented gradients (Dalal & Triggs 2005) with the silhouette where the picture is transparent; colour a
histogram in CIELAB with the mean colour of each ninth of the picture; texture local binary patterns at two radii (Ojala et al.
2002). Every block is scaled to length 1, histograms by their square roots first, then weighed. Not learned: two pictures are near
when they look alike, not when they show the same thing.

Shapes: 72 × 72 pixels, `FEATURE_DIM` = 1035 dimensions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["FEATURE_DIM", "FEATURE_VERSION", "picture_features"]

FEATURE_VERSION = 1
"""Part of the encoder's id: raise it when a vector would change."""

_SIDE = 72
_CELL = 12
_BINS_LAB = (4, 6, 6)
_PATTERNS = ((8, 1), (16, 2))  # points, radius
_WEIGHTS = (1.0, 1.0, 0.5, 0.5)  # gradients, colour, texture, silhouette
_GRADIENTS = 5 * 5 * 2 * 2 * 8
FEATURE_DIM = _GRADIENTS + 4 * 6 * 6 + 27 + (8 + 2) + (16 + 2) + (_SIDE // _CELL) ** 2


def picture_features(picture: Image.Image) -> NDArray[np.float32]:
    """Return the vector of one picture, float32 [`FEATURE_DIM`]; it depends on the picture alone.

    Transparent parts count as white for gradients and texture, and not at all for colour.
    """
    from skimage.color import rgb2gray, rgb2lab
    from skimage.feature import hog

    rgba = picture.convert("RGBA").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    pixels = np.asarray(rgba, dtype=np.float64) / 255.0
    alpha = pixels[..., 3]
    rgb = pixels[..., :3] * alpha[..., None] + (1.0 - alpha[..., None])
    grey = rgb2gray(rgb)
    gradients = hog(grey, orientations=8, pixels_per_cell=(_CELL, _CELL), cells_per_block=(2, 2), feature_vector=True)
    lab = rgb2lab(rgb)
    levels = np.rint(grey * 255).astype(np.uint8)  # patterns compare neighbours: on whole numbers rounding cannot decide
    texture = [np.bincount(_patterns(levels, points, radius).ravel(), minlength=points + 2) for points, radius in _PATTERNS]
    silhouette = alpha.reshape(_SIDE // _CELL, _CELL, _SIDE // _CELL, _CELL).mean(axis=(1, 3)).ravel()
    blocks = [gradients, _colour(lab, alpha), np.concatenate([_root(counts) for counts in texture]), silhouette]
    return np.concatenate([weight * _unit(block) for weight, block in zip(_WEIGHTS, blocks, strict=True)]).astype(np.float32)


def _patterns(levels: NDArray[np.uint8], points: int, radius: int) -> NDArray[np.int64]:
    """Return the uniform local binary pattern of each pixel."""
    from skimage import feature

    found: NDArray[np.float64] = feature.local_binary_pattern(levels, points, radius, method="uniform")  # type: ignore[no-untyped-call]
    return found.astype(np.int64)


def _colour(lab: NDArray[np.float64], alpha: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the histogram of visible pixels, rooted, and the mean colour of each of 3 × 3 parts."""
    ranges = ((0.0, 100.0), (-80.0, 80.0), (-80.0, 80.0))
    flat = np.clip(lab.reshape(-1, 3), [low for low, _ in ranges], [high for _, high in ranges])
    histogram, _ = np.histogramdd(flat, bins=_BINS_LAB, range=ranges, weights=alpha.ravel())
    third = _SIDE // 3
    parts = (lab / 100.0 * alpha[..., None]).reshape(3, third, 3, third, 3).mean(axis=(1, 3)).ravel()
    return np.concatenate([_unit(_root(histogram.ravel())), 0.5 * _unit(parts)])


def _root(counts: NDArray[np.floating] | NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the square roots of the counts' shares (Hellinger): large bins do not drown the others."""
    roots: NDArray[np.float64] = np.sqrt(counts / max(float(counts.sum()), 1e-12))
    return roots


def _unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    length = float(np.linalg.norm(values))
    return values / length if length > 0 else values
