"""The tokenizers by name: what recipes and artifacts call them.

A kind's module is imported when it is asked for, so that fitting k-means does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module

from sidlake.tokenizers.errors import ArtifactError
from sidlake.tokenizers.tokenizer import Tokenizer

__all__ = ["KINDS", "tokenizer_class"]

KINDS = {
    "residual_kmeans": ("residual_kmeans", "ResidualKMeans"),
}
"""Module and class of each kind."""


def tokenizer_class(kind: str) -> type[Tokenizer]:
    """Return the class of `kind`; `ArtifactError` for a name that this version does not know.

    >>> tokenizer_class("residual_kmeans").__name__
    'ResidualKMeans'
    """
    if kind not in KINDS:
        msg = f"there is no tokenizer {kind!r}: this version has {', '.join(sorted(KINDS))}"
        raise ArtifactError(msg, kind=kind)
    module, name = KINDS[kind]
    found: type[Tokenizer] = getattr(import_module(f"sidlake.tokenizers.{module}"), name)
    return found
