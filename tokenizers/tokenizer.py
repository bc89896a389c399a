"""What every tokenizer is: fit vectors to codebooks, encode vectors to codes, decode codes to vectors.

A tokenizer decides codes in its latent space, level by level: a SID's latent is the sum of what its codes add, and what a code adds
may depend on the codes before it (`increments`). Residual quantizers add centroids of the input space itself, an RQ-VAE centroids
of its encoder's output, product quantization centroids that live in blocks of a rotated space, QINCo what a network makes of the
prefix. Uniqueness strategies work on that alone, so each of them serves every tokenizer.

What a tokenizer may know of items beyond their vectors is `ItemFacts`: index baselines spell identifiers, time or categories, and
some losses learn from co-purchases. Storing is done by `codebook`, choosing a tokenizer by name by `registry`.

Shape suffixes: N rows, D dimensions of the input, E of the latent space, L levels, K codes of a level, P pairs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

from sidlake.errors import FitError
from sidlake.tokenizers.fit_input import as_rows
from sidlake.tokenizers.numeric.nearest import Float32Array, Float64Array, Int32Array, Int64Array, all_finite

__all__ = ["ItemFacts", "Tokenizer", "TokenizerSettings", "checked_codes", "checked_rows", "frozen_values"]


class TokenizerSettings(Protocol):
    """What the frozen config of every tokenizer has; the rest differs by kind and is in its artifact too, but for the device."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Codes per level, coarse to fine."""

    @property
    def seed(self) -> int:
        """The only source of randomness."""

    @property
    def device(self) -> str:
        """Where the fit computes: ``cpu`` or ``cuda[:n]``."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ItemFacts:
    """What is known of the items beside their vectors, row for row; what a catalogue lacks is None.

    Attributes:
        item_hashes_N: uint64, see `item_hash`.
        first_seen_N: int64, microseconds since 1970.
        categories_N: Each item's category path, general to special.
        pairs_P2: int64, rows of two items that the same user took, each pair as often as it happened; known to fits only.
        pairs_window: The first and the last instant of the events behind `pairs_P2`, as ISO 8601, or None; artifacts record it.
        collaborative_NC: float32, vectors of behaviour, zeros where an item has none; known to fits only.
        former_codes_NL: int32, the codes that the items have in the generation before, −1 where they have none; known to the fits
            of kinds with `warm_starts` that are to start from them.
    """

    item_hashes_N: npt.NDArray[np.uint64] | None = None
    first_seen_N: Int64Array | None = None
    categories_N: Sequence[Sequence[str]] | None = None
    pairs_P2: Int64Array | None = None
    pairs_window: tuple[str, str] | None = None
    collaborative_NC: Float32Array | None = None
    former_codes_NL: Int32Array | None = None

    def require(self, names: frozenset[str], kind: str) -> None:
        """Raise `FitError` where one of `names` is None: the tokenizer `kind` cannot do without."""
        known = {field.name for field in fields(self) if getattr(self, field.name) is not None}
        missing = sorted(names - known)
        if missing:
            msg = f"tokenizer {kind} needs {', '.join(missing)} of the items, which are not known here: choose another kind"
            raise FitError(msg, kind=kind, missing=missing)


class Tokenizer(ABC):
    """A fitted tokenizer. It never changes; equal rows get equal codes whatever their batch, their order, threads or device.

    Attributes:
        kind: Name in recipes and artifacts.
        ordered: Whether a code refines the codes before it; False for parallel codes, whose prefixes mean nothing.
        fit_needs: Names of the `ItemFacts` without which `fit` raises.
        encode_needs: Names of the `ItemFacts` without which `encode` raises.
        warm_starts: Whether `fit` starts from `ItemFacts.former_codes_NL` where they are given; other kinds ignore them.
        farthest: How many times as far from the middle as most a row of the fit may lie; None where the kind copes with any.
        config_type: The class of `config`, a frozen dataclass.
        made_with: What beside rows, config and seed decided the bits of the fit: empty for kinds whose bits nothing else decides;
            for kinds trained by gradient the device and the versions. Stored in artifacts, no part of their hash.
    """

    kind: ClassVar[str]
    ordered: bool = True
    fit_needs: ClassVar[frozenset[str]] = frozenset()
    encode_needs: frozenset[str] = frozenset()
    warm_starts: ClassVar[bool] = False
    farthest: ClassVar[float | None] = None
    config_type: ClassVar[type[Any]]
    made_with: Mapping[str, str] = MappingProxyType({})

    config: Any

    def __repr__(self) -> str:
        """Say the kind, the widths, the dimension and the settings."""
        return f"<{type(self).__name__} of {self.dim} dimensions, widths {self.widths}, fitted as {self.config}>"

    def get_params(self, deep: bool = False) -> dict[str, Any]:
        """Return the settings by name, as scikit-learn's estimators do: ``config_type(**get_params())`` equals `config`."""
        return {field.name: getattr(self.config, field.name) for field in fields(self.config)}

    @property
    @abstractmethod
    def widths(self) -> tuple[int, ...]:
        """Codes per level."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Dimensions of the input vectors."""

    @classmethod
    @abstractmethod
    def fit(cls, x_ND: npt.ArrayLike, config: Any, *, facts: ItemFacts | None = None) -> Self:  # noqa: ANN401  each kind has its own
        """Return a tokenizer fitted to the rows: the same bits for the same rows in the same order and the same config.

        Raises `FitError` for NaN, infinity, a wrong shape, fewer rows than codes of a level, or facts that are missing.
        """

    @abstractmethod
    def encode_with_norms(
        self, x_ND: npt.ArrayLike, *, facts: ItemFacts | None = None, device: str = "cpu"
    ) -> tuple[Int32Array, Float64Array]:
        """Return codes_NL and norms_N, the Euclidean norms of what the codes leave of the latents.

        `ValueError` for a wrong dimension or a value that is not finite.
        """

    def encode(self, x_ND: npt.ArrayLike, *, facts: ItemFacts | None = None, device: str = "cpu") -> Int32Array:
        """Return codes_NL, the raw codes: not unique yet."""
        return self.encode_with_norms(x_ND, facts=facts, device=device)[0]

    @abstractmethod
    def decode(self, codes_NL: npt.ArrayLike, depth: int | None = None) -> Float32Array:
        """Return x_ND, what the first `depth` levels (all, if None) say of the vectors."""

    def latents(self, x_ND: npt.ArrayLike) -> Float32Array:
        """Return z_NE, float32, the vectors as the codes see them: the input itself unless a kind says otherwise."""
        return checked_rows(x_ND, self.dim)

    @abstractmethod
    def increments(self, prefix: Sequence[int]) -> Float32Array:
        """Return increments_KE, what each code of level ``len(prefix)`` adds to the latent after the codes of `prefix`."""

    @property
    def implicit(self) -> bool:
        """Whether `increments` depend on the prefix and not on its length alone."""
        return False

    @abstractmethod
    def codebooks(self) -> list[tuple[Float32Array, Int64Array]]:
        """Return per level the centroids, float32 [K, any], and the rows of the fit per code, int64 [K]: what analysts see."""

    @abstractmethod
    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return everything fitted, by name, in a fixed order; with `config` it makes the tokenizer again."""

    @classmethod
    @abstractmethod
    def from_tensors(cls, config: Any, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:  # noqa: ANN401  each kind has its own
        """Return the tokenizer of which `tensors` came. `KeyError` or `ValueError` where they do not fit `config`."""


def checked_rows(x_ND: npt.ArrayLike, dim: int) -> Float32Array:
    """Return the rows as contiguous float32; `ValueError` where their dimension is not `dim` or a value is not finite."""
    with np.errstate(over="ignore"):  # beyond float32 is infinite, which is refused below
        x = np.ascontiguousarray(as_rows(x_ND), dtype=np.float32)
    if x.ndim != 2 or x.shape[1] != dim:
        msg = f"vectors must have shape [rows, {dim}], the tokenizer's dimension, got {x.shape}"
        raise ValueError(msg)
    if not all_finite(x):
        finite = np.isfinite(x).all(axis=1)
        msg = f"{int((~finite).sum())} vectors hold NaN or infinity, the first is row {int(finite.argmin())}: remove them first"
        raise ValueError(msg)
    return x


def checked_codes(codes_NL: npt.ArrayLike, widths: tuple[int, ...], depth: int | None) -> npt.NDArray[np.integer[Any]]:
    """Return codes_Nd of the first `depth` levels (all, if None); `ValueError` where there are fewer or one is out of range."""
    codes = as_rows(codes_NL)
    num_levels = len(widths) if depth is None else depth
    if not 0 <= num_levels <= len(widths) or codes.ndim != 2 or codes.shape[1] < num_levels:
        msg = f"cannot decode {num_levels} levels of codes {codes.shape}: the codebooks have {len(widths)} levels"
        raise ValueError(msg)
    if codes.size and codes.dtype.kind not in "iu":
        msg = f"codes must be whole numbers, got {codes.dtype}"
        raise ValueError(msg)
    used: npt.NDArray[np.integer[Any]] = codes[:, :num_levels]
    if used.size and ((used < 0) | (used >= np.array(widths[:num_levels]))).any():
        msg = f"codes lie in [{used.min()}, {used.max()}], the widths are {widths}"
        raise ValueError(msg)
    return used


def frozen_values(value: object) -> object:
    """Return JSON lists as tuples, as configs hold them, and other values as they are.

    >>> frozen_values({"widths": [4, 4]})
    {'widths': (4, 4)}
    """
    if isinstance(value, list):
        return tuple(frozen_values(entry) for entry in value)
    return {key: frozen_values(entry) for key, entry in value.items()} if isinstance(value, dict) else value
