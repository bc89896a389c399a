"""One more level that tells apart the items of one code: TIGER's and GRID's digit, but stable.

The digit has no geometry: its increments are zeros and `decode` ignores it. So the resolver of `collisions` (nearest item first,
equal distances to the lowest free code) gives an item alone on its code the digit 0, the next ones 1, 2, …; published digits stay,
a new item takes the lowest free one, and items beyond the last digit go to the nearest code with room. TIGER and GRID number all
colliding items anew each time.

TIGER: Rajput et al. 2023, arXiv 2305.05065, section 3.1. Shape suffixes as in `tokenizer`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from sidlake.tokenizers.fit_input import check_config
from sidlake.tokenizers.generations.wrapper import Wrapper, fitted_inner, loaded_inner, named
from sidlake.tokenizers.numeric.nearest import Float32Array, Float64Array, Int32Array, Int64Array
from sidlake.tokenizers.settings import check_settings
from sidlake.tokenizers.tokenizer import ItemFacts, Tokenizer, checked_codes

__all__ = ["AppendDigit", "AppendDigitConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AppendDigitConfig:
    """The tokenizer inside, by kind and the fields of its config, and how many digits there are."""

    inner: str
    fields: dict[str, Any] = field(default_factory=dict)
    digits: int
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_settings(self)  # at least two digits: with one nothing can be told apart


class AppendDigit(Wrapper):
    """A tokenizer with one level more: the digit. Make it with `around`."""

    kind = "append_digit"
    config_type = AppendDigitConfig

    def __init__(self, inner: Tokenizer, config: AppendDigitConfig) -> None:
        super().__init__(inner, config)
        self._zeros = np.zeros((config.digits, inner.increments([0] * (len(inner.widths) - 1)).shape[1]), dtype=np.float32)

    @classmethod
    def around(cls, inner: Tokenizer, digits: int) -> Self:
        """Return `inner` with a level of `digits` appended."""
        return cls(inner, AppendDigitConfig(**named(inner), digits=digits))

    @classmethod
    def fit(cls, x_ND: npt.ArrayLike, config: AppendDigitConfig, *, facts: ItemFacts | None = None) -> Self:
        """Return the fitted inner tokenizer with its digit."""
        check_config(cls, config)
        return cls(fitted_inner(x_ND, config, facts), config)

    @property
    def widths(self) -> tuple[int, ...]:
        """Codes per level, the digits last."""
        return (*self.inner.widths, self.config.digits)

    def encode_with_norms(
        self, x_ND: npt.ArrayLike, *, facts: ItemFacts | None = None, device: str = "cpu"
    ) -> tuple[Int32Array, Float64Array]:
        """Return the inner codes followed by the digit 0, and their norms."""
        codes_NL, norms_N = self.inner.encode_with_norms(x_ND, facts=facts, device=device)
        return np.concatenate([codes_NL, np.zeros((len(codes_NL), 1), np.int32)], axis=1), norms_N

    def decode(self, codes_NL: npt.ArrayLike, depth: int | None = None) -> Float32Array:
        """Return what the inner tokenizer makes of the codes without the digit."""
        codes = checked_codes(codes_NL, self.widths, depth)
        return self.inner.decode(codes[:, : len(self.inner.widths)], min(codes.shape[1], len(self.inner.widths)))

    def increments(self, prefix: Sequence[int]) -> Float32Array:
        """Return the inner tokenizer's increments, and zeros for the digits."""
        return self._zeros if len(prefix) == len(self.inner.widths) else self.inner.increments(prefix)

    def codebooks(self) -> list[tuple[Float32Array, Int64Array]]:
        """Return the inner codebooks, and for the digits zeros that no row of the fit counts for."""
        return [*self.inner.codebooks(), (self._zeros, np.zeros(self.config.digits, np.int64))]

    @classmethod
    def from_tensors(cls, config: AppendDigitConfig, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Return the tokenizer of which `tensors` came."""
        return cls(loaded_inner(config, tensors), config)
