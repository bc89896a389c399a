"""A tokenizer whose codes go by other names: what keeps items on their codes when a new generation is fitted.

Any tokenizer can be inside: it decides codes, latents and norms as it always does, and each code is then called by the name that
`generation_alignment` found for it. So names change no decision, not even between equal distances, which is why this is not a
shuffle of the codebooks. Where more than one code is as near, uniqueness strategies go by the names.

Shape suffixes as in `tokenizer`.
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
from sidlake.tokenizers.uniqueness.append_digit import AppendDigit

__all__ = ["Relabelled", "RelabelledConfig", "own_codes"]

_TENSOR = "relabelled."


@dataclass(frozen=True, kw_only=True, slots=True)
class RelabelledConfig:
    """The tokenizer inside, by kind and the fields of its config; the names are in the artifact."""

    inner: str
    fields: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_settings(self)


class Relabelled(Wrapper):
    """A tokenizer with a permutation of the codes of each level. Make it with `around`.

    Attributes:
        inner: Whose codes these are.
        names: Per level, int32 [K]: the name of each code of `inner`.
    """

    kind = "relabelled"
    config_type = RelabelledConfig

    def __init__(self, inner: Tokenizer, names: Sequence[npt.NDArray[np.integer[Any]]], config: RelabelledConfig) -> None:
        super().__init__(inner, config)
        self.names = tuple(np.ascontiguousarray(level, dtype=np.int32) for level in names)
        wanted = [np.arange(width).tolist() for width in inner.widths]
        if [sorted(level.tolist()) for level in self.names] != wanted:
            shapes = [level.shape for level in self.names]
            msg = f"names must be a permutation of the codes of each level, {inner.widths}, got arrays {shapes} that are not"
            raise ValueError(msg)
        self._code_of = tuple(np.argsort(level).astype(np.int32) for level in self.names)

    @classmethod
    def around(cls, inner: Tokenizer, names: Sequence[npt.NDArray[np.integer[Any]]]) -> Self:
        """Return `inner` with its codes called by `names`; `ValueError` where they are no permutation of a level's codes."""
        return cls(inner, names, RelabelledConfig(**named(inner)))

    @classmethod
    def fit(cls, x_ND: npt.ArrayLike, config: RelabelledConfig, *, facts: ItemFacts | None = None) -> Self:
        """Return the fitted inner tokenizer, every code called by its own name."""
        check_config(cls, config)
        inner = fitted_inner(x_ND, config, facts)
        return cls(inner, [np.arange(width) for width in inner.widths], config)

    def encode_with_norms(
        self, x_ND: npt.ArrayLike, *, facts: ItemFacts | None = None, device: str = "cpu"
    ) -> tuple[Int32Array, Float64Array]:
        """Return the names of the inner codes, and their norms."""
        codes_NL, norms_N = self.inner.encode_with_norms(x_ND, facts=facts, device=device)
        return _mapped(codes_NL, self.names), norms_N

    def decode(self, codes_NL: npt.ArrayLike, depth: int | None = None) -> Float32Array:
        """Return what the inner tokenizer makes of the codes that go by these names."""
        named = checked_codes(codes_NL, self.widths, depth)
        return self.inner.decode(_mapped(named, self._code_of), named.shape[1])

    def own_codes(self, codes_NL: npt.ArrayLike) -> Int32Array:
        """Return the inner tokenizer's codes that go by these names, int32 [N, L]."""
        return _mapped(checked_codes(codes_NL, self.widths, None), self._code_of)

    def increments(self, prefix: Sequence[int]) -> Float32Array:
        """Return the inner tokenizer's increments in the order of the names, float32 [K, E]."""
        own = [int(codes_K[name]) for codes_K, name in zip(self._code_of, prefix, strict=False)]
        return np.ascontiguousarray(self.inner.increments(own)[self._code_of[len(own)]])

    def codebooks(self) -> list[tuple[Float32Array, Int64Array]]:
        """Return the inner centroids and counts in the order of the names."""
        return [(book[order], counts[order]) for (book, counts), order in zip(self.inner.codebooks(), self._code_of, strict=True)]

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return the inner tokenizer's, then ``relabelled.<level>``, the names."""
        return self.inner.tensors() | {f"{_TENSOR}{level}": names_K for level, names_K in enumerate(self.names)}

    @classmethod
    def from_tensors(cls, config: RelabelledConfig, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Return the tokenizer of which `tensors` came."""
        inner = loaded_inner(config, {name: tensor for name, tensor in tensors.items() if not name.startswith(_TENSOR)})
        return cls(inner, [tensors[f"{_TENSOR}{level}"] for level in range(len(inner.widths))], config)


def own_codes(model: Tokenizer, codes_NL: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.integer[Any]]:
    """Return what the SIDs would be had the generation's codes kept their own names: `codes_NL` where none has another.

    Sees through an appended digit, which has no other name.
    """
    if isinstance(model, AppendDigit):
        return np.concatenate([own_codes(model.inner, codes_NL[:, :-1]), codes_NL[:, -1:]], axis=1)
    return model.own_codes(codes_NL) if isinstance(model, Relabelled) else codes_NL


def _mapped(codes_NL: npt.NDArray[np.integer[Any]], of_level: Sequence[Int32Array]) -> Int32Array:
    """Return the codes of the first levels, each looked up in its level's table."""
    mapped = np.empty(codes_NL.shape, dtype=np.int32)
    for level in range(codes_NL.shape[1]):
        mapped[:, level] = of_level[level][codes_NL[:, level]]
    return mapped
