"""Pictures as vectors: scikit-image's features without weights, or any picture model that sentence-transformers loads.

A picture comes as bytes, or as a path below the recipe's folder. What cannot be read (damaged, cut short, too large, a path that
leads nowhere or outside, a URL where none are allowed) is rejected with its reason; the others are embedded. A model sees pictures
one batch of a fixed size at a time on one thread, so that a vector depends on its picture alone.

Not done: choosing image regions, animated pictures beyond their first frame.
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sidlake.encoders.image.decoding import DECODING_VERSION, as_seen, on_white
from sidlake.encoders.image.features import FEATURE_DIM, FEATURE_VERSION, picture_features
from sidlake.encoders.model_folder import folder_digest, resolve_folder
from sidlake.errors import EncoderError

__all__ = ["EncodedImages", "ImageEncoder", "ImageEncoderConfig", "RejectedImage"]

FEATURES = "features"
_URL_SECONDS = 20
_URL_BYTES = 32 * 2**20
_SCHEMES = ("http://", "https://")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageEncoderConfig:
    """Which pictures become vectors and by what.

    Attributes:
        model: ``features``, or the name or folder of a model.
        batch_size: pictures a model sees at a time.
        max_pixels: a picture with more is rejected unread.
        allow_urls: fetch pictures whose place is a URL; off, because a catalogue should not decide what a machine connects to.
        device: ``auto``, ``cpu`` or ``cuda``, for models.
    """

    model: str = FEATURES
    batch_size: int = 32
    max_pixels: int = 50_000_000
    allow_urls: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        if not self.model or self.batch_size < 1 or self.max_pixels < 1 or self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"image: a model, batch_size and max_pixels >= 1, device auto, cpu or cuda are needed, got {self}")


@dataclass(frozen=True, slots=True)
class RejectedImage:
    """A picture that could not be read: its position in the call, and why."""

    index: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EncodedImages:
    """Vectors float32 [N, D] (zeros where absent), bool [N] of pictures that were read, and those that were rejected."""

    vectors_ND: NDArray[np.float32]
    present_N: NDArray[np.bool_]
    rejected: tuple[RejectedImage, ...]


class ImageEncoder:
    """Encodes pictures. Make it with `ImageEncoder.load`."""

    def __init__(self, config: ImageEncoderConfig, *, encoder_id: str, dim: int, model: Any = None) -> None:  # noqa: ANN401
        self.config = config
        self.encoder_id = encoder_id
        self.dim = dim
        self._model = model

    @classmethod
    def load(cls, config: ImageEncoderConfig) -> ImageEncoder:
        """Return the encoder of `config`.

        Raises:
            EncoderError: the model is missing, unsafe, or embeds no pictures.
        """
        if config.model == FEATURES:
            library = f"{FEATURE_VERSION}.{DECODING_VERSION}\n{version('scikit-image')}\n{version('pillow')}"
            digest = hashlib.sha256(library.encode()).hexdigest()
            return cls(config, encoder_id=f"image:{FEATURES}:{digest[:12]}", dim=FEATURE_DIM)
        import torch
        from sentence_transformers import SentenceTransformer

        folder = resolve_folder(config.model, reads_text=False)
        device = config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        try:
            model = SentenceTransformer(str(folder), device=device, trust_remote_code=False)
            probe = np.asarray(model.encode([Image.new("RGB", (8, 8))], show_progress_bar=False))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise EncoderError(f"{config.model} does not load as a picture model: {type(error).__name__}: {error}") from error
        own = Path(config.model).expanduser()
        name = own.resolve().name if own.is_dir() else config.model
        digest = hashlib.sha256(f"{DECODING_VERSION}\n{folder_digest(folder)}".encode()).hexdigest()
        return cls(config, encoder_id=f"image:{name}:{digest[:12]}", dim=int(probe.shape[1]), model=model)

    def encode(self, images: Sequence[bytes | str | None], *, root: str | Path = ".") -> EncodedImages:
        """Return the vectors of `images` in their order; None is absent, what cannot be read is rejected.

        Paths start at `root` and may not leave it. Memory: one batch of decoded pictures.
        """
        vectors = np.zeros((len(images), self.dim), dtype=np.float32)
        present = np.zeros(len(images), dtype=bool)
        rejected = []
        for start in range(0, len(images), self.config.batch_size):
            batch: list[tuple[int, Image.Image]] = []
            for index, image in enumerate(images[start : start + self.config.batch_size], start):
                if image is None:
                    continue
                try:
                    batch.append((index, self._open(image, Path(root))))
                except _Unreadable as error:
                    rejected.append(RejectedImage(index, str(error)))
            for (index, _), vector in zip(batch, self._encode([picture for _, picture in batch]), strict=True):
                vectors[index], present[index] = vector, True
        return EncodedImages(vectors_ND=vectors, present_N=present, rejected=tuple(rejected))

    def _encode(self, pictures: list[Image.Image]) -> NDArray[np.float32]:
        if not pictures:
            return np.empty((0, self.dim), dtype=np.float32)
        if self._model is None:
            return np.stack([picture_features(picture) for picture in pictures])
        import torch

        filled = [on_white(picture) for picture in pictures]
        filled += [Image.new("RGB", (8, 8))] * (self.config.batch_size - len(filled))
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            found = self._model.encode(filled, batch_size=len(filled), show_progress_bar=False, convert_to_numpy=True)
        finally:
            torch.set_num_threads(threads)
        vectors: NDArray[np.float32] = np.asarray(found, dtype=np.float32)[: len(pictures)]
        if not np.isfinite(vectors).all():
            raise EncoderError(f"{self.encoder_id} returned a vector that is not finite: use another model")
        return vectors

    def _open(self, image: bytes | str, root: Path) -> Image.Image:
        """Return the decoded picture as a person sees it; `_Unreadable` says why there is none."""
        data = image if isinstance(image, bytes) else self._read(image, root)
        if not data:
            raise _Unreadable("empty")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is checked before decoding
                picture = Image.open(io.BytesIO(data))
                if picture.width * picture.height > self.config.max_pixels:
                    raise _Unreadable(f"{picture.width} x {picture.height} pixels, allowed {self.config.max_pixels}")
                picture.load()
                return as_seen(picture)
        except UnidentifiedImageError as error:
            raise _Unreadable("not a picture of a known format") from error
        except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
            raise _Unreadable(f"{type(error).__name__}: {error}") from error

    def _read(self, place: str, root: Path) -> bytes:
        if place.startswith(_SCHEMES):
            if not self.config.allow_urls:
                raise _Unreadable("a URL, and allow_urls is off")
            try:
                with urlopen(place, timeout=_URL_SECONDS) as answer:  # noqa: S310  the scheme is one of _SCHEMES
                    data: bytes = answer.read(_URL_BYTES + 1)
            except OSError as error:
                raise _Unreadable(f"{type(error).__name__}: {error}") from error
            if len(data) > _URL_BYTES:
                raise _Unreadable(f"more than {_URL_BYTES} bytes")
            return data
        path = (root / place).resolve()
        if not path.is_relative_to(root.resolve()):
            raise _Unreadable("a path that leads out of the recipe's folder")
        try:
            return path.read_bytes()
        except OSError as error:
            raise _Unreadable(f"{error.strerror}: {place}") from error


class _Unreadable(Exception):
    """Why one picture was rejected; never leaves this module."""
