"""What tokenizers share that hold another one and change what its codes are called or how many there are.

The config names the inner tokenizer by kind and fields, the artifact holds the inner tensors, and vectors, latents and dimensions
are the inner tokenizer's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Protocol

import numpy.typing as npt

from sidlake.tokenizers.numeric.nearest import Float32Array
from sidlake.tokenizers.registry import tokenizer_config
from sidlake.tokenizers.tokenizer import ItemFacts, Tokenizer

__all__ = ["Wrapper", "WrapperConfig", "fitted_inner", "loaded_inner", "named"]


class WrapperConfig(Protocol):
    """What a wrapper's config says of the tokenizer inside: its kind, the fields of its config, the device to fit it on."""

    @property
    def inner(self) -> str:
        """The kind."""

    @property
    def fields(self) -> dict[str, Any]:
        """The config of the inner tokenizer but for its device."""

    @property
    def device(self) -> str:
        """Where it is fitted."""


class Wrapper(Tokenizer):
    """A tokenizer around `inner`, which decides everything that is not said anew."""

    def __init__(self, inner: Tokenizer, config: WrapperConfig) -> None:
        self.inner = inner
        self.config = config
        self.ordered = inner.ordered  # the instance's own: the inner tokenizer decides
        self.encode_needs = inner.encode_needs
        self.made_with = inner.made_with

    @property
    def widths(self) -> tuple[int, ...]:
        """As the inner tokenizer's."""
        return self.inner.widths

    @property
    def dim(self) -> int:
        """Dimensions of the input vectors."""
        return self.inner.dim

    @property
    def implicit(self) -> bool:
        """As the inner tokenizer."""
        return self.inner.implicit

    def latents(self, x_ND: npt.ArrayLike) -> Float32Array:
        """Return the inner tokenizer's latents."""
        return self.inner.latents(x_ND)

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return the inner tokenizer's."""
        return self.inner.tensors()


def named(inner: Tokenizer) -> dict[str, Any]:
    """Return `inner` and `fields` of a config for a wrapper around `inner`."""
    fields = asdict(inner.config)
    del fields["device"]
    return {"inner": inner.kind, "fields": fields}


def fitted_inner(x_ND: npt.ArrayLike, config: WrapperConfig, facts: ItemFacts | None) -> Tokenizer:
    """Return the tokenizer that `config` names, fitted to the rows."""
    kind, settings = tokenizer_config(config.inner, config.fields | {"device": config.device})
    return kind.fit(x_ND, settings, facts=facts)


def loaded_inner(config: WrapperConfig, tensors: Mapping[str, npt.NDArray[Any]]) -> Tokenizer:
    """Return the tokenizer that `config` names, made of its `tensors`."""
    kind, settings = tokenizer_config(config.inner, config.fields)
    return kind.from_tensors(settings, tensors)
