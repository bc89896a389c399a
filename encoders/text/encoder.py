"""Texts become vectors, each a pure function of its text: not of the batch, the neighbours, the order or the number of threads.

Same inputs must give the same semantic IDs on one worker or many, so the bits of a vector must not depend on how the texts were
grouped. `fixed_batches` and `text_model` say how; measured equal bit for bit on x86 with AVX-512 for every length, row and thread
count. Across different CPUs, BLAS builds or a GPU, vectors agree to about 1e-6 and not bit for bit.

Deliberately not done: a cache of vectors (the pipeline keeps them by content hash) and models behind a network service.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from sidlake.encoders.model_folder import BUNDLED_MODEL, folder_digest, resolve_folder
from sidlake.errors import EncoderError

if TYPE_CHECKING:  # torch takes seconds to import: only who embeds pays, not who reads a recipe
    from sidlake.encoders.text.calibration import Calibration
    from sidlake.encoders.text.model import Kernel, Precision, TextModel

__all__ = ["TextEncoder", "TextEncoderConfig", "calibrate", "with_kernel_of"]

_TOKENS_PER_TEXT = 16
_CUDA_FACTOR = 32  # a GPU wants far more tokens per pass than a core
_PRECISIONS = ("auto", "float32", "bfloat16", "float16")
_DEVICES = ("auto", "cpu", "cuda")
_KERNELS = ("auto", "packed", "padded")
_SUFFIXES: dict[Kernel, str] = {"packed": ":packed", "padded": "", "cuda": ":cuda"}


@dataclass(frozen=True, kw_only=True, slots=True)
class TextEncoderConfig:
    """Which text model and how to run it.

    Attributes:
        model: the bundled name, a folder, or a hub name.
        max_length: tokens of a text that are read; without it the model's own limit.
        batch_size: texts of 16 tokens per forward pass; longer texts go in proportionally smaller batches. It is a matter of
            speed and not part of the id.
        precision: of the model's numbers; ``auto`` goes by the processor's instructions.
        device: where the model runs; ``auto`` takes a GPU where there is one.
        kernel: how a CPU runs it: ``packed`` without padding (models of BERT's architecture), ``padded``, or the faster of the
            two that the model allows. Their vectors differ by about 1e-6, so the id names which.
    """

    model: str = BUNDLED_MODEL
    max_length: int | None = None
    batch_size: int = 32
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    kernel: Literal["auto", "packed", "padded"] = "auto"

    def __post_init__(self) -> None:
        if not self.model.strip():
            raise ValueError("model is empty: give a model name or a folder")
        if self.max_length is not None and self.max_length < 4:
            raise ValueError(f"max_length must be at least 4 tokens, got {self.max_length}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.precision not in _PRECISIONS:
            raise ValueError(f"precision must be one of {_PRECISIONS}, got {self.precision!r}")
        if self.device not in _DEVICES:
            raise ValueError(f"device must be one of {_DEVICES}, got {self.device!r}")
        if self.kernel not in _KERNELS:
            raise ValueError(f"kernel must be one of {_KERNELS}, got {self.kernel!r}")
        if self.kernel == "packed" and self.device == "cuda":
            raise ValueError("kernel 'packed' is for CPUs: leave kernel or device to 'auto'")


def calibrate(config: TextEncoderConfig) -> Calibration:
    """Return the precision to use for `config`'s model here, with what it was chosen by; takes seconds (up to two model loads).

    Record it once per warehouse and load with ``dataclasses.replace(config, precision=calibration.precision)``.
    """
    from sidlake.encoders.text.calibration import choose_precision

    folder, device = resolve_folder(config.model), _device(config)
    return choose_precision(folder, device=device, max_length=config.max_length, kernel=config.kernel)


def with_kernel_of(config: TextEncoderConfig, encoder_id: str) -> TextEncoderConfig:
    """Return `config` with a device and kernel of ``auto`` replaced by those that made the vectors of `encoder_id`.

    >>> with_kernel_of(TextEncoderConfig(), "text:mini:0123456789ab:float32:packed").kernel
    'packed'
    """
    on_cuda = encoder_id.endswith(_SUFFIXES["cuda"])
    device: Literal["cpu", "cuda"] = "cuda" if on_cuda else "cpu"
    kernel: Literal["auto", "packed", "padded"] = "padded"
    if on_cuda or config.device == "cuda":
        kernel = "auto"
    elif encoder_id.endswith(_SUFFIXES["packed"]):
        kernel = "packed"
    return replace(
        config,
        device=device if config.device == "auto" else config.device,
        kernel=kernel if config.kernel == "auto" else config.kernel,
    )


class TextEncoder:
    """Encodes texts with one loaded model. Make it with `TextEncoder.load`."""

    def __init__(self, model: TextModel, *, encoder_id: str, precision: Precision, tokens_per_batch: int) -> None:
        self.encoder_id = encoder_id
        self.precision = precision
        self.dim = model.dim
        self._model = model
        self._tokens_per_batch = tokens_per_batch

    @classmethod
    def load(cls, config: TextEncoderConfig) -> TextEncoder:
        """Return the encoder of `config`; precision ``auto`` is calibrated on the spot (see `calibrate` to do that only once).

        The bundled model never touches the network; a hub name may, unless ``HF_HUB_OFFLINE=1``.

        Raises:
            EncoderError: the model is missing, damaged, unsafe (pickled weights, foreign code) or of an unsupported kind.
        """
        from sidlake.encoders.text.model import TextModel

        folder, device = resolve_folder(config.model), _device(config)
        precision = calibrate(config).precision if config.precision == "auto" else config.precision
        model = TextModel.load(folder, device=device, max_length=config.max_length, precision=precision, kernel=config.kernel)
        return cls(
            model,
            encoder_id=_encoder_id(config.model, folder, max_length=model.max_length, precision=precision)
            + _SUFFIXES[model.kernel],
            precision=precision,
            tokens_per_batch=config.batch_size * _TOKENS_PER_TEXT * (_CUDA_FACTOR if device == "cuda" else 1),
        )

    def encode(self, texts: Sequence[str], *, progress: Callable[[int, int], None] | None = None) -> NDArray[np.float32]:
        """Return the vectors of `texts`: float32 [len(texts), dim] in their order, of length 1 if the model normalises.

        Equal texts are encoded once. An empty text gets the model's own vector of "". Texts are cut to ``100 * max_length``
        characters before the tokenizer, then to `max_length` tokens. `progress` receives (done, total) in distinct texts.
        Memory: 4 * dim bytes per text, plus about 36 per token of a distinct text; pass thousands at a time, not millions
        (and not tens: the last batch of each width is filled up).

        Raises:
            EncoderError: a text that is not valid Unicode, or a vector that is not finite; the message names the text's index.
        """
        _check_texts(texts)
        first = {text: index for index, text in reversed(list(enumerate(texts)))}
        slots = {text: slot for slot, text in enumerate(first)}
        tokens = self._model.tokenise(list(slots))
        batches = self._model.batches(tokens, tokens_per_batch=self._tokens_per_batch)
        vectors = np.empty((len(slots), self.dim), dtype=np.float32)
        done = 0
        for batch, rows in self._model.run(tokens, batches):
            vectors[list(batch.rows[: batch.real])] = rows
            done += batch.real
            if progress is not None:
                progress(done, len(slots))
        _check_finite(vectors, list(first.values()), self.encoder_id)
        return vectors[[slots[text] for text in texts]]


def _device(config: TextEncoderConfig) -> str:
    if config.device == "auto":
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"
    return config.device


def _encoder_id(model: str, folder: Path, *, max_length: int, precision: Precision) -> str:
    """Return ``text:<name>:<12 hex>:<precision>``; the hash covers the model's files and every setting that changes a vector.

    The kernel follows it, but for ``padded``: ids made before there was another one stay what they were.
    """
    from sidlake.encoders.text.model import CHARS_PER_TOKEN

    settings = json.dumps({"max_length": max_length, "chars_per_token": CHARS_PER_TOKEN}, sort_keys=True)
    digest = hashlib.sha256(f"{folder_digest(folder)}\n{settings}".encode()).hexdigest()
    name = Path(model).expanduser().resolve().name if Path(model).expanduser().is_dir() else model
    return f"text:{name}:{digest[:12]}:{precision}"


def _check_texts(texts: Sequence[str]) -> None:
    if isinstance(texts, str):
        raise ValueError("texts must be a sequence of strings, got one string: wrap it in a list")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"text {index} must be a str, got {type(text).__name__}")
        if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            raise EncoderError(f"Text {index} is not valid Unicode (a lone surrogate). Decode the source as UTF-8.", index=index)


def _check_finite(vectors: NDArray[np.float32], indices: list[int], encoder_id: str) -> None:
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if broken.size:
        index = min(indices[slot] for slot in broken)
        raise EncoderError(
            f"{encoder_id} returned a vector that is not finite for text {index} ({broken.size} in all). "
            "Use precision 'float32', or another model.",
            index=index,
        )
